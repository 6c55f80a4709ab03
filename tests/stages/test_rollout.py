"""A rollout sorts its queries and cuts padding away for speed: nothing else may change by it."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from tldr.bench.work import PPOWork, Setting
from tldr.models.generate import Generation
from tldr.models.packed import PackedBatch, response_logprobs, response_scores, response_values
from tldr.plan.models import model_config
from tldr.settings.models import Lengths, ModelSpec
from tldr.stages.ppo import samplers as sampler
from tldr.stages.ppo.algorithm import MicroBatch
from tldr.stages.ppo.rollout import SAMPLED, rollout_metrics
from tldr.stages.ppo.settings import PPOSettings
from tldr.stages.shared.networks import as_model

SPEC = ModelSpec(arch="gpt_neox", d_model=32, layers=2, heads=2, context=128)
SETTING = Setting(model_config(SPEC, 64), Lengths(query=48, response=12, rm_response=24), "fp32", seed=3)


def stage(micro_batch: int | None, setting: Setting = SETTING, **changes: Any) -> PPOWork:
    settings = PPOSettings(
        batch=24, samples_per_query=2, epochs=1, minibatches=2, micro_batch=micro_batch, **changes
    )
    return PPOWork(settings, setting)


def test_episodes_do_not_depend_on_how_they_are_batched() -> None:
    few, all_at_once = stage(1).rollout(0, 0.05), stage(None).rollout(0, 0.05)
    assert len(few) > SAMPLED * 1, "more than one sampling pass"
    for name, tensor in few.tensors().items():
        torch.testing.assert_close(tensor, getattr(all_at_once, name), rtol=1e-4, atol=1e-5)


def test_episodes_come_in_the_order_of_their_queries_with_their_own_figures() -> None:
    """Each episode scored alone, from its row as it stands, by the plain functions."""
    work = stage(3)
    rollout = work.rollout(0, 0.05)
    policy, value = (as_model(work.stepper.modules[name]) for name in ("policy", "value"))
    for row, query in enumerate(work.plan.batch(0)):
        tokens = work.queries[query]
        assert rollout.query[row][rollout.query_mask[row]].tolist() == tokens
        alone = PackedBatch(
            torch.tensor([tokens]),
            torch.ones(1, len(tokens), dtype=torch.bool),
            rollout.response[row : row + 1],
            rollout.response_mask[row : row + 1],
        )
        with torch.no_grad(), work.reference.at_work() as ref, work.reward.at_work() as reward:
            expected = {
                "logprobs": response_logprobs(policy, alone, 1.0)[0],
                "ref_logprobs": ref(response_logprobs, alone, 1.0)[0],
                "values": response_values(value, alone)[0],
                "scores": reward(response_scores, alone)[0],
            }
        for name, tensor in expected.items():
            torch.testing.assert_close(getattr(rollout, name)[row], tensor, rtol=1e-4, atol=1e-5)


def test_in_fp32_log_probabilities_are_those_of_the_sampler_and_of_the_update() -> None:
    work = stage(3, temperature=0.7)
    rollout = work.rollout(0, 0.05)
    assert torch.equal(rollout.logprobs, rollout.drawn_logprobs)
    with torch.no_grad():
        again = response_logprobs(as_model(work.stepper.modules["policy"]), rollout.batch, 0.7)
    torch.testing.assert_close(rollout.logprobs, again, rtol=0, atol=1e-5)
    assert rollout_metrics(rollout, 0.05)["sampler_gap"] == 0


def test_in_bf16_they_are_computed_again_by_the_forward_of_the_update(monkeypatch) -> None:
    """Whose figures are taken shows where the sampler tells others."""
    plain = sampler.generate

    def off(*args: Any, **settings: Any) -> Generation:
        drawn = plain(*args, **settings)
        return replace(drawn, logprobs=drawn.logprobs + 0.25 * drawn.mask)

    monkeypatch.setattr(sampler, "generate", off)
    work = stage(3, replace(SETTING, precision="bf16"))
    rollout = work.rollout(0, 0.05)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        again = response_logprobs(as_model(work.stepper.modules["policy"]), rollout.batch, 1.0)
    torch.testing.assert_close(rollout.logprobs, again, rtol=0, atol=0.02)
    assert rollout_metrics(rollout, 0.05)["sampler_gap"] == pytest.approx(0.25, abs=0.02)


def test_a_sampler_that_is_another_policy_shows() -> None:
    """As when a copy was not brought up to date: the update's log-probabilities hold, and the gap grows."""
    work = stage(3)
    stale = copy.deepcopy(as_model(work.stepper.modules["policy"]))
    with torch.no_grad():
        for parameter in stale.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    own = work.sampler
    own.exact = False
    own.update(stale)
    own.update = lambda _: None
    rollout = work.rollout(0, 0.05)
    assert rollout_metrics(rollout, 0.05)["sampler_gap"] > 0.1
    with torch.no_grad():
        again = response_logprobs(as_model(work.stepper.modules["policy"]), rollout.batch, 1.0)
    torch.testing.assert_close(rollout.logprobs, again, rtol=0, atol=1e-5)


def test_minibatches_hold_every_query_once_and_no_column_of_padding() -> None:
    work = stage(3)
    rollout = work.rollout(0, 0.05)
    seen: list[tuple[int, ...]] = []
    for step in range(2):
        parts = [part.rollout for part in work.minibatch(rollout, 0, step)]
        widths = [part.query.shape[1] for part in parts]
        assert widths == sorted(widths), "like lengths together"
        for part in parts:
            assert part.query_mask[:, 0].any() and part.response_mask[..., -1].any()
            assert part.advantages.shape == part.response_mask.shape
            seen += [tuple(q[m].tolist()) for q, m in zip(part.query, part.query_mask, strict=True)]
    rows = zip(rollout.query, rollout.query_mask, strict=True)
    assert sorted(seen) == sorted(tuple(q[m].tolist()) for q, m in rows)


def test_the_loss_of_cut_minibatches_is_that_of_the_whole_rollout() -> None:
    work = stage(2)
    rollout = work.rollout(0, 0.05)
    modules = torch.nn.ModuleDict(work.stepper.modules)
    cut = [work.loss(modules, part).sums() for step in range(2) for part in work.minibatch(rollout, 0, step)]
    whole = work.loss(modules, MicroBatch(rollout)).sums()
    torch.testing.assert_close(torch.stack(cut).sum(0)[:3], whole[:3], rtol=1e-5, atol=1e-5)
