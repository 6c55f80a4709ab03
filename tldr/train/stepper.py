"""One optimizer step: forward and backward by micro-batch, gradient clipping, AdamW.

In every stage the gradient is that of *sum of losses / count* over the whole batch. Sums and counts
are added over micro-batches and processes and divided once. So a batch in eight micro-batches equals
the same batch in one, even if the micro-batches have different numbers of tokens.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tldr.errors import NonFiniteError, UsageError
from tldr.mathematics.schedule import lr_multiplier
from tldr.models.lora import merge_lora
from tldr.settings.extras import need
from tldr.settings.training import Optimizer, Training
from tldr.train.checkpoint import gather
from tldr.train.metrics import MetricsRow
from tldr.train.precision import ResolvedPrecision, deterministic
from tldr.train.processes import JointModules, blueprint, rebuilt
from tldr.train.rng import seeded

B = TypeVar("B")
T = TypeVar("T")


@dataclass(frozen=True)
class Loss:
    """One micro-batch's loss as sums; the stage does not divide.

    The caller weights a further term that has its own denominator (PPO-ptx) and adds it to `total`.

    Attributes:
        total: () float32, the summed loss, with gradient.
        count: number of summands: tokens or comparisons.
        tokens: real tokens that the model processed, for the log.
        stats: further sums over the same count, logged as means.
    """

    total: Tensor
    count: Tensor | float
    tokens: Tensor | float = 0
    stats: Mapping[str, Tensor | float] = field(default_factory=dict)

    def sums(self) -> Tensor:
        """[total, count, tokens, *stats] float64, detached, on the loss's device."""
        figures = [self.total, self.count, self.tokens, *self.stats.values()]
        device = self.total.device
        return torch.stack([torch.as_tensor(x, device=device).detach().double() for x in figures])


