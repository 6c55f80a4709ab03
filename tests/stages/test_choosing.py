"""Choosing what to ask: the measures by hand, and which questions and items a run takes."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from math import exp
from pathlib import Path

import numpy as np
import pytest

from tests.stages import lab as laboratory
from tests.stages.test_people import SETTINGS as BY_PEOPLE
from tests.stages.test_people import later_round
from tldr.errors import UsageError
from tldr.records import Ranking, read_records, write_records
from tldr.stages.labels import LabelsRun
from tldr.stages.labels.algorithm import POSTS, plan_questions
from tldr.stages.labels.asking import make_batch
from tldr.stages.labels.choosing import (
    MEASURES,
    disagreement,
    highest,
    most_telling,
    uncertainty,
    win_probabilities,
)
from tldr.stages.labels.settings import LabelsSettings
from tldr.stages.labels.stage import candidates, sample
from tldr.stages.shared.judging import reward_scores
from tldr.stages.shared.posts import read_posts

PAIRS, AMONG = 12, 3


def test_probabilities_of_all_pairs_by_hand() -> None:
    found = win_probabilities(np.array([[0.0, 1.0, -1.0], [2.0, 2.0, 2.0]]))
    first = [1 / (1 + exp(1)), 1 / (1 + exp(-1)), 1 / (1 + exp(-2))]
    np.testing.assert_allclose(found, [first, [0.5, 0.5, 0.5]])


def test_uncertainty_and_disagreement_by_hand() -> None:
    """One pair: two models that are sure of opposite things are as unsure together as two that know nothing,
    and only they disagree."""
    sure, unsure = np.array([[20.0, 0.0], [0.0, 20.0]]), np.zeros((2, 2))
    assert uncertainty(sure) == pytest.approx(0.25, abs=1e-6) == uncertainty(unsure)
    assert disagreement(sure) == pytest.approx(0.25, abs=1e-6)
    assert disagreement(unsure) == 0.0
    alike = np.array([[20.0, 0.0], [20.0, 0.0]])
    assert uncertainty(alike) == pytest.approx(0.0, abs=1e-6) == disagreement(alike)


def test_the_two_make_up_the_variance_of_an_answer() -> None:
    """p(1-p) of the mean = mean of p(1-p) + variance between the models."""
    scores = np.random.default_rng(0).normal(size=(3, 4))
    p = win_probabilities(scores)
    within = float((p * (1 - p)).mean(axis=0).mean())
    assert uncertainty(scores) == pytest.approx(within + disagreement(scores))


def test_a_shift_of_a_model_changes_neither() -> None:
    scores = np.random.default_rng(1).normal(size=(2, 5))
    for measure in MEASURES.values():
        assert measure(scores + np.array([[3.0], [-7.0]])) == pytest.approx(measure(scores))


def test_the_highest_keep_their_order_and_the_first_wins_a_tie() -> None:
    assert highest([1.0, 3.0, 2.0, 3.0, 0.0], 2) == [1, 3]
    assert highest([1.0, 3.0, 3.0, 3.0], 2) == [1, 2]
    assert highest([1.0, 0.0], 5) == [0, 1]


@pytest.fixture(scope="module")
def further_reward(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model of another seed."""
    folder = tmp_path_factory.mktemp("choosing") / "reward-1"
    laboratory.run(replace(laboratory.context("reward", lab, folder), seed=5), "reward")
    return folder


def choosing(lab: Path, folder: Path, by: str | None, *rewards: Path) -> LabelsRun:
    settings = LabelsSettings.model_validate(
        {"pairs": PAIRS, "valid_pairs": 8, "k": (2, 3), "choose_by": by, "among": AMONG}
    )
    inputs = laboratory.INPUTS["labels"] | {"data": lab / "data", "policy-s": lab / "sft"}
    inputs |= {f"reward-{number}": place for number, place in enumerate(rewards)}
    return laboratory.context("labels", lab, folder, inputs=inputs, settings=settings)


def texts(row: Ranking) -> tuple[str, ...]:
    return tuple(summary.text for summary in row.summaries)


