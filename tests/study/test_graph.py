"""Which runs a study has, what each is made from, and what changes a key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.study.conftest import TINY
from tldr.stages.sft import SFTInputs
from tldr.stages.shared.declaration import named
from tldr.study.graph import expand
from tldr.study.hashes import FileHashes
from tldr.study.load import load_study
from tldr.study.registry import STAGES
from tldr.study.runs import InputSource, Run, needed_for, run_of

Refusal = Callable[[Callable[[], object]], str]

pytestmark = pytest.mark.usefixtures("same_code")


def runs_of(config: Path, *overrides: str) -> dict[str, Run]:
    return {run.title: run for run in expand(load_study(config, overrides), FileHashes())}


def parents(run: Run) -> dict[str, list[str]]:
    return {name: [one.title for one in source.runs] for name, source in run.parents.items()}


def changed(config: Path, *overrides: str) -> set[str]:
    """Titles of the runs whose key the overrides change."""
    before, after = runs_of(config), runs_of(config, *overrides)
    assert set(before) == set(after)
    return {title for title in before if before[title].key != after[title].key}


def test_every_stage_of_every_size_and_seed(config: Path) -> None:
    counts = Counter(run.stage for run in runs_of(config, "seeds=[0, 3]").values())
    sized = 2 * 2
    assert counts == {
        "data": 1,
        "pretrain": sized,
        "sft": sized,
        "labels": 2,
        "reward": sized,
        "ppo": sized,
        "best_of_n": sized,
        "sample": 3 * sized,
        "score": 4 * sized,
    }


def test_what_each_run_is_made_from(config: Path) -> None:
    runs = runs_of(config)
    assert parents(runs["data"]) == {}
    assert parents(runs["pretrain-s-s0"]) == {"data": ["data"]}
    assert parents(runs["sft-s-s0"]) == {"policy": ["pretrain-s-s0"], "data": ["data"]}
    assert parents(runs["labels-s0"]) == {
        "data": ["data"],
        "policy-sft-s": ["sft-s-s0"],
        "policy-sft-m": ["sft-m-s0"],
    }
    assert parents(runs["reward-m-s0"]) == {"policy": ["sft-m-s0"], "labels": ["labels-s0"], "data": ["data"]}
    assert parents(runs["ppo-m-s0"]) == {
        "policy": ["sft-m-s0"],
        "reference": ["sft-m-s0"],
        "reward": ["reward-m-s0"],
        "data": ["data"],
    }
    assert parents(runs["best_of_n-s-s0"]) == {
        "policy": ["sft-s-s0"],
        "reward": ["reward-s-s0"],
        "data": ["data"],
    }
    assert parents(runs["sample-s-s0-pretrained"]) == {"policy": ["pretrain-s-s0"], "data": ["data"]}
    assert parents(runs["score-s-s0-ppo"]) == {
        "samples": ["sample-s-s0-ppo"],
        "policy": ["ppo-s-s0"],
        "ppo": ["ppo-s-s0"],
        "sft": ["sft-s-s0"],
        "reward": ["reward-s-s0"],
        "data": ["data"],
    }
    assert parents(runs["score-s-s0-best_of_n"])["samples"] == ["best_of_n-s-s0"]
    assert parents(runs["score-s-s0-best_of_n"])["policy"] == ["sft-s-s0"]


def test_parents_come_first_and_names_are_folders(config: Path) -> None:
    seen: set[str] = set()
    for run in runs_of(config, "rounds=[{}]", "reward.seeds=2", "seeds=[0, 1]").values():
        assert all(parent.name in seen for parent in run.parent_runs())
        assert run.name == f"{run.title}-{run.key[:10]}"
        assert run.name not in seen
        seen.add(run.name)


def test_rounds_of_feedback(config: Path) -> None:
    """As the paper's batches: later labelers see the earlier policies, and every policy starts from SFT."""
    runs = runs_of(config, "rounds=[{sizes: [m], ppo: {episodes: 8}}, {sizes: [s]}]")
    assert parents(runs["labels-s0-r1"]) == {
        "data": ["data"],
        "policy-sft-s": ["sft-s-s0"],
        "policy-sft-m": ["sft-m-s0"],
    }
    assert parents(runs["labels-s0-r2"]) == parents(runs["labels-s0-r1"]) | {
        "policy-ppo-m-r1": ["ppo-m-s0-r1"],
        "policy-best_of_n-m-r1": ["sft-m-s0"],
        "chooser-best_of_n-m-r1": ["reward-m-s0-r1"],
    }
    assert set(parents(runs["labels-s0"])) - set(parents(runs["labels-s0-r2"])) == {
        "policy-ppo-s-r2",
        "policy-best_of_n-s-r2",
        "chooser-best_of_n-s-r2",
    }
    assert "reward-s-s0-r1" not in runs and "ppo-m-s0-r2" not in runs
    labels = {"labels": ["labels-s0-r1"], "labels-2": ["labels-s0-r2"], "labels-3": ["labels-s0"]}
    assert parents(runs["reward-s-s0"]) == {"policy": ["sft-s-s0"], "data": ["data"], **labels}
    assert parents(runs["ppo-s-s0"])["policy"] == parents(runs["ppo-s-s0-r2"])["policy"] == ["sft-s-s0"]
    assert runs["ppo-m-s0-r1"].settings.episodes == 8 != runs["ppo-m-s0"].settings.episodes
    assert parents(runs["sample-s-s0-ppo"])["policy"] == ["ppo-s-s0"]
    assert parents(runs["score-s-s0-ppo-r2"])["reward"] == ["reward-s-s0-r2"]
    draws = [runs[name].offset for name in ("ppo-s-s0", "ppo-m-s0-r1", "ppo-s-s0-r2")]
    assert len(set(draws)) == 3, "every round draws anew"


