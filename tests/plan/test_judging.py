"""What judging costs: samples, and the best of pools on a share of their posts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plan.test_study import TABLE, TINY
from tldr.plan.hardware import DeviceSpec
from tldr.plan.judging import judged_summaries, judging_plans
from tldr.plan.labeling import labeling_plans
from tldr.plan.study import Machine, Planner
from tldr.plan.uses import InferenceJob
from tldr.study.load import load_study
from tldr.study.settings import Study

POOLS = """
best_of_n: {n: 4, posts: 40}
variants:
  pool: {kind: best_of_n, set: {n: 8, posts: 30, scorers: [rm, rouge]}}
  other: {kind: reward, set: {posts: [0.8, 1]}}
"""
JUDGES = """
judges:
  gpt: {{kind: openai, model: m, price: 1/1, max_cost: 5, posts: 20, pool_share: {share}}}
  rm: {{kind: reward, variant: other, posts: 20, pool_share: {share}}}
  people: {{kind: people, posts: 20, pool_share: {share}, unanswered: 0.001}}
"""
TEXTS = 1 + 1 + 2 + 3
"""Of the pool of 8, at most: three choosers (reward model, ROUGE, length), and 1, 1, 2 and 4 new samples."""


def study_of(folder: Path, share: float) -> Study:
    path = folder / f"tiny-{share}.yaml"
    rewards = TINY.replace("reward: {batch: 8, seeds: 2}", "reward: {batch: 8, posts: [0, 0.8]}")
    path.write_text(rewards + POOLS + JUDGES.format(share=share))
    return load_study(path)


def planner(study: Study) -> Planner:
    device = DeviceSpec(memory=1.0, bf16=None, fp32=1.0, bandwidth=10.0, note="made up")
    return Planner(study, Machine(device, "made-up", 1, rate=2.0), TABLE.assumed)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_pools_are_questions_to_a_language_model(tmp_path: Path, share: float) -> None:
    """In both orders, of the largest pool alone: 20 posts of its 30 at most."""
    before, after = (judging_plans(planner(study_of(tmp_path, one)))[0] for one in (0.0, share))
    assert after.questions - before.questions == 2 * round(share * 20) * TEXTS
    assert after.dollars / before.dollars == pytest.approx(after.questions / before.questions)


def test_a_reward_model_scores_the_best_texts_and_their_references(tmp_path: Path) -> None:
    made = planner(study_of(tmp_path, 0.25))
    (run,) = [run for run in made.runs if run.title == "judge-s0-rm"]
    (job,) = [job for runs, job in made.groups if runs[0].title == "judge-s0-rm"]
    assert isinstance(job, InferenceJob)
    ((samples, pool),) = [model.portions for model in job.models]
    assert (samples.queries, samples.window.options) == (20, judged_summaries(run) + 1)
    assert (pool.queries, pool.window.options) == (5, TEXTS + 1)


def test_people_are_asked_about_as_many(tmp_path: Path) -> None:
    before, after = (
        next(
            one.labels for one in labeling_plans(study_of(tmp_path, share), tmp_path) if "people" in one.title
        )
        for share in (0.0, 1.0)
    )
    assert after - before == pytest.approx(20 * TEXTS, abs=2)
