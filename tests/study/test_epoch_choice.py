"""The epoch of SFT that a reward model chooses: what is made from it in a study, and what is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.study.test_graph import changed, parents, runs_of
from tldr.stages.sft.settings import SFTSettings
from tldr.study.load import load_study

Refusal = Callable[[Callable[[], object]], str]

CONFIGS = Path(__file__).parents[2] / "configs"
ON = ("sft.select=reward", "sft.epochs=3")
ROUND = "rounds=[{sizes: [s]}]"


def test_default_settings_are_no_part_of_a_name(config: Path) -> None:
    same = ("sft.select=last", "sft.keep_epochs=null", "epoch.temperature=0.2", "epoch.posts=9")
    assert changed(config, *same) == set()
    assert not [title for title in runs_of(config) if title.startswith("epoch")]


def test_reward_models_start_from_the_last_epoch_and_policies_from_the_chosen_one(config: Path) -> None:
    found = runs_of(config, *ON)
    assert parents(found["labels-s0"])["policy-sft-s"] == ["sft-s-s0"]
    assert parents(found["reward-s-s0"])["policy"] == ["sft-s-s0"]
    assert parents(found["epoch-s-s0"]) == {
        "policy": ["sft-s-s0"], "reward": ["reward-s-s0"], "data": ["data"],
    }  # fmt: skip
    ppo = parents(found["ppo-s-s0"])
    assert ppo["policy"] == ppo["reference"] == ["epoch-s-s0"] and ppo["reward"] == ["reward-s-s0"]
    chosen = {(run.title, name) for run in found.values() for name, source in run.parents.items()
              if "epoch-s-s0" in [one.title for one in source.runs]}  # fmt: skip
    assert chosen == {
        ("ppo-s-s0", "policy"), ("ppo-s-s0", "reference"), ("best_of_n-s-s0", "policy"),
        ("sample-s-s0-sft", "policy"), ("score-s-s0-sft", "policy"), ("score-s-s0-best_of_n", "policy"),
        *((f"score-s-s0-{method}", "sft") for method in ("pretrained", "sft", "ppo", "best_of_n")),
    }  # fmt: skip


def test_a_round_chooses_for_its_sizes_and_later_ones_keep_that(config: Path) -> None:
    found = runs_of(config, *ON, ROUND)
    assert parents(found["labels-s0-r1"])["policy-sft-s"] == ["sft-s-s0"]
    assert parents(found["epoch-s-s0"])["reward"] == ["reward-s-s0-r1"]
    assert parents(found["epoch-m-s0"])["reward"] == ["reward-m-s0"]
    for title in ("ppo-s-s0-r1", "ppo-s-s0"):
        assert parents(found[title])["policy"] == parents(found[title])["reference"] == ["epoch-s-s0"]
    asked = parents(found["labels-s0"])
    assert asked["policy-sft-s"] == asked["policy-best_of_n-s-r1"] == ["epoch-s-s0"]
    assert asked["policy-sft-m"] == ["sft-m-s0"], "no reward model of its size was there to choose"
    assert parents(found["reward-s-s0"])["policy"] == ["sft-s-s0"]


def test_one_reward_model_of_another_size_chooses_the_epoch_of_every_policy(config: Path) -> None:
    """The size that only the reward model needs has no policy, so no epoch of it is chosen."""
    found = runs_of(config, *ON, "sizes=[s]", "reward.size=m")
    assert [title for title in found if title.startswith("epoch")] == ["epoch-s-s0"]
    assert parents(found["epoch-s-s0"])["reward"] == ["reward-m-s0"]
    assert parents(found["reward-m-s0"])["policy"] == ["sft-m-s0"]
    assert parents(found["ppo-s-s0"])["policy"] == ["epoch-s-s0"]


def test_variants_and_learning_rates(config: Path) -> None:
    """Reward models of variants start where the main ones do, so that they differ in their settings alone."""
    variants = (
        "variants={n: {kind: reward, set: {limit: 9}}, few: {kind: sft, set: {limit: 200}}, "
        "once: {kind: sft, set: {select: last, epochs: 1}}, kl: {kind: ppo, set: {beta: 0}}}"
    )
    found = runs_of(config, *ON, "sft.lr_factors=[1, 2]", variants)
    assert parents(found["epoch-s-s0"])["policy"] == ["sft-s-s0", "sft-s-s0-lr2"]
    assert parents(found["reward-s-s0-n"])["policy"] == ["sft-s-s0", "sft-s-s0-lr2"]
    assert parents(found["ppo-s-s0-kl"])["policy"] == ["epoch-s-s0"]
    assert parents(found["sample-s-s0-sft-few"])["policy"] == ["epoch-s-s0-few"]
    assert parents(found["epoch-s-s0-few"]) == {
        "policy": ["sft-s-s0-few"], "reward": ["reward-s-s0"], "data": ["data"],
    }  # fmt: skip
    assert parents(found["sample-s-s0-sft-once"])["policy"] == ["sft-s-s0-once"]
    assert "epoch-s-s0-once" not in found


def test_other_posts_or_temperatures_choose_again_and_train_no_reward_model(config: Path) -> None:
    before, after = runs_of(config, *ON), runs_of(config, *ON, "epoch.temperature=1.0")
    new = {title.split("-")[0] for title in before if before[title].key != after[title].key}
    assert new == {"epoch", "ppo", "best_of_n", "sample", "score"}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("sft.select=rewards", "expected 'last', 'valid_loss' or 'reward'"),
        ("sft.keep_epoch=[1]", "unknown key 'keep_epoch'; did you mean 'keep_epochs'?"),
        ("epoch.temprature=1", "unknown key 'temprature'; did you mean 'temperature'?"),
        ("epochs.posts=1", "unknown key 'epochs'; did you mean 'epoch'?"),
        ("epoch.posts=0", "greater than 0"),
        ("sft.select=reward", "epochs 1 has one at most"),
        ("sft={select: reward, epochs: 2, keep_epochs: [2]}", "keep_epochs 2 is not before the end of 2"),
        ("sft.keep_epochs=[1]", "keep_epochs is for select: reward"),
    ],
)
def test_what_cannot_be_is_refused(config: Path, refusal: Refusal, override: str, words: str) -> None:
    assert words in refusal(lambda: runs_of(config, override))


def test_epochs_by_size(config: Path) -> None:
    found = runs_of(config, "sft={select: reward, epochs: {s: 2, m: 3.5}}")
    kept = {}
    for size in "sm":
        settings = found[f"sft-{size}-s0"].settings
        assert isinstance(settings, SFTSettings)
        kept[size] = settings.kept_epochs()
    assert kept == {"s": [1], "m": [1, 2, 3]}


def test_instructgpts_study_chooses_among_all_of_its_epochs() -> None:
    study = load_study(CONFIGS / "toy-instructgpt.yaml")
    assert study.sft.select == "reward" and study.sft.for_size("s").kept_epochs() == list(range(1, 16))