def test_a_later_round_leaves_the_earlier_as_they_were(config: Path) -> None:
    one, two = runs_of(config, "rounds=[{}]"), runs_of(config, "rounds=[{}, {sizes: [m]}]")
    assert one["ppo-s-s0-r1"].key == two["ppo-s-s0-r1"].key
    assert one["ppo-s-s0"].key != two["ppo-s-s0"].key


def test_a_rounds_faults_are_named(config: Path, refusal: Refusal) -> None:
    assert "rounds.0.sizes: the ladder has no x" in refusal(lambda: runs_of(config, "rounds=[{sizes: [x]}]"))
    assert "did you mean 'episodes'" in refusal(lambda: runs_of(config, "rounds=[{ppo: {episode: 3}}]"))


def test_several_worlds(config: Path) -> None:
    runs = runs_of(config, "data.seeds=[3, 4]", "seeds=[0, 1]")
    assert {"data-d3", "data-d4", "sft-s-d3-s1", "sft-s-d4-s0"} <= set(runs)
    assert parents(runs["ppo-m-d4-s1"])["data"] == ["data-d4"]
    assert runs["sample-m-d4-s1-ppo"].tags["data_seed"] == 4
    assert Counter(run.data_seed for run in runs.values()) == {3: len(runs) / 2, 4: len(runs) / 2}
    one = runs_of(config)
    assert "data_seed" not in one["sample-m-s0-ppo"].tags and one["data"].settings.data.seeds == [1]


def test_a_study_of_one_of_several_worlds_has_the_same_world(config: Path) -> None:
    both, one = runs_of(config, "data.seeds=[3, 4]"), runs_of(config, "data.seeds=[4]")
    assert both["data-d4"].settings == one["data"].settings


