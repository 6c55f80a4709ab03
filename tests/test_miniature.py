"""The miniature release: its relations, and every preset on it to its end."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.miniature import CONFIGS, DIVIDE, PRESETS, tldr_lab, write_miniature
from tldr.bench.divided import Divisors, divided
from tldr.inputs.leakage import Collected, overlaps
from tldr.inputs.posts import body_hash
from tldr.records import Comparison, Info, Post, Rating, Record
from tldr.sources.fake_release import (
    EDIT_BATCH,
    EVALUATION_BATCHES,
    NEWS_BATCHES,
    REDDIT_BATCHES,
    UNSURE_BATCHES,
    ReleaseSize,
    fake_release,
)
from tldr.sources.hub.catalog import AXES, BATCHES, CATALOG, TLDR_3
from tldr.sources.hub.load import open_source
from tldr.stages.data.overlap import collect_study
from tldr.stages.data.settings import FileData
from tldr.study.load import load_study

FIGURES = {"preference_rm", "rouge", "reward_accuracy", "training_curves"}
"""What every preset with policies draws."""
WHOLE_PRESETS = ["opt-1.3b", "opt-6.7b", "pythia-1b", "pythia-2.8b", "pythia-6.9b"]
DRAWN = {
    "kl_sweep": ["kl", "value"],
    "best_of_n": ["value"],
    "sampling_rm": ["value"],
    "rouge_news": ["value"],
    "value_networks": ["value"],
    "agreement": ["value"],
    "probes": ["value"],
}
"""Table behind a figure -> columns without which it would hold the paper's points alone."""
WHOLE = {
    *FIGURES,
    *("ratings", "ratings_articles", "ratings_articles_by_size", "ratings_articles_by_length", "rouge_news"),
    *("kl_sweep", "sampling_rm", "length_controlled_rm", "value_networks", "agreement_with_labelers"),
    *("probes", "best_of_n"),
}
"""What a preset of the whole paper draws; ratings show the paper's points alone, and say so."""


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_miniature(tmp_path_factory.mktemp("miniature"))


def records(folder: Path, splits: str) -> list[Record]:
    source = open_source(str(folder))
    return [row for split in source.select(splits) for row in source.records(split)]


@pytest.fixture(scope="module")
def labels(miniature: Path) -> list[Comparison]:
    return [row for row in records(miniature / "plain", "comparisons") if isinstance(row, Comparison)]


def of_posts(rows: list[Comparison]) -> list[Comparison]:
    return [row for row in rows if row.batch in REDDIT_BATCHES]


def posts(miniature: Path, split: str) -> dict[str, Post]:
    rows = records(miniature / "plain", f"tldr_3_filtered/{split}")
    return {row.id: row for row in rows if isinstance(row, Post)}


def values(row: Record) -> str:
    return json.dumps(row.model_dump(mode="json"), sort_keys=True)


def preset_data(miniature: Path, name: str = "opt-1.3b") -> FileData:
    """A preset's data without the articles, read from the miniature's plain files."""
    data = load_study(CONFIGS / f"{name}.yaml").data.model_dump(exclude_none=True)
    plain = {
        key: value.replace("openai-files@", f"{miniature / 'plain'}@")
        for key, value in data.items()
        if isinstance(value, str) and key != "cnndm"
    }
    return FileData.model_validate(data | plain | {"cnndm": None})


def test_every_file_of_the_release_is_there_and_every_row_is_a_record(miniature: Path) -> None:
    source, known = open_source(str(miniature / "plain")), CATALOG["openai-files"]
    assert {path for files in source.splits.values() for path in files} == set(known.files)
    assert source.left_aside == []
    kinds = {"tldr_3_filtered": Post, "comparisons": Comparison, "axis_evals": Rating}
    for split in source.splits:
        assert all(isinstance(row, kinds[split.split("/")[0]]) for row in source.records(split)), split
    for split, rows in TLDR_3.items():
        assert len(posts(miniature, split)) == max(4, round(rows / DIVIDE))


def test_rows_have_the_fields_of_the_real_ones(miniature: Path, shared: Path) -> None:
    for name in ("batch13", "cnndm0", EDIT_BATCH):
        mine, real = (
            [json.loads(line) for line in path.read_bytes().split(b"\n") if line]
            for path in (
                miniature / "plain" / "dataset" / "comparisons" / f"{name}.json",
                shared / "comparisons" / f"{name}.json",
            )
        )
        for part in (lambda row: row, lambda row: row["info"], lambda row: row["summaries"][0]):
            assert set(part(mine[0])) == set(part(real[0])), name
        leads = [
            {summary["text"].startswith(" ") for row in rows for summary in row["summaries"]}
            for rows in (mine, real)
        ]
        assert leads[0] <= leads[1], name
    (first, *_) = (
        (miniature / "plain" / "datasets" / "tldr_3_filtered" / "train.jsonl").read_text().splitlines()
    )
    (real_post, *_) = (shared / "tldr_posts.jsonl").read_text().splitlines()
    assert list(json.loads(first)) == list(json.loads(real_post))


