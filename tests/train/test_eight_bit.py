"""AdamW with moments in 8 bits: the same path as AdamW's, a resumable state of plain tensors."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn

from tldr.errors import UsageError
from tldr.settings.training import Optimizer, Training
from tldr.train.checkpoint import TrainingState, hash_module, load_state, save_state
from tldr.train.processes import make_accelerator
from tldr.train.stepper import Loss, Stepper

WIDTH = 64
"""A matrix of so many rows and columns is just large enough (4,096 weights) to have 8-bit moments."""


def stepper(kind: str = "adamw8bit") -> Stepper:
    torch.manual_seed(0)
    settings = Training(optimizer=Optimizer(kind=kind, lr=3e-3, weight_decay=0.1, schedule="constant"))
    module = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
    return Stepper(make_accelerator("fp32"), {"policy": module}, settings, 1)


def walk(step: Stepper, first: int, last: int) -> list[float]:
    def loss(parts: nn.ModuleDict, batch: Tensor) -> Loss:
        return Loss((parts["policy"](batch) - batch.roll(1, 1)).square().sum(), len(batch))

    losses = []
    for update in range(first, last):
        step.set_lr(update, 60)
        batch = torch.randn(16, WIDTH, generator=torch.Generator().manual_seed(update))
        losses.append(step.step(loss, [batch])["loss"])
    return losses


def test_eight_bits_learn_as_32_do() -> None:
    pytest.importorskip("bitsandbytes")
    eight, full = walk(stepper(), 0, 40), walk(stepper("adamw"), 0, 40)
    assert eight[-1] < 0.7 * eight[0]
    assert eight == pytest.approx(full, rel=0.02) and eight != full


def test_a_state_in_eight_bits_comes_back_bit_for_bit(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    saved = stepper()
    walk(saved, 0, 5)
    folder = save_state(tmp_path, TrainingState(5), saved.modules, saved.optimizers)
    moments = load_file(folder / "optimizer.policy.safetensors")
    assert [moments[f"0.{name}"].dtype for name in ("state1", "state2")] == [torch.uint8] * 2
    assert moments["0.state1"].float().std() > 1
    again = stepper()
    walk(again, 7, 9)
    assert load_state(tmp_path, again.modules, again.optimizers) is not None
    (optimizer,) = again.optimizers.values()
    assert [type(state["step"]) for state in optimizer.state.values()] == [
        int
    ] * 4  # its kernels take no other
    assert walk(again, 5, 9) == walk(saved, 5, 9)
    assert hash_module(again.modules["policy"]) == hash_module(saved.modules["policy"])


def test_it_cannot_be_sharded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accelerator, "is_fsdp2", True)
    with pytest.raises(UsageError, match="adamw8bit cannot be sharded"):
        stepper()


def test_without_bitsandbytes_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    stepper("adamw")
    with pytest.raises(UsageError, match="needs the package bitsandbytes") as caught:
        stepper()
    assert caught.value.remedy == "pip install 'tldr-feedback[8bit]'"