def test_several_reward_models(config: Path) -> None:
    one, three = runs_of(config), runs_of(config, "reward.seeds=3")
    names = ["reward-s-s0", "reward-s-s0-rm1", "reward-s-s0-rm2"]
    assert parents(three["ppo-s-s0"])["reward"] == names
    assert parents(three["score-s-s0-sft"])["reward"] == names
    assert one["reward-s-s0"].key == three["reward-s-s0"].key, "more seeds leave the first as it was"
    assert len({three[name].offset for name in names}) == 3
    assert one["ppo-s-s0"].key != three["ppo-s-s0"].key


def test_settings_of_a_size(config: Path) -> None:
    runs = runs_of(config)
    assert runs["pretrain-s-s0"].settings.model_dump()["steps"] == 3
    assert runs["pretrain-m-s0"].settings.model_dump()["steps"] == 2
    model = runs["pretrain-m-s0"].model
    assert model is not None and model.d_model == 32
    assert runs["score-s-s0-ppo"].tags == {"size": "s", "method": "ppo"}


PPO_AND_BELOW = {
    f"{stage}-{size}-s0{method}"
    for size in ("s", "m")
    for stage, method in (("ppo", ""), ("sample", "-ppo"), ("score", "-ppo"))
}
MEASURES = {
    f"{stage}-{size}-s0-{method}"
    for size in ("s", "m")
    for stage in ("sample", "score")
    for method in ("pretrained", "sft", "ppo", "best_of_n")
    if (stage, method) != ("sample", "best_of_n")
}


def test_beta_changes_ppo_and_below_only(config: Path) -> None:
    assert changed(config, "ppo.beta=0.1") == PPO_AND_BELOW


def test_one_size_changes_its_own_runs_only(config: Path) -> None:
    assert changed(config, "ppo.optimizer.lr={s: 9e-9, m: 5e-4}") == {t for t in PPO_AND_BELOW if "-s-" in t}


def test_a_size_of_pretraining_changes_all_that_saw_its_samples(config: Path) -> None:
    touched = changed(config, "ladder.s.layers=3")
    assert {"pretrain-s-s0", "sft-s-s0", "labels-s0", "reward-m-s0", "ppo-m-s0"} <= touched
    assert not touched & {"data", "pretrain-m-s0", "sft-m-s0", "sample-m-s0-sft"}


def test_evaluation_changes_samples_and_scores_only(config: Path) -> None:
    assert changed(config, "evaluation.posts=3") == MEASURES


def test_data_changes_everything(config: Path) -> None:
    assert changed(config, "data.seeds=[2]") == set(runs_of(config))
    assert changed(config, "lengths.query=30") == set(runs_of(config))


@pytest.mark.parametrize("override", ["description=other words", "evaluation.bootstrap=5", "name=other"])
def test_what_no_run_depends_on(config: Path, override: str) -> None:
    assert changed(config, override) == set()


def test_a_name_holds_no_code(config: Path, same_code: dict[str, str]) -> None:
    """A plan or a submission needs names before anything runs; code decides what is stale."""
    before = runs_of(config)
    same_code.update(dict.fromkeys((stage.module for stage in STAGES.values()), "edited"))
    assert {title: run.name for title, run in before.items()} == {
        title: run.name for title, run in runs_of(config).items()
    }
    assert all("code" not in run.ingredients for run in before.values())


def test_every_run_reads_what_its_stage_declares(config: Path) -> None:
    for run in runs_of(config, "rounds=[{}]", "pairs={posts: 4}", "ratings={posts: 4}").values():
        stage = STAGES[run.stage]
        inputs = stage.typed(run.parents)
        assert named(inputs) == run.parents
        for name, source in run.parents.items():
            assert {STAGES[parent.stage].makes for parent in source.runs} == {
                stage.needs(name).metadata["product"]
            }


def test_a_parent_that_makes_something_else_is_refused(config: Path) -> None:
    runs = runs_of(config)
    data = InputSource(runs=(runs["data"],))
    sft = runs["sft-s-s0"]
    with pytest.raises(TypeError, match=r"sft reads a policy as 'policy', but data-\w+ makes none"):
        run_of(SFTInputs(policy=data, data=data), sft.settings)