def test_the_hubs_copies_hold_the_same_records(miniature: Path, labels: list[Comparison]) -> None:
    hub = miniature / "hub" / "openai" / "summarize_from_feedback"
    ratings = records(miniature / "plain", "axis_evals")
    for name, rows in (("comparisons", labels), ("axis", ratings)):
        copied = sorted(map(values, records(hub, name)))
        assert copied == sorted(map(values, rows)), name
    copy = miniature / "hub" / "vwxyzjn" / "summarize_from_feedback_tldr_3_filtered"
    assert records(copy, "validation") == list(posts(miniature, "valid").values())


def test_posts_are_shared_by_batches_splits_and_none(miniature: Path, labels: list[Comparison]) -> None:
    batches, marks = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for row in of_posts(labels):
        assert row.info.id is not None
        batches[row.info.id].add(row.batch)
        marks[row.info.id].add(row.split)
    assert any(len(found) > 1 for found in batches.values()), "labelled in two batches"
    train, valid, test = (set(posts(miniature, split)) for split in ("train", "valid", "test"))
    both = {id for id, found in marks.items() if found == {"valid1", "valid2"}}
    assert both and both < valid, "labelled in two splits"
    assert valid - set(marks), "labelled in none"
    evaluated = {id for id, found in marks.items() if "train" not in found}
    assert evaluated - valid - train - test, "labelled, and in no file of posts"
    trained = {id for id, found in marks.items() if "train" in found}
    assert trained & train and trained - train and not trained & (valid | test)


def test_labels_have_the_releases_irregularities(labels: list[Comparison]) -> None:
    by_batch: dict[str, list[Comparison]] = {name: [] for name in BATCHES}
    for row in labels:
        by_batch[row.batch].append(row)
    assert all(by_batch.values())
    for name, rows in by_batch.items():
        splits = {row.split for row in rows}
        trains = name in REDDIT_BATCHES and name not in EVALUATION_BATCHES
        assert ("train" in splits) == trains and "valid2" in splits, name
        assert all((row.info.article is not None) == (name in NEWS_BATCHES) for row in rows)
    sure = [row for row in labels if row.extra.confidence is not None]
    assert all(
        (row.extra.confidence or 0) > 5 if row.choice else (row.extra.confidence or 9) < 5 for row in sure
    )
    assert not any(row.batch in UNSURE_BATCHES for row in sure)
    assert any(row.extra.confidence is None and row.batch not in UNSURE_BATCHES for row in labels)
    pairs = Counter((row.batch, body_hash(row.info), *(one.text for one in row.summaries)) for row in labels)
    assert max(pairs.values()) > 1 and Counter(pairs.values())[1] > len(pairs) / 2
    policies = Counter(row.summaries[0].policy == row.summaries[1].policy for row in of_posts(labels))
    assert policies[True] and policies[False]
    assert {"ref", "sup4_ppo_rm4_t.7", "pretrain_6b_t.7"} <= {s.policy for r in labels for s in r.summaries}


def test_the_edit_batch_has_no_ids_and_one_of_its_posts_selects(miniature: Path) -> None:
    lines = (miniature / "plain" / "dataset" / "comparisons" / f"{EDIT_BATCH}.json").read_text().splitlines()
    infos = [json.loads(line)["info"] for line in lines]
    assert not any("id" in info for info in infos)
    assert all(info["subreddit"].startswith("r/") for info in infos)
    bodies = {body_hash(post) for post in posts(miniature, "valid").values()}
    assert len(bodies & {body_hash(Info.model_validate(info)) for info in infos}) == 1


def test_ratings_have_null_axes_and_the_optional_one(miniature: Path) -> None:
    rows = [row for row in records(miniature / "plain", "axis_evals") if isinstance(row, Rating)]
    assert {row.batch for row in rows} == set(AXES)
    assert {row.split for row in rows} == {"test", "valid1", "valid2"}
    axes = [row.summary.axes for row in rows]
    assert any(each.overall is None or each.coverage is None for each in axes)
    assert {each.compatible is None for each in axes} == {True, False}


def test_the_same_seed_writes_the_same_release() -> None:
    size = ReleaseSize(2_000, 30)
    assert fake_release(size, 3) == fake_release(size, 3) != fake_release(size, 4)


