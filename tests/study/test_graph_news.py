"""The runs on news articles: which there are, what they read, and that nothing else changes for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.study.test_graph import file_study, parents, runs_of
from tldr.stages.shared.settings import EvaluationSettings
from tldr.study.graph import expand
from tldr.study.hashes import FileHashes
from tldr.study.load import load_study
from tldr.study.status import write_listing

pytestmark = pytest.mark.usefixtures("same_code")


def with_news(config: Path) -> list[str]:
    (config.parent / "news.jsonl").write_text("news\n")
    files, *more = file_study(config)
    return [files.removesuffix("}") + f", cnndm: {config.parent / 'news.jsonl'}}}", *more]


def test_every_policy_of_the_ladder_is_sampled_and_scored_on_news(config: Path) -> None:
    more = ("evaluation={temperatures: [0.7, 0.3], sft_temperatures: [1.0], sft_top_ps: [0.9], posts: 9}",)
    before = runs_of(config, *file_study(config), *more)
    after = runs_of(config, *with_news(config), *more)
    added = set(after) - set(before)
    names = {f"{size}-s0-{method}-cnndm" for size in "sm" for method in ("pretrained", "sft", "ppo")}
    assert set(before) <= set(after) and added == {
        f"{stage}-{name}" for stage in ("sample", "score") for name in names
    }
    sample, score = after["sample-m-s0-ppo-cnndm"], after["score-m-s0-ppo-cnndm"]
    assert parents(sample) == {"policy": ["ppo-m-s0"], "data": ["data"]}
    assert parents(score) == {
        "samples": ["sample-m-s0-ppo-cnndm"],
        "policy": ["ppo-m-s0"],
        "sft": ["sft-m-s0"],
        "reward": ["reward-m-s0"],
        "data": ["data"],
    }
    assert sample.settings == score.settings == EvaluationSettings(temperatures=[0.3], posts=9)
    assert sample.tags == {"size": "m", "method": "ppo", "dataset": "cnndm"}
    assert "dataset" not in after["sample-m-s0-ppo"].tags


def test_articles_count_by_their_content(config: Path) -> None:
    overrides = with_news(config)
    before = runs_of(config, *overrides)["data"].key
    (config.parent / "news.jsonl").write_text("other news\n")
    assert runs_of(config, *overrides)["data"].key != before


def test_only_pretrained_policies_depend_on_in_context_examples(config: Path) -> None:
    before = runs_of(config, *with_news(config))
    asked = "evaluation={zero_shot: {examples: 2, query_tokens: 40}}"
    after = runs_of(config, *with_news(config), asked)
    changed = {title for title in before if before[title].key != after[title].key}
    assert changed == {f"{stage}-{size}-s0-pretrained" for stage in ("sample", "score") for size in "sm"}


def test_the_listing_tells_the_report_which_runs_are_on_news(config: Path, tmp_path: Path) -> None:
    study = load_study(config, with_news(config))
    path = write_listing(study, expand(study, FileHashes()), tmp_path / "runs")
    rows = json.loads(path.read_text())["runs"]
    assert {row["dataset"] for row in rows if "-cnndm-" in row["run"]} == {"cnndm"}
    assert {row["dataset"] for row in rows if "-cnndm-" not in row["run"]} == {""}


def test_further_posts_are_reported_on_apart_and_with_in_context_examples(config: Path) -> None:
    more = ("evaluation={temperatures: [0.7, 0.3], zero_shot: {examples: 2, query_tokens: 40}}",)
    files, *others = file_study(config)
    (config.parent / "test.jsonl").write_text("posts\n")
    further = files.removesuffix("}") + f", test: {config.parent / 'test.jsonl'}, report_unmarked: true}}"
    before, after = runs_of(config, files, *others, *more), runs_of(config, further, *others, *more)
    sets = ("test", "validation_unmarked")
    assert set(after) - set(before) == {
        f"{stage}-{size}-s0-{method}-{name}"
        for stage in ("sample", "score") for size in "sm"
        for method in ("pretrained", "sft", "ppo") for name in sets
    }  # fmt: skip
    shown = {method: after[f"sample-m-s0-{method}-test"].settings for method in ("pretrained", "ppo")}
    assert shown["pretrained"].zero_shot is not None and shown["ppo"].zero_shot is None
    assert all(settings.temperatures == [0.3] for settings in shown.values())
    assert after["sample-m-s0-ppo-test"].tags["dataset"] == "test"