def test_a_ladder_from_paths_is_not_pretrained(config: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    overrides = [f"ladder.s={{path: {model}}}", "ladder.m={path: org/name}", "pretrain=null"]
    runs = runs_of(config, *overrides)
    assert not any(run.stage == "pretrain" for run in runs.values())
    assert runs["sft-s-s0"].parents["policy"].external == str(model)
    assert runs["sample-m-s0-pretrained"].parents["policy"].identity == "org/name"
    (model / "config.json").write_text("{ }")
    again = runs_of(config, *overrides)
    assert again["sft-s-s0"].key != runs["sft-s-s0"].key
    assert again["sft-m-s0"].key == runs["sft-m-s0"].key


def file_study(config: Path) -> list[str]:
    names = ("sft", "valid1", "valid2", "comparisons")
    for name in names:
        (config.parent / f"{name}.jsonl").write_text(f"{name}\n")
    paths = ", ".join(f"{name}: {config.parent / name}.jsonl" for name in names)
    return [f"data={{kind: files, {paths}}}"]


def test_a_study_of_files_has_one_labels_run(config: Path) -> None:
    runs = runs_of(config, *file_study(config), "seeds=[0, 1]")
    assert [title for title in runs if title.startswith("labels")] == ["labels"]
    assert parents(runs["labels"]) == {"data": ["data"]}
    assert parents(runs["reward-s-s1"])["labels"] == ["labels"]


def test_a_file_counts_by_its_content_not_its_place(config: Path) -> None:
    overrides = file_study(config)
    before = runs_of(config, *overrides)
    (config.parent / "sft.jsonl").rename(config.parent / "moved.jsonl")
    moved = runs_of(config, overrides[0].replace("sft.jsonl", "moved.jsonl"))
    assert moved["data"].key == before["data"].key
    (config.parent / "moved.jsonl").write_text("sft!\n")
    assert runs_of(config, overrides[0].replace("sft.jsonl", "moved.jsonl"))["data"].key != before["data"].key


def test_missing_files_are_refused(config: Path, refusal: Refusal) -> None:
    overrides = file_study(config)
    (config.parent / "valid2.jsonl").unlink()
    assert "valid2.jsonl: No such file" in refusal(lambda: runs_of(config, *overrides))
    assert "./gone" in refusal(lambda: runs_of(config, "ladder.s.path=./gone"))


def test_only_a_stage_and_what_it_needs(config: Path, refusal: Refusal) -> None:
    runs = list(runs_of(config, "rounds=[{}]").values())
    assert {run.stage for run in needed_for(runs, "sft")} == {"data", "pretrain", "sft"}
    assert Counter(run.stage for run in needed_for(runs, "best_of_n"))["ppo"] == 2
    assert needed_for(runs, None) == runs
    assert "did you mean 'reward'" in refusal(lambda: needed_for(runs, "rewards"))


def test_no_best_of_n_when_it_is_switched_off(config: Path) -> None:
    config.write_text(TINY + "best_of_n: null\n")
    assert not [title for title in runs_of(config) if "best_of_n" in title]


SWEPT = (
    "variants.n.kind=reward",
    "variants.n.sweep.limit=[100, 400]",
    "variants.kl={kind: ppo, sizes: [m], reward: n-100, sweep: {beta: [0.3, 0.0]}, set: {clip: 0.1}}",
    "variants.pool={kind: best_of_n, sizes: [m], set: {n: 64}}",
    "pairs={}",
    "ratings={}",
)
KL_RUNS = ("ppo-m-s0", "sample-m-s0-ppo", "score-m-s0-ppo")


def test_variants_branch_off_and_leave_the_main_runs_as_they_were(config: Path) -> None:
    before, after = runs_of(config), runs_of(config, *SWEPT)
    assert all(after[title].key == run.key for title, run in before.items())
    new = set(after) - set(before)
    assert new == {
        *(f"reward-{size}-s0-n-{limit}" for size in "sm" for limit in (100, 400)),
        *(
            f"{stage}-kl-{beta}"
            for stage in ("ppo-m-s0", "sample-m-s0-ppo", "score-m-s0-ppo")
            for beta in ("0.3", "0")
        ),
        "score-m-s0-sft-n-100",
        "best_of_n-m-s0-pool",
        "pairs-s0",
        "ratings-s0",
    }
    assert after["reward-s-s0-n-100"].settings.model_dump()["limit"] == 100
    ppo = after["ppo-m-s0-kl-0"]
    assert parents(ppo)["reward"] == ["reward-m-s0-n-100"]
    assert ppo.settings.model_dump()["beta"] == 0.0 and ppo.settings.model_dump()["clip"] == 0.1
    assert ppo.settings.model_dump()["optimizer"]["lr"] == 5e-4, "the rest is the study's, size by size"
    assert parents(after["score-m-s0-ppo-kl-0"])["reward"] == ["reward-m-s0-n-100"]
    assert after["sample-m-s0-ppo-kl-0"].settings.model_dump()["temperatures"] == [1.0]
    assert parents(after["score-m-s0-sft-n-100"])["reward"] == ["reward-m-s0-n-100"], "the sweep's start"
    assert parents(after["score-m-s0-sft-n-100"])["samples"] == ["sample-m-s0-sft"]
    assert after["score-m-s0-ppo-kl-0"].tags == {"size": "m", "method": "ppo", "variant": "kl-0"}


def test_a_variant_set_to_null_is_taken_away(config: Path) -> None:
    assert set(runs_of(config, *SWEPT, "variants.kl=null")) == {
        title for title in runs_of(config, *SWEPT) if "-kl-" not in title and title != "score-m-s0-sft-n-100"
    }


def test_pools_and_pairs_see_every_reward_model(config: Path) -> None:
    runs = runs_of(config, *SWEPT)
    assert {name for name in parents(runs["best_of_n-m-s0-pool"]) if name.startswith("reward")} == {
        "reward", "reward-s", "reward-m", "reward-m_n-100", "reward-m_n-400",
    }  # fmt: skip
    assert {name for name in parents(runs["pairs-s0"]) if name.startswith("reward")} == {
        f"reward-{size}{more}" for size in "sm" for more in ("", "_n-100", "_n-400")
    }
    assert parents(runs["ratings-s0"])["samples-ppo-m"] == ["sample-m-s0-ppo"]


DEMONSTRATIONS = "variants.sft-n={kind: sft, sweep: {limit: [128, 256]}}"


def test_policies_on_fewer_demonstrations_are_sampled_and_scored_as_the_main_ones(config: Path) -> None:
    ways = {"temperatures": "[0.0, 0.7]", "sft_temperatures": "[0.3]", "sft_top_ps": "[0.9]"}
    further = [f"evaluation.{name}={values}" for name, values in ways.items()]
    before, after = runs_of(config, *further), runs_of(config, *further, DEMONSTRATIONS)
    assert all(after[title].key == run.key for title, run in before.items()), "the main runs are as they were"
    assert set(after) - set(before) == {
        f"{stage}-{size}-s0-{end}-{limit}"
        for stage, end in (("sft", "sft-n"), ("sample", "sft-sft-n"), ("score", "sft-sft-n"))
        for size in "sm"
        for limit in (128, 256)
    }
    few, many, main = after["sft-m-s0-sft-n-128"], after["sft-m-s0-sft-n-256"], after["sft-m-s0"]
    assert parents(few) == parents(main) and len({few.key, many.key, main.key}) == 3
    others = [run.settings.model_dump() | {"limit": None} for run in (few, many)]
    assert others == [main.settings.model_dump()] * 2
    # The seed alone chooses the posts, so every size has the same, and a smaller part lies in a larger.
    trained = [run for title, run in after.items() if title.startswith("sft-")]
    assert {(run.seed, run.offset) for run in trained} == {(0, 0)}
    sample, score = after["sample-m-s0-sft-sft-n-128"], after["score-m-s0-sft-sft-n-128"]
    drawn = sample.settings.model_dump()
    assert (drawn["temperatures"], drawn["sft_temperatures"], drawn["sft_top_ps"]) == ([0.0, 0.7], [], [])
    assert parents(sample)["policy"] == parents(score)["policy"] == ["sft-m-s0-sft-n-128"]
    assert parents(score) == parents(after["score-m-s0-sft"]) | {
        "policy": ["sft-m-s0-sft-n-128"],
        "samples": ["sample-m-s0-sft-sft-n-128"],
    }
    assert score.tags == {"size": "m", "method": "sft", "variant": "sft-n-128"}


def test_policies_on_fewer_prompts_differ_from_the_main_one_in_the_limit_alone(config: Path) -> None:
    variant = "variants.prompts={kind: ppo, sizes: [m], temperatures: [0.0], sweep: {limit: [8, 16]}}"
    before, after = runs_of(config), runs_of(config, variant)
    assert all(after[title].key == run.key for title, run in before.items()), "the main runs are as they were"
    assert set(after) - set(before) == {
        f"{stage}-m-s0-{end}prompts-{limit}"
        for stage, end in (("ppo", ""), ("sample", "ppo-"), ("score", "ppo-"))
        for limit in (8, 16)
    }
    few, main = after["ppo-m-s0-prompts-8"], after["ppo-m-s0"]
    assert parents(few) == parents(main) and few.key != after["ppo-m-s0-prompts-16"].key
    assert few.settings.model_dump() | {"limit": None} == main.settings.model_dump()
    assert (few.seed, few.offset) == (main.seed, main.offset), "the seed chooses the posts"
    assert "reward" not in {run.stage for title, run in after.items() if title not in before}


def test_a_limit_changes_what_comes_from_the_policy_and_a_variant_can_be_of_one_size(config: Path) -> None:
    touched = changed(config, "sft.limit=128")
    assert {"sft-s-s0", "sft-m-s0", "labels-s0", "ppo-m-s0"} <= touched
    assert not touched & {"data", "pretrain-m-s0", "sample-m-s0-pretrained"}
    few = runs_of(config, "variants.few={kind: sft, sizes: [s], set: {limit: 128}}")
    assert set(few) - set(runs_of(config)) == {"sft-s-s0-few", "sample-s-s0-sft-few", "score-s-s0-sft-few"}


@pytest.mark.parametrize(
    ("setting", "value"), [("sft.limit", "null"), ("reward.pairs", "together"), ("ppo.limit", "null")]
)
def test_a_newer_setting_at_its_default_is_no_part_of_a_name(config: Path, setting: str, value: str) -> None:
    stage, key = setting.split(".")
    assert changed(config, f"{setting}={value}") == set()
    run = runs_of(config)[f"{stage}-s-s0"]
    assert key not in run.ingredients["settings"] and key in run.settings.model_dump()
    other = runs_of(config, f"{setting}={'apart' if key == 'pairs' else 128}")[f"{stage}-s-s0"]
    assert key in other.ingredients["settings"] and other.key != run.key


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("variants.a={kind: ppo, set: {betta: 1.0}}", "did you mean 'beta'"),
        ("variants.a={kind: ppo, reward: nothing}", "not a reward variant"),
        ("variants.a={kind: reward, sizes: [xl]}", "the ladder has no xl"),
        ("variants.a={kind: ppo, sweep: {beta: 0.1}}", "expected one key with a list of values"),
        ("variants.a={kind: ppo, sweep: {beta: []}}", "at least one"),
        ("variants.a={kind: ppo, sweep: {beta: [0.1, 0.1]}}", "has a value twice"),
        ("variants.a={kind: ppo, sweep: {beta: [1, 1.0]}}", "has a value twice"),
        ("variants={a: {kind: ppo, sweep: {beta: [1]}}, a-1: {kind: ppo}}", "two variants are called 'a-1'"),
        ("variants={a-1: {kind: ppo}, a: {kind: ppo, sweep: {beta: [1]}}}", "two variants are called 'a-1'"),
        ("variants.a={kind: ppo, temperatures: [1.0, 0.7, 1.0]}", "1.0 is there twice"),
        ("evaluation.temperatures=[0.7, 0.7]", "0.7 is there twice"),
        ("name=../elsewhere", "expected text to match"),
        ("name=..", "expected text to match"),
        ("ladder={s: {}, S: {}}", "expected text to match"),
        ("seeds=[0, 1, 0]", "one is repeated"),
        ("variants.a={kind: pretrain, set: {steps: 2}}", "kind"),
        ("variants.a={kind: sft, set: {limit: 100}}", "limit 100 does not fill one batch of 128"),
        (
            "variants.a={kind: sft, set: {limit: 99, batch: {s: 64, m: 128}}}",
            "does not fill one batch of 128",
        ),
        ("variants.a={kind: sft, sweep: {limit: [128, 9999999]}}", "variants.a-9999999.set.limit 9999999 is"),
        ("sft.limit=9999999", "sft.limit 9999999 is more than"),
        ("sft.limit=0", "greater than 0"),
        ("variants.a={kind: ppo, sweep: {limit: [8, 9999999]}}", "variants.a-9999999.set.limit 9999999 is"),
        ("ppo.limit=9999999", "ppo.limit 9999999 is more than"),
        ("rounds=[{ppo: {limit: 9999999}}]", "rounds.0.ppo.limit 9999999 is more than"),
        ("ppo.limit=7", "limit 7 does not fill one rollout of 8 queries"),
        ("reward={pairs: apart, share_posts: true}", "set share_posts to false"),
        ("variants.a={kind: reward, set: {pairs: single}}", "'together' or 'apart'"),
        ("variants.a={kind: ppo, set: {value_network: shared, algorithm: rloo, epochs: 1}}", "shared"),
    ],
)
def test_wrong_variants_are_named(config: Path, refusal: Refusal, override: str, words: str) -> None:
    assert words in refusal(lambda: runs_of(config, override))