def test_no_set_of_a_preset_leaks_on_the_release(miniature: Path) -> None:
    found = Collected()
    collect_study(preset_data(miniature), found)
    assert {"valid1", "valid2", "validation_unmarked", "test"} < set(found.sets)
    assert not [pair for pair in overlaps(found.sets) if pair.leak and pair.either]


def test_amounts_of_a_study_are_divided_and_nothing_else(tmp_path: Path) -> None:
    made = divided(CONFIGS / "rm-scaling.yaml", Divisors(rows=50))
    assert made["reward"] == {"batch": 4, "limit": 1_280, "micro_batch": made["reward"]["micro_batch"]}
    assert made["variants"] == {"n": {"sweep": {"limit": [160, 320, 640]}}}
    assert (made["ppo"]["episodes"], made["sft"]["batch"]) == (125, 8)
    path = tmp_path / "divided.yaml"
    path.write_text(json.dumps(made))
    whole, small = (load_study(place) for place in (CONFIGS / "rm-scaling.yaml", path))
    amounts = {"batch", "micro_batch", "limit", "episodes", "posts", "n"}

    def rest(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: rest(inner) for key, inner in value.items() if key not in amounts}

    shown = [study.model_dump(exclude={"variants"}) for study in (whole, small)]
    assert rest(shown[0]) == rest(shown[1])
    assert {name.removeprefix("n-") for name in small.variants} == {"160", "320", "640"}


def to_its_end(miniature: Path, name: str, *only: str, settings: Sequence[str] = ()) -> set[str]:
    """Run a preset and its report; the figures that were drawn."""
    study, runs = miniature / f"{name}.yaml", miniature / "runs"
    changed = [part for setting in settings for part in ("--set", setting)]
    done = tldr_lab(miniature, "study", "run", study, "--runs", runs, "--jobs", "1", *only, *changed)
    assert done.returncode == 0, done.stdout + done.stderr
    out = miniature / "reports" / name
    told = tldr_lab(miniature, "report", study, "--runs", runs, "--out", out, *changed)
    assert told.returncode == 0, told.stdout + told.stderr
    return {path.stem for path in (out / "figures").glob("*.png")}


def test_a_preset_runs_on_the_release_to_its_end(miniature: Path) -> None:
    figures = to_its_end(miniature, "opt-125m")
    assert figures >= FIGURES | {"best_of_n"}
    root = miniature / "runs" / "opt-125m"
    (data,) = (json.loads(path.read_text()) for path in root.glob("data-*/manifest.json"))
    counts = data["validation"]
    assert all(counts[mark] for mark in ("valid1", "valid2", "both", "unmarked", "labels_set_aside"))
    assert data["records"]["valid1"] == counts["valid1"] + counts["both"]
    assert data["records"]["valid2"] == counts["valid2"]
    for name in ("test", "validation_unmarked"):
        assert (miniature / "reports" / "opt-125m" / "tables" / f"preference_{name}.csv").is_file()
    runs = [json.loads(path.read_text()) for path in root.glob("sft-*/run.json")]
    (model,) = {run["inputs"]["policy"] for run in runs}
    assert model.startswith("facebook/opt-125m@") and len(model.split("@")[1]) == 40


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in PRESETS if name not in ("opt-125m", "rm-scaling", *WHOLE_PRESETS)]
)
def test_every_preset_runs_on_the_release_to_its_end(miniature: Path, name: str) -> None:
    assert to_its_end(miniature, name) >= FIGURES


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE_PRESETS)
def test_a_preset_of_the_whole_paper_draws_every_figure_of_it(miniature: Path, name: str) -> None:
    """One seed: the others would be the same runs again."""
    seed = load_study(CONFIGS / f"{name}.yaml").seeds[0]
    assert to_its_end(miniature, name, settings=[f"seeds=[{seed}]"]) >= WHOLE
    tables = miniature / "reports" / name / "tables"
    for table, columns in DRAWN.items():
        drawn = pd.read_csv(tables / f"{table}.csv")
        assert len(drawn) and drawn[columns].notna().all(axis=None), table
    assert pd.read_csv(tables / "kl_sweep.csv")["beta"].nunique() == 6
    best = pd.read_csv(tables / "best_of_n.csv")
    assert "rm_expected_preference" in set(best["measure"])
    assert (best["best_of"].max() == 128) == (name in ("opt-1.3b", "pythia-1b"))
    page = unescape((miniature / "reports" / name / "report.html").read_text(encoding="utf-8"))
    assert "only the paper's points are shown" in page, "no ratings, and that is said"


@pytest.mark.slow
def test_reward_models_by_size_and_data_run_on_the_release_to_their_end(miniature: Path) -> None:
    assert "reward_accuracy" in to_its_end(miniature, "rm-scaling", "--only", "reward")
