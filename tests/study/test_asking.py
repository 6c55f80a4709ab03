"""Labels whose questions are chosen: what they are made from, and the variants that compare ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.study.test_graph import parents, runs_of

Refusal = Callable[[Callable[[], object]], str]

pytestmark = pytest.mark.usefixtures("same_code")

TWO_ROUNDS = (
    "rounds=[{sizes: [s], reward: {seeds: 2}, labels: {choose_by: null}}, {sizes: [m], labels: {pairs: 20}}]"
)
VARIANTS = (
    "variants.random={kind: labels, sizes: [s], sweep: {pairs: [5, 10]}}",
    "variants.disagree={kind: labels, sizes: [s, m], set: {choose_by: uncertainty, pairs: 5}}",
)


def test_questions_are_chosen_by_every_reward_model_of_the_round_before(config: Path) -> None:
    plain = runs_of(config, TWO_ROUNDS)
    chosen = runs_of(config, TWO_ROUNDS, "labels.choose_by=uncertainty")
    rewards = {name: of for name, of in parents(chosen["labels-s0"]).items() if name.startswith("reward-")}
    assert rewards == {"reward-r2-m-0": ["reward-m-s0-r2"]}
    second = {name: of for name, of in parents(chosen["labels-s0-r2"]).items() if name.startswith("reward-")}
    assert second == {"reward-r1-s-0": ["reward-s-s0-r1"], "reward-r1-s-1": ["reward-s-s0-r1-rm1"]}
    assert not any(name.startswith("reward-") for name in parents(plain["labels-s0"]))
    assert not any(name.startswith("reward-") for name in parents(chosen["labels-s0-r1"]))


def test_off_by_default_and_then_no_part_of_a_name(config: Path) -> None:
    run = runs_of(config)["labels-s0"]
    assert run.settings.model_dump()["choose_by"] is None
    assert not {"choose_by", "among"} & set(run.ingredients["settings"])
    assert runs_of(config, "labels.among=7")["labels-s0"].ingredients["settings"]["among"] == 7


def test_ways_of_asking_report_on_the_studys_own_labels(config: Path) -> None:
    before = runs_of(config, TWO_ROUNDS)
    after = runs_of(config, TWO_ROUNDS, *VARIANTS)
    assert all(after[title].key == run.key for title, run in before.items()), "the main runs are as they were"
    names = ["random-5", "random-10", "disagree"]
    assert set(after) - set(before) == {
        *(f"labels-s0-{name}" for name in names),
        *(f"reward-s-s0-{name}" for name in names),
        "reward-m-s0-disagree",
    }
    reward = after["reward-s-s0-random-5"]
    assert parents(reward) == parents(before["reward-s-s0"]) | {
        "labels-3": ["labels-s0-random-5"],
        "held_out": ["labels-s0"],
    }
    assert reward.settings == before["reward-s-s0"].settings
    asked = after["labels-s0-random-5"]
    assert parents(asked) == parents(before["labels-s0"]) and (asked.seed, asked.offset) == (0, 0)
    assert asked.settings.model_dump()["valid_pairs"] == 2, "its own held-out labels are not read"
    assert parents(after["labels-s0-disagree"])["reward-r2-m-0"] == ["reward-m-s0-r2"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["labels.choose_by=uncertainty"],
            "labels.choose_by uncertainty: before the first labels there is no",
        ),
        (["rounds=[{labels: {choose_by: uncertainty}}]"], "rounds.0.labels.choose_by"),
        (["rounds=[{sizes: [s]}]", "labels.choose_by=uncertainty"], "write rounds.0.labels.choose_by: null"),
        (
            ["rounds=[{sizes: [s], labels: {choose_by: null}}]", "labels.choose_by=disagreement"],
            "a single reward model, which cannot disagree: give rounds.0.reward.seeds 2",
        ),
        (["labels.choose_by=best"], "'uncertainty' or 'disagreement'"),
        (
            ["variants.a={kind: labels, set: {choose_by: uncertainty}}"],
            "variants.a.set.choose_by uncertainty",
        ),
        (["variants.a={kind: labels, sizes: [xl]}"], "the ladder has no xl"),
        (["labels.among=1"], "greater than or equal to 2"),
    ],
)
def test_what_cannot_be_chosen_is_refused(
    config: Path, refusal: Refusal, overrides: list[str], words: str
) -> None:
    assert words in refusal(lambda: runs_of(config, *overrides))