def test_swept_values_that_differ_in_the_seventh_digit_are_told_apart(config: Path) -> None:
    study = load_study(config, ["variants.kl={kind: ppo, sweep: {beta: [0.1234567, 0.1234568, 0.5]}}"])
    assert {name: variant.set.beta for name, variant in study.variants.items()} == {  # type: ignore[union-attr]
        "kl-0.1234567": 0.1234567,
        "kl-0.1234568": 0.1234568,
        "kl-0.5": 0.5,
    }


@pytest.mark.parametrize(
    ("overrides", "title"),
    [
        (["variants.rm1={kind: reward, set: {epochs: 2}}", "reward.seeds=2"], "reward-s-s0-rm1"),
        (["variants.r1={kind: ppo, set: {beta: 1.0}}", "rounds=[{}]"], "ppo-s-s0-r1"),
    ],
)
def test_a_variant_called_as_a_further_reward_model_or_round_is_refused(
    config: Path, refusal: Refusal, overrides: list[str], title: str
) -> None:
    assert f"two different runs would be called {title}" in refusal(lambda: runs_of(config, *overrides))


JUDGES = (
    "reward.posts=[0, 0.7]",
    "variants.other={kind: reward, sizes: [m], set: {posts: [0.7, 1.0]}}",
    "variants.kl={kind: ppo, sizes: [s], set: {beta: 0.3}}",
    "judges.rm={kind: reward, variant: other}",
    "judges.gpt={kind: openai, model: g, price: 1/1, max_cost: 5, further: true}",
)


