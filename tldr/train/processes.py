"""Training in several processes: start them, shard a module over them, and gather it.

Results do not depend on the number of processes or on whether modules are replicated (DDP) or sharded
(FSDP2), except for the order in which floats are added.
"""

from __future__ import annotations

import atexit
import copy
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
import torch.distributed as dist
from accelerate import (
    Accelerator,
    DistributedDataParallelKwargs,
    DistributedType,
    FullyShardedDataParallelPlugin,
    PartialState,
)
from accelerate.state import AcceleratorState
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn

from tldr.errors import UsageError
from tldr.settings.base import Precision
from tldr.train.checkpoint import gather
from tldr.train.precision import ResolvedPrecision, prepare_cpu, prepare_cuda, resolve_precision

M = TypeVar("M", bound=nn.Module)


class JointModules(nn.Module):
    """All trained modules as one module, whose forward runs any function of them.

    DDP, FSDP and autocast act only on the forward of the wrapped module. A loss that called a body or a
    head directly would bypass them, and gradients would not be shared between processes.
    """

    def __init__(self, parts: Mapping[str, nn.Module]):
        super().__init__()
        self.parts = nn.ModuleDict(dict(parts))
        # FSDP reads this attribute to find the classes of layers to shard.
        self._no_split_modules = sorted(
            {n for p in parts.values() for n in getattr(p, "_no_split_modules", [])}
        )

    def forward(self, function: Callable[..., object], *args: object) -> object:
        return function(self.parts, *args)


def _leave_group() -> None:
    """Leave the process group before the interpreter exits.

    Otherwise Gloo's threads sometimes abort a process whose peer has already exited, and a finished run
    would be reported as failed.
    """
    if dist.is_initialized() and dist.get_backend() == "gloo":
        dist.destroy_process_group()


def leave_group_at_exit() -> None:
    """Have this process leave its group before it exits; calling it again changes nothing."""
    atexit.unregister(_leave_group)
    atexit.register(_leave_group)


def process_count() -> int:
    """Processes that share this run; known before anything is loaded."""
    return int(PartialState(cpu=not torch.cuda.is_available()).num_processes)


def make_accelerator(precision: Precision) -> Accelerator:
    """The accelerator of a stage: one GPU, several processes with DDP or FSDP2, or the CPU.

    Raises:
        UsageError: launched with DeepSpeed or FSDP 1, whose optimizer state cannot be saved here.
    """
    cpu = not torch.cuda.is_available()
    device = PartialState(cpu=cpu).device
    if cpu:
        prepare_cpu()
    else:
        prepare_cuda()
    resolved = resolve_precision(precision, device)
    AcceleratorState._reset_state()  # the precision is process-wide; the stages of a study may differ
    accelerator = Accelerator(
        mixed_precision="bf16" if resolved == "bf16" else "no",
        cpu=cpu,
        kwargs_handlers=[
            DistributedDataParallelKwargs(gradient_as_bucket_view=True)
        ],  # saves half the gradient memory
    )
    leave_group_at_exit()
    if parse_flag_from_env("ACCELERATE_USE_FSDP") and accelerator.num_processes > 1:
        _fsdp2(accelerator, resolved)
    kind = accelerator.distributed_type
    if kind == DistributedType.DEEPSPEED or (kind == DistributedType.FSDP and not accelerator.is_fsdp2):
        raise UsageError(
            f"{kind.value} stores its optimizer state in a form that cannot be resumed without pickle",
            remedy="launch with DDP, or with FSDP and fsdp_version: 2",
        )
    return accelerator


def _fsdp2(accelerator: Accelerator, precision: ResolvedPrecision) -> None:
    """Set up FSDP2 with sums in fp32, also on CPUs, where accelerate does not support it.

    By default accelerate would sum gradients and return losses in bf16.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy  # takes two seconds to import

    shared = AcceleratorState._shared_state
    if accelerator.distributed_type == DistributedType.MULTI_CPU:
        shared.update(distributed_type=DistributedType.FSDP, fsdp_plugin=FullyShardedDataParallelPlugin())
    if precision == "bf16":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        shared["fsdp_plugin"].mixed_precision_policy = policy


def blueprint(module: M) -> M:
    """A copy of a module with its weights on the meta device, where they use no memory."""
    empty = {id(p): nn.Parameter(torch.empty_like(p, device="meta")) for p in module.parameters()}
    return copy.deepcopy(module, memo=dict(empty))


def rebuilt(plan: M, module: nn.Module, keep: bool) -> M | None:
    """Fill a module's `blueprint` with a copy of its full weights, on the CPU; every process must call.

    Args:
        keep: whether this process needs the result.
    """
    whole: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        tensor = gather(parameter.detach())  # on the device, so one at a time
        if keep:
            whole[name] = tensor.to("cpu", copy=True)
    if not keep:
        return None
    found = {id(empty): nn.Parameter(whole[name]) for name, empty in plan.named_parameters()}
    for part in plan.modules():  # one by one, so that tied weights stay tied
        for name, empty in part._parameters.items():
            if empty is not None:
                part._parameters[name] = found[id(empty)]
    return plan


@torch.no_grad()
def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Copy the weights of a possibly sharded module into a plain copy; every process must call."""
    live = dict(source.named_parameters())
    for name, parameter in target.named_parameters():
        parameter.copy_(gather(live[name].detach()))
