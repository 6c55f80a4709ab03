"""What LoRA and 8-bit moments spare, in the plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plan.test_measured import VOCAB
from tests.plan.test_study import TINY, planned
from tldr.models.ladder import build_policy
from tldr.models.lora import add_lora
from tldr.plan.hardware import hardware
from tldr.plan.memory import Options, update_memory
from tldr.plan.models import model_config
from tldr.plan.steps import Shape
from tldr.plan.study import RunPlan
from tldr.settings.models import ModelSpec
from tldr.settings.training import Lora
from tldr.study.load import load_study


def plans(folder: Path, *overrides: str) -> dict[str, RunPlan]:
    path = folder / "tiny.yaml"
    path.write_text(TINY)
    return {plan.stage: plan for plan in planned(load_study(path, overrides), 1.0)}


@pytest.mark.parametrize("lora", [Lora(rank=3), Lora(rank=5, targets=["query_key_value"])])
def test_the_plan_counts_the_adapters_that_are_added(lora: Lora) -> None:
    spec = ModelSpec(d_model=32, layers=2, heads=2, context=64)
    policy = build_policy(spec, vocab_size=VOCAB, eos_id=0, pad_id=1, seed=0)
    add_lora(policy, lora, seed=0)
    there = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    assert Shape(model_config(spec, VOCAB)).adapters(lora) == there


def test_moments_and_gradients_are_the_adapters_and_the_reference_no_copy(tmp_path: Path) -> None:
    full = plans(tmp_path)
    low = plans(tmp_path, *(f"{stage}.lora.rank=4" for stage in ("sft", "reward", "ppo")))
    for stage, networks in (("sft", 1), ("reward", 1), ("ppo", 2)):
        adapters = networks * 4 * 2 * (4 * 32 + 2 * 32 + 2 * 5 * 32)  # two layers: qkv, dense, two of the MLP
        memory, whole = (
            update_memory(plan[stage].work, Options(bf16=False), 1, hardware().assumed)
            for plan in (low, full)
        )
        assert low[stage].work.trained == adapters
        assert (memory.parts["optimizer"], memory.parts["gradients"]) == (8 * adapters, 4 * adapters)
        assert memory.parts["weights"] == whole.parts["weights"] + 4 * adapters
        assert low[stage].cost.flops < full[stage].cost.flops
    shape = low["ppo"].work.shape
    assert low["ppo"].memory.parts["frozen"] == 4 * shape.reward
    assert full["ppo"].memory.parts["frozen"] == 4 * (shape.policy + shape.reward)


def test_eight_bit_moments_are_a_quarter(tmp_path: Path) -> None:
    eight = plans(tmp_path, "sft.optimizer.kind=adamw8bit")["sft"].memory.parts
    assert 4 * eight["optimizer"] == plans(tmp_path)["sft"].memory.parts["optimizer"]