def test_a_judge_sees_all_scored_samples_and_is_trained_on_other_posts(config: Path) -> None:
    runs = runs_of(config, *JUDGES)
    main = {f"samples-{method}-{size}" for method in ("pretrained", "sft", "ppo") for size in "sm"}
    main |= {"samples-best_of_n-s", "samples-best_of_n-m"}
    trained = {"trained-s", "trained-m"}
    assert set(runs["judge-s0-rm"].parents) == {"data", "reward", *trained, *main}
    assert parents(runs["judge-s0-rm"])["reward"] == ["reward-m-s0-other"]
    assert set(runs["judge-s0-gpt"].parents) == {"data", *main, "samples-ppo-s-kl"}


def test_a_judge_of_pools_sees_the_largest_of_each_size(config: Path) -> None:
    """And is held out from every reward model that chooses in one."""
    pools = "variants.pool={kind: best_of_n, sizes: [m], set: {n: 64}}"
    few = "variants.small={kind: best_of_n, sizes: [s], set: {n: 4}}"
    n = "variants.n={kind: reward, sweep: {limit: [100]}}"
    before = runs_of(config, *JUDGES, pools, few, n)
    after = runs_of(config, *JUDGES, pools, few, n, "judges.rm.pool_share=0.5")
    assert {title for title in after if after[title].key != before[title].key} == {"judge-s0-rm"}
    assert "pool_share" not in before["judge-s0-rm"].ingredients["settings"], "the name is as it was"
    found = parents(after["judge-s0-rm"])
    assert (found["pool-s"], found["pool-m"]) == (["best_of_n-s-s0"], ["best_of_n-m-s0-pool"])
    chosen_by = {name for name in parents(after["best_of_n-m-s0-pool"]) if name.startswith("reward-")}
    assert {f"reward-{name.removeprefix('trained-')}" for name in found if name.startswith("trained-")} >= (
        chosen_by
    )
    assert "trained-m_n-100" in found and "trained-m_n-100" not in parents(before["judge-s0-rm"])


