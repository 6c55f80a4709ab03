"""A reward model whose lowest layers stay as they are: parameters, FLOPs and memory of its plan."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.plan.test_lora import plans
from tldr.models.ladder import build_policy
from tldr.models.lora import add_lora
from tldr.models.reward import reward_from_policy
from tldr.plan.flops import PackedRow, step_cost
from tldr.plan.hardware import hardware
from tldr.plan.live import CountedStep, highest, peaks_of_step
from tldr.plan.memory import Options, TrainingStep, update_memory
from tldr.plan.models import model_config
from tldr.plan.steps import Forward, Shape, _step, peak_of
from tldr.settings.models import ModelSpec
from tldr.settings.training import Lora
from tldr.stages.reward.algorithm import (
    RankedPrompt,
    collate_posts,
    freeze_lowest,
    ranked_posts,
    ranking_loss,
)
from tldr.train.stepper import recompute_layers

VOCAB = 64
ARCHITECTURES = ["gpt_neox", "gpt2", "opt", "llama"]


def spec_of(arch: str, layers: int = 4) -> ModelSpec:
    return ModelSpec.model_validate(
        {"arch": arch, "d_model": 32, "layers": layers, "heads": 2, "context": 64}
    )


def trained_in(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_trained_parameters_are_those_of_the_real_model(arch: str, share: float, tmp_path: Path) -> None:
    spec = spec_of(arch)
    policy = build_policy(spec, vocab_size=768, eos_id=0, pad_id=1, seed=0)
    model = reward_from_policy(policy, seed=0, pad_id=1)
    freeze_lowest(model, share)
    ladder = (f"ladder.s.{name}={value}" for name, value in spec.model_dump(exclude={"path"}).items())
    work = plans(tmp_path, *ladder, f"reward.frozen_layers={share}")["reward"].work
    assert work.trained == trained_in(model)
    assert work.loaded == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_trained_adapters_are_those_of_the_real_model(arch: str) -> None:
    spec, lora = spec_of(arch), Lora(rank=3)
    policy = build_policy(spec, vocab_size=VOCAB, eos_id=0, pad_id=1, seed=0)
    add_lora(policy, lora, seed=0)
    count = freeze_lowest(policy, 0.5)
    shape = Shape(model_config(spec, VOCAB))
    assert count == 2 and shape.adapters(lora, count) == trained_in(policy) < shape.adapters(lora)
    assert shape.adapters(Lora(targets=[next(iter(_linear(policy)))]), 4) == 0


def _linear(model: nn.Module) -> list[str]:
    return [name.split(".")[-3] for name, _ in model.named_parameters() if "lora_A" in name]


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("arch", ["gpt_neox", "opt"])
def test_flops_are_those_that_torch_counts(arch: str, share: float, recomputed: bool) -> None:
    spec, rows, query, response = spec_of(arch), 6, 20, 10
    policy = build_policy(spec, vocab_size=VOCAB, eos_id=0, pad_id=1, seed=0)
    model = reward_from_policy(policy, seed=0, pad_id=1)
    model.set_attn_implementation("eager")  # whose products the counter sees
    if recomputed:
        recompute_layers(model)
    count = freeze_lowest(model, share)
    examples = [RankedPrompt([5] * query, [[6] * response, [7] * response], [1, 2]) for _ in range(rows)]
    with FlopCounterMode(display=False) as counter:
        batch = collate_posts(ranked_posts(examples, share=False), pad=1)
        loss = ranking_loss(nn.ModuleDict({"reward": model}), batch)
        loss.total.backward()
    shape = Shape(model_config(spec, VOCAB))
    work = TrainingStep("reward", shape, query, 2, response, rows, frozen_layers=count)
    planned = rows * step_cost(work, Options(checkpointing=recomputed), PackedRow(query, 2, response)).flops
    if recomputed:  # torch stops before a layer's last matrix, the plan does not
        assert 1 <= planned / counter.get_total_flops() < 1.1
    else:
        assert planned == counter.get_total_flops()


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("frozen", [1, 3, 5, 6])
def test_the_live_count_of_few_layers_tells_of_many(frozen: int, bf16: bool, checkpointing: bool) -> None:
    shape = Shape(model_config(spec_of("opt", layers=6), VOCAB))
    how = Forward(24, 2, 8, bf16=bf16, checkpointing=checkpointing, frozen_layers=frozen)

    def whole(layers: int) -> CountedStep:
        config = copy.deepcopy(shape.config)
        config.num_hidden_layers = layers
        return _step("reward", [config], how, 3)

    told, counted = peak_of("reward", shape, how, 3), highest(peaks_of_step(whole, 6, VOCAB, bf16=bf16))
    assert told.total == pytest.approx(counted.total, rel=0.01)
    assert told.working == pytest.approx(counted.working, rel=0.01)


def test_frozen_layers_spare_gradients_moments_activations_and_backward_passes(tmp_path: Path) -> None:
    layers = "ladder.s.layers=8"
    full, low = (plans(tmp_path, layers, f"reward.frozen_layers={share}")["reward"] for share in (0.0, 0.75))
    trained = low.work.trained
    assert trained < full.work.trained / 3
    steps = [update_memory(plan.work, Options(), 8, hardware().assumed).parts for plan in (full, low)]
    for memory, count in zip(steps, (full.work.trained, trained), strict=True):
        assert (memory["optimizer"], memory["gradients"]) == (8 * count, 4 * count)
    assert steps[1]["weights"] == steps[0]["weights"]
    assert steps[1]["activations"] < 0.5 * steps[0]["activations"]
    assert full.cost.scoring == low.cost.scoring > 0  # what both judge at the end
    forward = full.cost.training / 3
    # Its top quarter's backward pass.
    assert low.cost.training == pytest.approx((1 + 2 / 4) * forward, rel=0.05)
    assert low.cost.tokens == full.cost.tokens


def test_adapters_below_are_in_memory_and_not_trained(tmp_path: Path) -> None:
    lora = "reward.lora.rank=4"
    full, low = (
        plans(tmp_path, lora, f"reward.frozen_layers={share}")["reward"].work for share in (0.0, 0.5)
    )
    assert low.adapters == full.adapters and 2 * low.trained == full.trained
    memory = update_memory(low, Options(), 1, hardware().assumed)
    assert memory.parts["optimizer"] == 8 * low.trained
