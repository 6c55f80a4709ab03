"""Bytes alive, counted on tensors without storage, against sums made by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tldr.models.attention import BLOCKED
from tldr.plan.live import highest, peaks_of_depth, peaks_of_step
from tldr.plan.models import model_config
from tldr.plan.steps import Forward, Shape, StepKind, _step, growth
from tldr.settings.models import ModelSpec

Step = tuple[nn.ModuleDict, Callable[[], Tensor]]
ROWS, WIDTH, VOCAB = 8, 16, 32


def linear(layers: int) -> Step:
    """A matrix without bias, then a sum: what it keeps can be counted on one's fingers."""
    modules = nn.ModuleDict({"policy": nn.Linear(WIDTH, VOCAB, bias=False)})

    def loss() -> Tensor:
        out: Tensor = modules["policy"](torch.zeros(ROWS, WIDTH))
        return out.exp().sum()

    return modules, loss


def test_a_matrix_by_hand() -> None:
    peak = highest(peaks_of_step(linear, 1, VOCAB, bf16=False))
    inputs, out, weights = 4 * ROWS * WIDTH, 4 * ROWS * VOCAB, 4 * WIDTH * VOCAB
    # Last: the input, the gradient of the matrix's output (its value is gone) and that of the weights,
    # and two numbers, the loss and its gradient.
    assert peak.total == inputs + out + weights + 4 + 4
    assert peak.logits == out


def test_what_dies_is_taken_off() -> None:
    def chain(layers: int) -> Step:
        modules = nn.ModuleDict({"policy": nn.Linear(1, 1)}).requires_grad_(False)

        def loss() -> Tensor:
            value = torch.zeros(1000)
            for _ in range(50):
                value = value + 1  # without gradients, only the newest two are alive
            return value

        return modules, loss

    assert highest(peaks_of_step(chain, 1, VOCAB, bf16=False)).total == 2 * 4000


@pytest.mark.parametrize("kind", ["response", "ppo"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_two_shallow_models_tell_of_a_deep_one(kind: StepKind, checkpointing: bool) -> None:
    spec = ModelSpec(arch="opt", d_model=32, layers=6, heads=2, context=64)
    shape = Shape(model_config(spec, 64))
    how = Forward(24, 1, 8, bf16=True, checkpointing=checkpointing)

    def build(layers: int) -> Step:
        config = type(shape.config).from_dict(shape.config.to_dict() | {"num_hidden_layers": layers})
        return _step(kind, [config], how, 3)

    guessed = highest(peaks_of_depth(build, 6, 64, bf16=True))
    counted = highest(peaks_of_step(build, 6, 64, bf16=True))
    assert guessed.total == pytest.approx(counted.total, rel=0.01)
    assert guessed.working == pytest.approx(counted.working, rel=0.01)


def test_checkpointing_keeps_less_and_blocked_attention_more() -> None:
    shape = Shape(model_config(ModelSpec(d_model=64, layers=4, heads=4, context=256), 64))

    def working(**how: Any) -> float:
        return growth("response", shape, Forward(128, 1, 16, bf16=False, **how), 4).at(4).working

    assert working(checkpointing=True) < 0.6 * working() < 0.6 * working(attention=BLOCKED)


def test_a_line_through_two_micro_batches_goes_through_a_third() -> None:
    shape = Shape(model_config(ModelSpec(d_model=32, layers=2, heads=2, context=64), 64))
    how = Forward(24, 1, 8, bf16=False)
    line, exact = growth("response", shape, how, 8), growth("response", shape, how, 4)
    assert line.at(4).total == pytest.approx(exact.at(4).total, rel=0.02)
