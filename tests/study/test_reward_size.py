"""One reward model of one size for the policies of all sizes: which runs a study has, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.study.test_graph import Refusal, parents, runs_of
from tldr.plan.study import UnreadFiles
from tldr.study.graph import expand
from tldr.study.load import load_study, read_settings, resolved
from tldr.study.runner import costs
from tldr.study.runs import Run

pytestmark = pytest.mark.usefixtures("same_code")

TOY = Path(__file__).parents[2] / "configs" / "toy.yaml"
LADDER = "ladder.l={d_model: 48, layers: 2, heads: 2, context: 64}"
MORE = ("ppo.optimizer.lr=1e-3", "pretrain.steps=2", LADDER)
"""A third size of the tiny study."""


def names(runs: dict[str, Run]) -> dict[str, str]:
    return {title: run.name for title, run in runs.items()}


def toy(*overrides: str) -> dict[str, Run]:
    return {run.title: run for run in expand(load_study(TOY, overrides), UnreadFiles())}


def test_every_size_is_trained_and_scored_by_the_one_reward_model(config: Path) -> None:
    runs = runs_of(config, "reward.size=m", "seeds=[0, 3]")
    assert {title for title, run in runs.items() if run.stage == "reward"} == {"reward-m-s0", "reward-m-s3"}
    for seed in (0, 3):
        reads = [run for run in runs.values() if "reward" in run.parents and run.seed == seed]
        assert Counter(run.stage for run in reads) == {"ppo": 2, "best_of_n": 2, "score": 8}
        assert {one for run in reads for one in parents(run)["reward"]} == {f"reward-m-s{seed}"}
    assert parents(runs["reward-m-s0"])["policy"] == ["sft-m-s0"]
    assert parents(runs["ppo-s-s0"])["policy"] == parents(runs["ppo-s-s0"])["reference"] == ["sft-s-s0"]


def test_the_default_is_in_no_name_and_the_size_in_none_but_those_below(config: Path) -> None:
    """The reward model is the same run whoever uses it, so that a study that has one can change its mind."""
    default, one = runs_of(config), runs_of(config, "reward.size=m")
    assert names(default) == names(runs_of(config, "reward.size=null"))
    assert set(default) - set(one) == {"reward-s-s0"} and not set(one) - set(default)
    changed = {title for title, run in one.items() if run.name != default[title].name}
    assert changed == {"sample-s-s0-ppo"} | {
        title for title, run in one.items() if run.size == "s" and "reward" in run.parents
    }
    assert default["reward-m-s0"].name == one["reward-m-s0"].name
    assert names(toy()) == names(toy("reward.size=null"))


def test_a_size_without_a_policy_has_what_the_reward_model_needs(config: Path) -> None:
    runs = runs_of(config, *MORE, "sizes=[s, m]", "reward.size=l")
    assert {title for title, run in runs.items() if run.size == "l"} == {
        "pretrain-l-s0",
        "sft-l-s0",
        "reward-l-s0",
    }
    assert {run.size for run in runs.values()} == {None, "s", "m", "l"}
    assert set(parents(runs["labels-s0"])) == {"data", "policy-sft-s", "policy-sft-m"}
    without = runs_of(config, *MORE, "sizes=[s, m]")
    assert without["sft-m-s0"].name == runs["sft-m-s0"].name
    assert without["labels-s0"].name == runs["labels-s0"].name


def test_a_restricted_study_is_read_back_as_it_is(config: Path) -> None:
    study = load_study(config, [*MORE, "sizes=[s]", "reward.size=l"])
    assert list(study.ladder) == ["s", "l"] and study.policy_sizes == ["s"] and study.reward_sizes == ["l"]
    assert read_settings(type(study), resolved(study)) == study == study.chosen()
    plain = load_study(config, [*MORE, "sizes=[s, l]", "reward.size=l"])
    assert plain.sizes is None and plain.policy_sizes == ["s", "l"]


def test_rounds_choose_and_ask_by_the_one_reward_model(config: Path) -> None:
    asked = ("rounds=[{labels: {choose_by: null}, reward: {seeds: 2}}]", "labels.choose_by=disagreement")
    runs = runs_of(config, "reward.size=m", *asked)
    assert {title for title, run in runs.items() if run.stage == "reward"} == {
        "reward-m-s0-r1",
        "reward-m-s0-r1-rm1",
        "reward-m-s0",
    }
    labels = parents(runs["labels-s0"])
    both = ["reward-m-s0-r1", "reward-m-s0-r1-rm1"]
    assert labels["chooser-best_of_n-s-r1"] == labels["chooser-best_of_n-m-r1"] == both
    assert {name: labels[name] for name in labels if name.startswith("reward-")} == {
        "reward-r1-m-0": both[:1],
        "reward-r1-m-1": both[1:],
    }
    assert parents(runs["score-s-s0-ppo-r1"])["reward"] == both


def test_a_round_may_have_a_size_of_its_own(config: Path) -> None:
    runs = runs_of(config, "reward.size=m", "rounds=[{reward: {size: s}}]")
    assert parents(runs["ppo-m-s0-r1"])["reward"] == ["reward-s-s0-r1"]
    assert parents(runs["ppo-s-s0"])["reward"] == ["reward-m-s0"]
    alone = runs_of(config, "reward.size=m", "rounds=[{reward: {size: null}}]")
    assert parents(alone["ppo-s-s0-r1"])["reward"] == ["reward-s-s0-r1"]


def test_one_reward_model_alone_cannot_disagree(config: Path, refusal: Refusal) -> None:
    asked = ("rounds=[{labels: {choose_by: null}}]", "labels.choose_by=disagreement")
    assert runs_of(config, *asked), "two sizes disagree"
    assert "a single reward model, which cannot disagree" in refusal(
        lambda: runs_of(config, "reward.size=m", *asked)
    )


VARIANTS = (
    "variants.n={kind: reward, sweep: {limit: [9, 20]}}",
    "variants.kl={kind: ppo, sizes: [s], reward: n-9, set: {beta: 0.3}}",
    "variants.pool={kind: best_of_n, sizes: [s], set: {n: 8}}",
    "variants.fewer={kind: sft, sizes: [s], set: {limit: 200}}",
    "pairs={posts: 4}",
)


def test_variants_of_reward_models_keep_their_sizes_and_others_read_the_one(config: Path) -> None:
    runs = runs_of(config, "reward.size=m", *VARIANTS)
    trained = {title for title, run in runs.items() if run.stage == "reward"}
    assert trained == {"reward-m-s0", *(f"reward-{size}-s0-n-{n}" for size in "sm" for n in (9, 20))}
    assert parents(runs["ppo-s-s0-kl"])["reward"] == ["reward-m-s0-n-9"]
    assert parents(runs["score-s-s0-ppo-kl"])["reward"] == ["reward-m-s0-n-9"]
    assert parents(runs["score-s-s0-sft-n-9"])["reward"] == ["reward-m-s0-n-9"]
    assert parents(runs["score-s-s0-sft-fewer"])["reward"] == ["reward-m-s0"]
    pool = parents(runs["best_of_n-s-s0-pool"])
    assert {name: found for name, found in pool.items() if name.startswith("reward")} == {
        "reward": ["reward-m-s0"],
        "reward-m": ["reward-m-s0"],
        "reward-m_n-9": ["reward-m-s0-n-9"],
        "reward-m_n-20": ["reward-m-s0-n-20"],
    }
    scored = parents(runs["pairs-s0"])
    own = [found for name, found in scored.items() if name.startswith("reward-")]
    assert sorted(title for found in own for title in found) == sorted(trained), "each scores once"


def test_accuracy_against_size_needs_a_variant_of_the_other_sizes(config: Path) -> None:
    runs = runs_of(config, *MORE, "reward.size=m", "variants.size={kind: reward, sizes: [s, l]}")
    assert {title for title, run in runs.items() if run.stage == "reward"} == {
        "reward-m-s0",
        "reward-s-s0-size",
        "reward-l-s0-size",
    }


def test_variants_of_labels_are_compared_at_the_one_size(config: Path, refusal: Refusal) -> None:
    asked = ("rounds=[{labels: {choose_by: null}}]", "reward.size=m")
    variant = "{kind: labels, set: {choose_by: uncertainty}}"
    runs = runs_of(config, *asked, f"variants.unsure={variant}")
    assert {title for title in runs if title.endswith("unsure") and title.startswith("reward")} == {
        "reward-m-s0-unsure"
    }
    told = refusal(lambda: runs_of(config, *asked, f"variants.unsure={variant}", "variants.unsure.sizes=[s]"))
    assert "variants.unsure.sizes" in told and "reward.size m" in told


def test_a_judge_must_be_held_out_from_the_one_reward_model(config: Path) -> None:
    judging = ("variants.other={kind: reward, sizes: [s], set: {posts: [0.7, 1.0]}}", "reward.posts=[0, 0.7]")
    runs = runs_of(config, "reward.size=m", *judging, "judges.rm={kind: reward, variant: other}")
    judge = parents(runs["judge-s0-rm"])
    assert judge["reward"] == ["reward-s-s0-other"] and judge["trained-m"] == ["reward-m-s0"]
    assert "trained-s" not in judge


def test_the_longest_runs_are_those_with_the_largest_model(config: Path) -> None:
    runs = runs_of(config, "reward.size=m")
    own, one = costs(list(runs_of(config).values())), costs(list(runs.values()))
    ppo = runs["ppo-s-s0"]
    assert one[ppo.name] == own[runs["ppo-m-s0"].name]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("reward.size=med", ["reward.size: the ladder has m, s, but not 'med'; did you mean 'm'?"]),
        ("reward.size=xl", ["reward.size: the ladder has m, s, but not 'xl'"]),
        ("rounds=[{reward: {size: ss}}]", ["rounds.0.reward.size", "did you mean 's'?"]),
        ("reward.size=3", ["reward.size", "3", "valid string"]),
        ("variants.n={kind: reward, set: {size: m}}", ["variants.n.set.size", "variants.n.sizes: [m]"]),
        ("variants.n={kind: reward, sweep: {size: [s, m]}}", ["variants.n-s.set.size", "sizes: [s]"]),
    ],
)
def test_mistakes_are_named(config: Path, refusal: Refusal, override: str, words: list[str]) -> None:
    told = refusal(lambda: runs_of(config, override))
    for word in words:
        assert word in told, told


def test_a_policy_against_a_variant_needs_it_at_the_reward_models_size(
    config: Path, refusal: Refusal
) -> None:
    variants = (
        "variants.n={kind: reward, sizes: [s], set: {limit: 9}}",
        "variants.kl={kind: ppo, sizes: [s], reward: n}",
    )
    assert runs_of(config, *variants)
    told = refusal(lambda: runs_of(config, *variants, "reward.size=m"))
    assert "variants.kl: n is not trained at size m" in told


@pytest.fixture
def families(config: Path, tmp_path: Path) -> Callable[[str, dict[str, int]], str]:
    """Writes a folder with the tokens of a model; gives the override that puts it into the ladder."""

    def write(size: str, tokens: dict[str, int], file: str = "vocab.json") -> str:
        folder = tmp_path / f"model-{size}"
        folder.mkdir()
        found = {"model": {"type": "BPE", "vocab": tokens}} if file == "tokenizer.json" else tokens
        (folder / file).write_text(json.dumps(found))
        return f"ladder.{size}={{path: {folder}}}"

    return write


def test_sizes_of_two_vocabularies_are_refused_when_the_study_is_read(
    config: Path, refusal: Refusal, families: Callable[..., str]
) -> None:
    one = families("s", {"a": 0, "b": 1})
    other, same = families("m", {"a": 1, "b": 0}, "tokenizer.json"), families("l", {"a": 0, "b": 1})
    ladder = (*MORE[:2], one, other, same)
    assert load_study(config, ladder), "each policy's own size needs no common tokens"
    told = refusal(lambda: load_study(config, [*ladder, "reward.size=m"]))
    for word in ("reward.size", "size m", "size s", "different tokenizers", "null"):
        assert word in told, told
    assert load_study(config, [*ladder, "sizes=[s]", "reward.size=l"]).reward_sizes == ["l"]
    told = refusal(lambda: load_study(config, [*ladder, "rounds=[{reward: {size: m}}]"]))
    assert "rounds.0.reward.size" in told