@pytest.mark.parametrize("by", MEASURES)
def test_labels_are_of_the_questions_with_the_highest_values(
    lab: Path, tmp_path: Path, further_reward: Path, by: str
) -> None:
    models = [lab / "reward", further_reward]
    ctx = choosing(lab, tmp_path / by, by, *models)
    laboratory.run(ctx, "labels")
    labelled = {texts(row) for row in read_records(tmp_path / by / "train.jsonl", Ranking)}
    assert len(read_records(tmp_path / by / "train.jsonl", Ranking)) == PAIRS
    # The same, from all questions that were made, one by one.
    posts = {split: read_posts(ctx.inputs.data, name, references=True) for split, name in POSTS.items()}
    questions = list(plan_questions(ctx.settings, list(ctx.inputs.policies), posts, ctx.seed))
    shown = candidates(ctx, questions, sample(ctx, questions))
    train = [
        (q.post, [c.shown().text for c in s])
        for q, s in zip(questions, shown, strict=True)
        if q.split == "train"
    ]
    assert len(train) == PAIRS * AMONG
    scorers = [reward_scores(model, ctx.lengths, ctx.precision, cut=True) for model in models]
    values = [
        MEASURES[by](np.array([scorer([post] * len(own), own) for scorer in scorers])) for post, own in train
    ]
    bound = sorted(values, reverse=True)[PAIRS - 1]
    for (_, own), value in zip(train, values, strict=True):
        if abs(value - bound) > 1e-6:
            assert (tuple(own) in labelled) == (value > bound)


def test_the_labels_that_report_are_asked_as_ever(lab: Path, tmp_path: Path) -> None:
    """Chosen ones would be harder, and accuracies would not compare."""
    for by in ("uncertainty", None):
        laboratory.run(choosing(lab, tmp_path / str(by), by, lab / "reward"), "labels")
    for split in ("valid1", "valid2"):
        asked = [
            [row.info.id for row in read_records(tmp_path / str(by) / f"{split}.jsonl", Ranking)]
            for by in ("uncertainty", None)
        ]
        assert asked[0] == asked[1] and len(asked[0]) == 4


@pytest.mark.parametrize(
    ("by", "models", "told"), [("uncertainty", 0, "0 reward models"), ("disagreement", 1, "two")]
)
def test_too_few_reward_models(lab: Path, tmp_path: Path, by: str, models: int, told: str) -> None:
    ctx = choosing(lab, tmp_path, by, *[lab / "reward"] * models)
    with pytest.raises(UsageError, match=told):
        most_telling(ctx, [], 1, lambda one: one)


def test_people_are_asked_the_most_telling_and_the_control_as_ever(lab: Path, tmp_path: Path) -> None:
    settings = BY_PEOPLE.model_copy(update={"choose_by": "uncertainty", "among": AMONG, "references": 1.0})
    ctx = replace(later_round(lab, tmp_path / "chosen"), settings=settings)
    ctx = replace(ctx, inputs=replace(ctx.inputs, rewards={"r1": lab / "reward"}))
    items = make_batch(ctx)
    assert Counter(item.split for item in items) == {"train": 22, "valid1": 5, "valid2": 5}
    assert len({item.id for item in items}) == len(items)
    scorer = reward_scores(lab / "reward", ctx.lengths, ctx.precision, cut=True)

    def unsure(item: object) -> float:
        own = [summary.text for summary in item.summaries]  # type: ignore[attr-defined]
        return uncertainty(np.array([scorer([item.info] * 2, own)]))  # type: ignore[attr-defined]

    train = [item for item in items if item.split == "train"]
    control = [item for item in train if "control" in item.id]
    assert len(control) == round(0.3 * 22)
    assert all({one.policy for one in item.summaries} == {"sft-s-t0.85", "ref"} for item in control)
    chosen = [unsure(item) for item in train if item not in control]
    at_random = replace(
        later_round(lab, tmp_path / "plain"), settings=settings.model_copy(update={"choose_by": None})
    )
    plain = [unsure(item) for item in make_batch(at_random) if item.split == "train"]
    assert np.mean(chosen) > np.mean(plain)


def test_a_reward_model_reports_on_the_labels_that_are_held_out_for_it(lab: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    kept = {"train": 0, "valid1": 5, "valid2": 7}
    for split, count in kept.items():
        write_records(
            other / f"{split}.jsonl", read_records(lab / "labels" / f"{split}.jsonl", Ranking)[:count]
        )
    inputs = {"policy": lab / "sft", "labels": lab / "labels", "held_out": other, "data": lab / "data"}
    laboratory.run(laboratory.context("reward", lab, tmp_path / "reward", inputs=inputs), "reward")
    plain = json.loads((lab / "reward" / "evaluation.json").read_text())
    held_out = json.loads((tmp_path / "reward" / "evaluation.json").read_text())
    assert (held_out["valid1_pairs"], held_out["valid2_pairs"]) == (5, 7)
    assert held_out["train_rankings"] == plain["train_rankings"] and held_out["shift"] == plain["shift"]