class Stepper:
    """Modules, one AdamW for each, and the optimizer step that trains them.

    Args:
        modules: the modules to train, by name. The caller sets train or eval mode (dropout is off in
            RL). Use `self.modules` afterwards.
        settings: optimizer, gradient norm limit (applied to each module separately), schedule and
            gradient checkpointing.
        seed: seeds the dropout masks; give each stage its own (`derive(seed, "sft")`).
        lrs: peak learning rates that differ from `settings.lr`, by module.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        modules: Mapping[str, nn.Module],
        settings: Training,
        seed: int,
        lrs: Mapping[str, float] | None = None,
    ):
        plan = settings.optimizer
        assert isinstance(plan.lr, float), "settings of one size: call for_size first"
        self.accelerator, self.settings, self.seed = accelerator, plan, seed
        self.precision: ResolvedPrecision = "bf16" if accelerator.mixed_precision == "bf16" else "fp32"
        self.flops_per_token = sum(_flops_per_token(module) for module in modules.values())
        self.lrs = dict.fromkeys(modules, plan.lr) | dict(lrs or {})
        if settings.gradient_checkpointing:
            for module in modules.values():
                recompute_layers(module)
        sharded = accelerator.is_fsdp2
        if sharded and plan.kind != "adamw":
            remedy = "launch with DDP, or use adamw, whose state can be sharded"
            raise UsageError(f"{plan.kind} cannot be sharded", where="optimizer.kind", remedy=remedy)
        adamw = [_adamw(module, plan, self.lrs[name]) for name, module in modules.items()]
        self._blueprints = {name: blueprint(module) for name, module in modules.items() if sharded}
        self._joint, *adamw = accelerator.prepare(JointModules(modules), *adamw)
        self.modules: dict[str, nn.Module] = dict(accelerator.unwrap_model(self._joint).parts.items())
        self.optimizers: dict[str, torch.optim.Optimizer] = dict(zip(modules, adamw, strict=True))
        self.steps = 0
        """Number of optimizer steps so far; part of the resumable state."""

    def set_lr(self, update: int, total: int) -> None:
        """Set the learning rates of an update (from 0) of `total`."""
        plan = self.settings
        share = lr_multiplier(update, total, schedule=plan.schedule, warmup=plan.warmup, final=plan.final)
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.lrs[name] * share

    def call(self, function: Callable[..., T], *args: object) -> T:
        """``function(modules, *args)`` inside the wrapped forward: autocast on, shards gathered.

        Every process must call this the same number of times.
        """
        with self.accelerator.autocast():  # accelerate adds it to every forward except FSDP2's
            result = self._joint(function, *args)
        if (
            self.sharded and not torch.is_grad_enabled()
        ):  # otherwise weights stay gathered, and in bf16, until the next backward pass
            for module in self._joint.modules():
                if hasattr(module, "reshard"):
                    module.reshard()
        return cast(T, result)

    @property
    def sharded(self) -> bool:
        """Whether each process has only a part of every weight."""
        return bool(self._blueprints)

    def whole(self, name: str) -> nn.Module | None:
        """The full trained module, to be saved, in the first process; None in the others.

        Every process must call this, once training is over, because adapters are merged. If the module is
        sharded, the result is a copy on the CPU.
        """
        main, module = self.accelerator.is_main_process, self.modules[name]
        piece = rebuilt(self._blueprints[name], module, main) if self.sharded else module
        if piece is None or not main:
            return None
        merge_lora(piece)
        return piece

    def snapshot(self, name: str) -> nn.Module | None:
        """A copy of the module as it is now, on the CPU, adapters merged, in the first process; None in the
        others. Every process must call this; training can go on."""
        module = self.modules[name]
        plan = copy.deepcopy(self._blueprints[name]) if self.sharded else blueprint(module)
        piece = rebuilt(plan, module, self.accelerator.is_main_process)
        if piece is not None:
            merge_lora(piece)
        return piece

    def step(self, loss: Callable[[nn.ModuleDict, B], Loss], micro_batches: Sequence[B]) -> MetricsRow:
        """Make one optimizer step from this process's micro-batches (the same number in every process).

        Args:
            loss: computes the stage's loss of one micro-batch.

        Returns:
            `loss` and its stats as means over the count; `grad_norm` before clipping and `lr`
            (with the suffix ``_<module>`` if there are several modules); `tokens`.

        Raises:
            NonFiniteError: the loss or gradient is NaN or infinite; no weight has changed.
        """
        sums = []
        streams = seeded(self.seed, "dropout", self.steps, self.accelerator.process_index)
        with streams, deterministic(self.accelerator.device):
            for number, micro_batch in enumerate(micro_batches, start=1):
                with self._sharing(number == len(micro_batches)):
                    part = self.call(loss, micro_batch)
                    self.accelerator.backward(part.total)
                sums.append(part.sums())
        total, count, tokens, *stats = self.accelerator.reduce(torch.stack(sums).sum(0), "sum").tolist()
        if not math.isfinite(total) or count <= 0:
            self._fail(f"the loss is {total} over a count of {count:g}")
        # Gradients are averaged over processes; this turns the average into the sum divided by the count.
        scale = self.accelerator.num_processes / count
        norms = {name: self._clip(module, scale) for name, module in self.modules.items()}
        if not all(map(math.isfinite, norms.values())):
            self._fail("the gradient norm is " + ", ".join(f"{norms[name]} ({name})" for name in norms))
        means = [figure / count for figure in (total, *stats)]
        row = dict(zip(("loss", *part.stats), means, strict=True))
        for name, optimizer in self.optimizers.items():
            suffix = f"_{name}" if len(norms) > 1 else ""
            row |= {f"grad_norm{suffix}": norms[name], f"lr{suffix}": optimizer.param_groups[0]["lr"]}
            optimizer.step()
            optimizer.zero_grad()
        self.steps += 1
        return row | {"tokens": tokens}

    def _sharing(self, last: bool) -> AbstractContextManager[object]:
        """Reduce gradients over processes only with the step's last micro-batch.

        If modules are sharded, reduce with every micro-batch: unreduced gradients are not sharded.
        """
        return nullcontext() if last or self.sharded else self.accelerator.no_sync(self._joint)

    def _clip(self, module: nn.Module, scale: float) -> float:
        """Scale the gradients and clip their norm in one pass; returns the scaled norm before clipping."""
        gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        norm = scale * float(gather(torch.nn.utils.get_total_norm(gradients)))
        torch._foreach_mul_(gradients, scale * min(1.0, self.settings.clip / (norm + 1e-6)))
        return norm

    def _fail(self, what: str) -> None:
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        raise NonFiniteError(what)


def recompute_layers(module: nn.Module) -> None:
    """Turn on gradient checkpointing: the backward pass recomputes each layer's activations.

    transformers does this only in training mode, so the module is set to training mode. Where dropout
    must be off (in RL), its probability must be 0.

    Raises:
        UsageError: the module's class does not support it.
    """
    if not getattr(module, "supports_gradient_checkpointing", False):
        raise UsageError(
            f"{type(module).__name__} does not support gradient checkpointing", where="gradient_checkpointing"
        )
    module.train()
    # Before transformers 5.23 only the second name exists.
    enable = getattr(module, "activation_checkpointing_enable", None) or module.gradient_checkpointing_enable
    cast(Any, enable)({"use_reentrant": False})
    # It also makes the embeddings' output require a gradient, which only reentrant checkpointing needs. Here
    # that would only cause a backward pass through frozen layers.
    cast(Any, module).disable_input_require_grads()


def _adamw(module: nn.Module, settings: Optimizer, lr: float) -> torch.optim.Optimizer:
    """Fused AdamW, or the 8-bit one of bitsandbytes; weight decay only on matrices, not on biases and norms.

    Raises:
        UsageError: bitsandbytes is not installed.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    if settings.kind == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=settings.betas, eps=settings.eps, fused=True)
    need("bitsandbytes", "optimizer.kind")
    optim: Any = import_module("bitsandbytes.optim")  # optional, and slow to import
    made: torch.optim.Optimizer = optim.AdamW8bit(groups, lr=lr, betas=settings.betas, eps=settings.eps)
    return made


def _flops_per_token(module: nn.Module) -> float:
    """Training FLOPs per token of the body's matrices: 2 per entry for each pass that uses the matrix.

    A trained matrix has three passes (forward, gradient of the input, gradient of the weights): 6 (Kaplan
    et al. 2020). A frozen one has two if the gradient flows through it to a trained matrix below, else one.

    Embeddings, the output head (used at few positions) and the attention products are excluded, so the
    utilisation computed from this is a lower bound.
    """
    head = getattr(module, "get_output_embeddings", lambda: None)()
    embeddings = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    outside = embeddings | ({id(head.weight)} if head is not None else set())
    layers = list(next((part for part in module.modules() if isinstance(part, nn.ModuleList)), ()))
    place = dict.fromkeys(embeddings, -1)
    place |= {id(p): number for number, layer in enumerate(layers) for p in layer.parameters()}
    known = [(p, place.get(id(p), len(layers))) for p in module.parameters()]
    lowest = min((at for p, at in known if p.requires_grad), default=len(layers))
    return sum(
        (6.0 if p.requires_grad else 4.0 if at > lowest else 2.0) * p.numel()
        for p, at in known
        if p.ndim >= 2 and id(p) not in outside
    )
