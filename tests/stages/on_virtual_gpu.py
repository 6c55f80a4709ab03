"""What `test_virtual_gpu` runs in processes of their own: stages of the laboratory on the virtual GPU.

``VIRTUAL_GPU=/path/of/the/library python -m tests.stages.on_virtual_gpu JOB FOLDER...``
"""

# ruff: noqa: E402
from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.stages import virtual  # before torch

KEPT = virtual.install()

import torch

from tldr.train import precision as _precision

_precision.peak_flops = lambda *_: 1e11  # type: ignore[assignment]  # a GPU's size of product takes the CPU minutes

from tests.stages import forks, lab
from tldr.settings.base import Precision
from tldr.stages.ppo import algorithm
from tldr.stages.ppo.settings import AdaptiveKL

LORA = {"rank": 4, "alpha": 16}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "pretrain": ("pretrain", {}),
    "sft": ("sft", {}),
    "reward": ("reward", {}),
    "ppo": ("ppo", {"episodes": 32}),
    "sft-recomputed": ("sft", {"micro_batch": 2, "gradient_checkpointing": True, "query_loss": True}),
    "sft-lora": ("sft", {"lora": LORA | {"dropout": 0.1}}),
    "sft-epochs-lora": ("sft", {"lora": LORA, "epochs": 1.5, "select": "reward"}),
    "reward-frozen": ("reward", {"frozen_layers": 0.5, "gradient_checkpointing": True}),
    "ppo-lora": ("ppo", {"lora": LORA, "episodes": 16}),
    "ppo-away": ("ppo", {"frozen_place": "cpu", "frozen_dtype": "bf16", "episodes": 16}),
    "ppo-shared": ("ppo", {"value_network": "shared", "episodes": 16}),
    "ppo-ptx": ("ppo", {"ptx_coef": 27.8, "ptx_ratio": 2.0, "episodes": 16}),
    "ppo-adaptive": (
        "ppo",
        {"adaptive_kl": AdaptiveKL(target=0.01, horizon=1000), "whiten_rewards": True, "episodes": 16},
    ),
    "rloo": ("ppo", {"algorithm": "rloo", "epochs": 1, "episodes": 16}),
}


def run(
    stage: str, parents: Path, folder: Path, precision: Precision, changes: dict[str, Any], seed: int = 0
) -> None:
    """Run a stage on what lies in `parents`."""
    settings = lab.changed(stage, changes)
    lab.run(lab.context(stage, parents, folder, seed, precision=precision, settings=settings), stage)
    print(f"done {folder.name}", flush=True)


def every_stage(parents: str, root: str, precision: Precision) -> None:
    """The whole laboratory, each run on what lies in `parents`."""
    for name, stage, changes in lab.every_run():
        run(stage, Path(parents), Path(root) / name, precision, changes)


def variants(parents: str, folder: str) -> None:
    """Settings that put tensors elsewhere, in bf16."""
    for name, (stage, changes) in VARIANTS.items():
        run(stage, Path(parents), Path(folder) / name, "bf16", changes)


def architectures(parents: str, folder: str) -> None:
    """The trained stages on the other three architectures, in bf16."""
    for arch in ("opt", "gpt2", "llama"):
        model = lab.MODEL.model_copy(update={"arch": arch})
        for stage in ("data", "labels"):
            shutil.copytree(Path(parents) / stage, Path(folder) / arch / stage)
        for stage in (*lab.TRAINED, "sample"):
            settings = lab.changed(stage, {"dropout": 0.0} if stage == "sft" else {})
            root = Path(folder) / arch
            ctx = lab.context(stage, root, root / stage, precision="bf16", model=model, settings=settings)
            print(f"done {lab.run(ctx, stage)}", flush=True)


def one(stage: str, parents: str, folder: str, seed: str, held: str | None = None) -> None:
    """One run, in fp32, which saves a state after every step and may be held (`forks.hold`)."""
    if held is not None:
        forks.hold(int(held))
    run(stage, Path(parents), Path(folder), "fp32", {"save_every": 1, "save_steps": 1}, int(seed))


def script(folder: str) -> None:
    """``benchmarks/gpu.py --tiny``."""
    from tests.bench.test_scripts import script

    sys.exit(script("gpu.py").main(["--tiny", "--rounds", "1", "--out", folder]))


def refuse(kind: type[RuntimeError], fault: Callable[[], object]) -> None:
    """Make a mistake that must not pass."""
    try:
        fault()
    except kind as error:
        print(f"refused: {error}")
    else:
        raise AssertionError("a fault passed")


def faults() -> None:
    """Things that a GPU refuses, each of which must be refused; and what it takes."""
    here, there = torch.ones(3), torch.ones(3, device="cuda")
    wrong: list[Callable[[], object]] = [
        lambda: there + here,
        lambda: torch.cat([there, here]),
        lambda: torch.where(here > 0, there, there),
        lambda: there.masked_fill(here > 0, 0.0),
        lambda: torch.rand(3, device="cuda", generator=torch.Generator()),
        lambda: torch.nn.functional.embedding(torch.tensor([0]), there[:, None]),
    ]
    for fault in wrong:
        refuse(virtual.WrongDevice, fault)
    learning = torch.ones(1, 1, 2, 4, device="cuda", requires_grad=True)
    attended = torch.nn.functional.scaled_dot_product_attention(learning, learning, learning)
    torch.use_deterministic_algorithms(True, warn_only=True)
    refuse(virtual.OrderVaries, lambda: attended.sum().backward(retain_graph=True))
    torch.use_deterministic_algorithms(True)
    attended.sum().backward()
    refuse(virtual.OrderVaries, lambda: there.cumsum(0))
    assert (there > 0).cumsum(0).tolist() == [1, 2, 3]
    refuse(RuntimeError, there.numpy)
    assert there[torch.tensor([0])].device.type == "cuda" and (there + torch.tensor(1.0)).sum().item() == 6
    assert there.cpu().device.type == "cpu" and type(there.cpu()) is torch.Tensor


def misplaced(parents: str, folder: str) -> None:
    """A PPO stage whose episodes are left on the CPU."""
    device = algorithm.Device.open("fp32").device
    original = algorithm.PPO.__init__

    def planted(self: Any, *args: Any, **settings: Any) -> None:
        original(self, *args, **settings)
        self.device = type(self.device)(torch.device("cpu"), self.device.precision)

    assert device.type == "cuda"
    algorithm.PPO.__init__ = planted  # type: ignore[method-assign]
    run("ppo", Path(parents), Path(folder), "fp32", {})


JOBS: dict[str, Callable[..., None]] = {
    job.__name__: job for job in (every_stage, variants, architectures, one, script, faults, misplaced)
}


def main(name: str, *words: str) -> int:
    """Run a job; the exit code."""
    try:
        JOBS[name](*words)
    except SystemExit as end:
        return int(end.code or 0)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # At once: an error that passed through the device's autograd thread aborts one in four plain exits.
    os._exit(code)