def test_a_judge_changes_no_other_run(config: Path) -> None:
    """Neither a pool nor pairs are scored by a model that only judges, so a further judge repeats no run."""
    more = ("pairs={}", "variants.pool={kind: best_of_n, sizes: [s], set: {n: 8}}", JUDGES[0])
    before, after = runs_of(config, *more), runs_of(config, *more, *JUDGES[1:2], *JUDGES[3:])
    assert {title: run.name for title, run in after.items() if title in before} == {
        title: run.name for title, run in before.items()
    }
    assert set(after) - set(before) == {"judge-s0-rm", "judge-s0-gpt", "reward-m-s0-other"}


@pytest.mark.parametrize("change", ["price=2/3", "max_cost=50", "concurrency=1", "timeout=5"])
def test_what_a_judge_may_cost_is_in_no_name(config: Path, change: str) -> None:
    key = lambda *more: runs_of(config, *JUDGES, *more)["judge-s0-gpt"].key  # noqa: E731
    assert key() == key(f"judges.gpt.{change}")
    assert key() != key("judges.gpt.posts=7") and key() != key("judges.gpt.base_url=http://x/v1")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("reward.posts=[0, 0.8]",), "so it is not held out"),
        (("reward.posts=[0, 1]",), "reward.posts: [0, 0.8] and variants.other.set.posts: [0.8, 1]"),
        (("judges.rm.variant=kl",), "'kl' is not a reward variant"),
        (("judges.rm.variant=gone",), "'gone' is not a reward variant"),
        (("judges.rm.path=x",), "either a path or a variant"),
        (("judges.rm.pool_share=0.5", "best_of_n=null"), "judges.rm.pool_share 0.5: the study has no pool"),
        (("judges.rm.pool_share=1.5",), "less than or equal to 1"),
        (("reward.posts=[0.7, 0.7]",), "the first share must be below the second"),
    ],
)
def test_trap_a_judge_that_learns_from_the_same_posts_is_refused(
    config: Path, refusal: Refusal, changes: tuple[str, ...], said: str
) -> None:
    assert said in refusal(lambda: runs_of(config, *JUDGES, *changes))
