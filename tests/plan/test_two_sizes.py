"""Plans of a study whose policies of several sizes share one reward model of one size."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.plan.test_study import planned
from tldr.models.ladder import build_policy
from tldr.models.reward import reward_from_policy
from tldr.plan.flops import PackedRow, rollout_cost, step_cost
from tldr.plan.hardware import hardware
from tldr.plan.jobs import TrainingJob
from tldr.plan.live import CountedStep, highest, peaks_of_step
from tldr.plan.memory import Options, TrainingStep, scoring_memory, standing
from tldr.plan.models import model_config
from tldr.plan.steps import Forward, Shape, _loss, _peaks, _step
from tldr.plan.study import RunPlan
from tldr.plan.uses import InferenceJob
from tldr.settings.models import ModelSpec
from tldr.study.load import load_study

VOCAB = 64
STUDY = """
name: tiny
data: {kind: files, sft: a, valid1: b, valid2: c, comparisons: d}
tokenizer: {vocab_size: 64}
lengths: {query: 24, response: 8, rm_response: 12}
ladder:
  s: {d_model: 16, layers: 2, heads: 2, context: 64}
  m: {d_model: 32, layers: 4, heads: 2, context: 64}
  l: {d_model: 64, layers: 5, heads: 2, context: 64}
pretrain: {steps: 10, batch: 4}
sft: {batch: 8}
reward: {batch: 8}
ppo: {batch: 16, episodes: 64}
"""


def plans(folder: Path, *overrides: str) -> dict[str, RunPlan]:
    path = folder / "tiny.yaml"
    path.write_text(STUDY)
    return {plan.title: plan for plan in planned(load_study(path, overrides), 1.0)}


def shape_of(layers: int, width: int, arch: str = "gpt_neox") -> Shape:
    return Shape(model_config(spec_of(layers, width, arch), VOCAB))


def spec_of(layers: int, width: int, arch: str) -> ModelSpec:
    return ModelSpec.model_validate(
        {"arch": arch, "d_model": width, "layers": layers, "heads": 2, "context": 64}
    )


def test_the_one_reward_model_is_planned_once(tmp_path: Path) -> None:
    own, one = plans(tmp_path), plans(tmp_path, "reward.size=l")
    assert [title for title in one if title.startswith("reward")] == ["reward-l"]
    assert len(one["reward-l"].runs) == 1 and one["reward-l"].hours == own["reward-l"].hours
    assert set(own) - set(one) == {"reward-s", "reward-m"} and not set(one) - set(own)
    alike = {title for title in one if own[title].row() | {"runs": 0} == one[title].row() | {"runs": 0}}
    changed = {f"{stage}-{size}{name}" for size in "sm" for stage, name in (("ppo", ""), ("best_of_n", ""))}
    changed |= {f"score-{size}-{way}" for size in "sm" for way in ("pretrained", "sft", "ppo", "best_of_n")}
    assert set(one) - alike == changed
    assert all(one[title].hours > own[title].hours for title in changed)


def test_a_size_without_a_policy_costs_its_pretraining_sft_and_reward_model(tmp_path: Path) -> None:
    two, three = plans(tmp_path, "sizes=[s, m]"), plans(tmp_path, "sizes=[s, m]", "reward.size=l")
    assert set(three) - set(two) == {"pretrain-l", "sft-l", "reward-l"}
    assert set(two) - set(three) == {"reward-s", "reward-m"}


def test_ppo_holds_two_models_of_each_size(tmp_path: Path) -> None:
    found = plans(tmp_path, "reward.size=l")
    s, large = found["sft-s"].work.shape, found["sft-l"].work.shape
    ppo = found["ppo-s"]
    assert ppo.job.policy == s.policy and ppo.job.trained == s.policy + large.reward
    assert ppo.job.loaded == 2 * (s.policy + large.reward)
    assert ppo.memory.parts["weights"] == 4 * (s.policy + large.reward) == ppo.memory.parts["frozen"]
    assert ppo.memory.parts["optimizer"] == 8 * (s.policy + large.reward)
    assert found["ppo-l"].work.reward is None, "of the same size nothing differs"
    shared = plans(tmp_path, "reward.size=l", "ppo.value_network=shared")["ppo-s"]
    assert shared.job.trained == s.policy and shared.job.loaded == 2 * s.policy + large.reward


def test_score_and_best_of_n_load_the_reward_model_and_the_value_network_of_its_size(tmp_path: Path) -> None:
    found = plans(tmp_path, "reward.size=l")
    large = found["sft-l"].work.shape
    for title, count in (("score-s-ppo", 2), ("score-s-sft", 1), ("best_of_n-s", 1)):
        job = found[title].job
        assert isinstance(job, InferenceJob)
        judges = [model for model in job.models if model.kind == "judge"]
        assert [model.parameters for model in judges] == [large.reward] * count
        others = [model for model in job.models if model.kind != "judge"]
        assert {model.parameters for model in others} == {found["sft-s"].work.shape.policy}


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("arch", ["gpt_neox", "opt"])
def test_flops_of_a_step_are_those_that_torch_counts(arch: str, recomputed: bool) -> None:
    from tldr.train.stepper import recompute_layers

    rows, how = 5, Forward(20, 2, 10, bf16=False, attention="eager")
    small, large = shape_of(2, 16, arch), shape_of(3, 32, arch)
    policy = build_policy(spec_of(2, 16, arch), vocab_size=VOCAB, eos_id=0, pad_id=1, seed=0)
    start = build_policy(spec_of(3, 32, arch), vocab_size=VOCAB, eos_id=0, pad_id=1, seed=0)
    modules = nn.ModuleDict({"policy": policy, "value": reward_from_policy(start, seed=0, pad_id=1)})
    for model in modules.values():
        model.set_attn_implementation("eager")  # whose products the counter sees
        if recomputed:
            recompute_layers(model)  # type: ignore[arg-type]
    with FlopCounterMode(display=False) as counter:
        _loss("ppo", modules, how, rows)().backward()  # type: ignore[no-untyped-call]
    work = TrainingStep("ppo", small, 20, 2, 10, rows, reward=large)
    told = rows * step_cost(work, Options(checkpointing=recomputed), PackedRow(20, 2, 10)).flops
    if recomputed:  # torch stops before a layer's last matrix, the plan does not
        assert 1 <= told / counter.get_total_flops() < 1.1
    else:
        assert told == counter.get_total_flops()


def test_two_sizes_cost_the_mean_of_each_alone() -> None:
    """Where the policy costs the same in all of them: the value network is what differs."""
    small, large = shape_of(2, 16), shape_of(4, 32)
    row, options = PackedRow(20, 2, 10), Options(bf16=True)

    def costs(policy: Shape, judging: Shape) -> tuple[float, float, float]:
        counts = (policy.policy, judging.reward)
        reward = None if judging is policy else judging
        work = TrainingStep("ppo", policy, 20, 2, 10, 4, frozen=counts, drawn=4, reward=reward)
        rolled = rollout_cost(work, row, 4, options)
        return step_cost(work, options, row).flops, rolled.flops, standing(work, options)["weights"]

    pairs = zip(
        costs(small, small), costs(large, large), costs(small, large), costs(large, small), strict=True
    )
    for first, last, mixed, turned in pairs:
        assert mixed + turned == pytest.approx(first + last), "each network counts once, in its own size"
        assert first < min(mixed, turned) and max(mixed, turned) < last


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("layers", [(6, 3), (2, 5), (5, 6)])
def test_shallow_models_tell_of_two_deep_ones(
    layers: tuple[int, int], checkpointing: bool, bf16: bool
) -> None:
    """In a batch whose activations outweigh the gradients of one layer, as those of studies do."""
    policy, value = shape_of(layers[0], 32, "opt"), shape_of(layers[1], 64, "opt")
    how = Forward(24, 1, 8, bf16=bf16, checkpointing=checkpointing)

    def whole(_: int) -> CountedStep:
        return _step("ppo", [copy.deepcopy(policy.config), copy.deepcopy(value.config)], how, 16)

    told = highest(_peaks("ppo", policy, how, 16, value))
    counted = highest(peaks_of_step(whole, 0, VOCAB, bf16=bf16))
    assert told.total == pytest.approx(counted.total, rel=0.01)
    assert told.working == pytest.approx(counted.working, rel=0.01)


def test_a_larger_reward_model_sets_the_peak_of_scoring() -> None:
    small, large = shape_of(2, 16), shape_of(4, 256)
    assumed, options = hardware().assumed, Options(bf16=False, cuda=False)

    def activations(reward: Shape | None) -> float:
        work = TrainingStep("ppo", small, 32, 1, 8, 8, frozen=(1, 1), drawn=8, reward=reward)
        parts = scoring_memory(work, options, 8, assumed).parts
        return parts["activations"] + parts["logits"]

    assert activations(large) > 2 * activations(None)
    assert activations(shape_of(1, 4)) == activations(None)


def test_the_adapters_of_a_value_network_are_those_of_its_size(tmp_path: Path) -> None:
    job = plans(tmp_path, "reward.size=l", "ppo.lora={rank: 2}")["ppo-s"].job
    own = plans(tmp_path, "ppo.lora={rank: 2}")
    assert isinstance(job, TrainingJob)
    assert job.trained == (own["ppo-s"].job.trained + own["ppo-l"].job.trained) / 2
