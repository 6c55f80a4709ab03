"""Sources where people name them: in a study, and on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner, Result

from tests.sources.hub_server import COMMIT, serve, use_as_hub
from tests.sources.test_hub_sources import ASKED, COMPARISON, PAIR, POST, lines, parquet, put
from tldr.cli.main import app
from tldr.errors import RecordError, UsageError
from tldr.inputs.leakage import Collected
from tldr.records import Post, Ranking, read_records
from tldr.sources.hub.catalog import CATALOG
from tldr.sources.place import SourceSplit, parse_place, posts_at, rankings_at
from tldr.stages.data import DataInputs
from tldr.stages.data import stage as data_stage
from tldr.stages.data.overlap import collect_study
from tldr.stages.data.settings import DataSettings, FileData, TokenizerSpec
from tldr.stages.shared.context import RunContext
from tldr.study.graph import expand
from tldr.study.hashes import FileHashes
from tldr.study.load import load_study

SPLITS = {"sft": "train", "valid1": "validation", "valid2": "test", "comparisons": "comparisons"}
ROOT = Path(__file__).parents[2]


def post(number: int, gap: str = "\n\n", summary: str = "words") -> dict[str, Any]:
    return POST | {"id": f"t3_{number}", "post": f"Line {number}.{gap}Another.", "summary": summary}


def label(split: str, number: int) -> dict[str, Any]:
    info = {key: post(number)[key] for key in ("id", "post", "title", "subreddit")}
    return COMPARISON | {"split": split, "info": info}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as the hub lays it out, with labels as OpenAI does."""
    files = {
        "data/train-00000-of-00001.parquet": parquet(*(post(n) for n in range(30))),
        "data/validation-00000-of-00001.parquet": parquet(*(post(n) for n in range(30, 55))),
        "data/test-00000-of-00001.parquet": parquet(*(post(n) for n in range(60, 85))),
        "comparisons/batch3.json": lines(label("train", 0), label("valid1", 30)),
        "comparisons/batch4.json": lines(label("valid2", 60)),
        "collapsed/test.jsonl": lines(*(post(n, gap="\n") for n in range(60, 85))),
        "broken/train.jsonl": lines(post(1), b"{"),
    }
    return put(tmp_path / "in", files)


def run(folder: Path, out: Path, **changes: str) -> dict[str, Any]:
    """The data stage on splits of the folder; its manifest."""
    sets = SPLITS | changes
    data = FileData.model_validate({name: f"{folder}@{split}" for name, split in sets.items()})
    settings = DataSettings(data=data, tokenizer=TokenizerSpec(vocab_size=270))
    data_stage.run(RunContext(settings, put(out, {"log": b""}), DataInputs()))
    manifest: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return manifest


def test_the_data_stage_reads_splits_of_a_folder(folder: Path, tmp_path: Path) -> None:
    manifest = run(folder, tmp_path / "out")
    assert manifest["records"] == {"sft": 30, "ppo": 30, "valid1": 25, "valid2": 25, "rankings": 3}
    assert read_records(tmp_path / "out" / "sft.jsonl", Post)[3].post == "Line 3.\n\nAnother."
    ranks = [row.rank for row in read_records(tmp_path / "out" / "rankings.jsonl", Ranking)]
    assert ranks == [[2, 1]] * 3
    assert manifest["white_space"]["sft"]["paragraph_style"] == "kept"
    assert manifest["white_space"]["comparisons"]["leading_space_share"] == 0.5


def test_the_leakage_guard_reads_splits_too(folder: Path) -> None:
    places = {name: f"{folder}@{split}" for name, split in SPLITS.items()}
    found = Collected()
    collect_study(FileData.model_validate(places), found)
    sizes = {name: len(held.posts) for name, held in found.sets.items()}
    assert sizes == {"sft": 30, "ppo": 30, "valid1": 25, "valid2": 25} | {
        f"labels/{split}": 1 for split in ("train", "valid1", "valid2")
    }
    with pytest.raises(UsageError, match="holds Post records, not comparisons"):
        collect_study(FileData.model_validate(places | {"comparisons": places["sft"]}), found)


def test_the_data_stage_refuses_to_mix_white_space(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be mixed: .*valid2: blank lines collapsed"):
        run(folder, tmp_path / "out", valid2="collapsed/test")


def test_wrong_places_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"in@comparisons: holds Comparison records, not Post"):
        posts_at(f"{folder}@comparisons")
    with pytest.raises(UsageError, match=r"holds Post records, not comparisons"):
        rankings_at(f"{folder}@train")
    with pytest.raises(UsageError, match="'trl-lib/tdlr' is neither a known source nor a folder"):
        posts_at("trl-lib/tdlr@train")
    with pytest.raises(RecordError, match=r"broken/train.jsonl:2"):
        posts_at(f"{folder}@broken/train")
    assert len(posts_at(f"{folder}@broken/train", on_error="skip")) == 1


def test_a_plain_file_stays_a_file(tmp_path: Path) -> None:
    odd = put(tmp_path, {"posts@home.jsonl": lines(POST)}) / "posts@home.jsonl"
    assert parse_place(str(odd)) is None
    assert parse_place("posts.jsonl") is None
    assert parse_place("a@b/c@train+valid1") == SourceSplit("a@b/c", "train+valid1")
    assert len(posts_at(str(odd))) == 1


def test_made_ids_of_copies_that_differ_in_white_space_are_one_post(tmp_path: Path) -> None:
    spaced = ASKED | {"prompt": ASKED["prompt"].replace("We have", "We  have")}
    put(tmp_path, {"train.parquet": parquet(ASKED, spaced)})
    first, second = posts_at(f"{tmp_path}@train")
    assert first.id == second.id and first.post != second.post


def identities(study: Path, **sets: str) -> dict[str, Any]:
    """The data run's settings as its key sees them."""
    overrides = [f"data.{name}={place}" for name, place in sets.items()]
    (data,) = (run for run in expand(load_study(study, overrides), FileHashes()) if run.stage == "data")
    identity: dict[str, Any] = data.ingredients["settings"]["data"]
    return identity


def test_a_place_counts_by_content_or_by_name_and_revision(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(
        "name: t\n"
        f"data: {{kind: files, sft: '{folder}@train', "
        f"valid1: '{folder}@validation', valid2: '{folder}@test', comparisons: '{folder}@comparisons'}}\n"
        f"ladder: {{s: {{path: '{put(tmp_path / 'model', {'config.json': b'{}'})}'}}}}\n"
        "lengths: {query: 32, response: 16, rm_response: 24}\n"
        "labels: {}\n"
    )
    first = identities(study)
    moved = tmp_path / "moved"
    folder.rename(moved)
    elsewhere = {name: f"{moved}@{split}" for name, split in SPLITS.items()}
    assert identities(study, **elsewhere) == first
    put(moved, {"data/test-00000-of-00001.parquet": parquet(post(99))})
    second = identities(study, **elsewhere)
    assert second["valid2"] != first["valid2"]
    assert second["sft"] == first["sft"]

    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "cache"))
    with serve() as hub:
        use_as_hub(monkeypatch, hub.url)
        hub.publish("trl-lib/tldr", {"data/train-00000-of-00001.parquet": parquet(ASKED)})
        third = identities(study, **elsewhere | {"sft": "trl-lib/tldr@train"})
        assert third["sft"] == f"trl-lib/tldr@train {COMMIT}"
        asked = len(hub.asked)
        # the revision stays what it was when it was first asked for; nothing is fetched to name a run
        assert identities(study, **elsewhere | {"sft": "trl-lib/tldr@train"}) == third
        assert (len(hub.asked), hub.got(".parquet")) == (asked, [])


def tldr_lab(*args: str | Path) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, args)], env={"COLUMNS": "200"})


def test_fetch_as_a_user_types_it_with_a_cut_and_then_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 50)  # a cut loses at most a chunk
    name, a, b = "CarperAI/openai_summarize_comparisons", tmp_path / "a", tmp_path / "b"
    with serve() as hub:
        hub.publish(name, {f"data/{s}-00000-of-00001-0a.parquet": parquet(PAIR) for s in ("train", "valid1")})
        hub.cuts[f"datasets/{name}/resolve/{COMMIT}/data/train-00000-of-00001-0a.parquet"] = [100]
        got = tldr_lab("fetch", name, "--out", a, "--from", hub.url)
        assert got.exit_code == 0, got.stderr
        assert hub.got("train-00000-of-00001-0a.parquet") == [None, "bytes=100-"]
    assert "WARNING: train: 1 rows, known to be 92,534 (-92,533)" in got.stderr
    assert "valid1" in got.stdout and got.stdout.rstrip().endswith(str(a))
    # the server is gone: what was fetched is there, and nothing else
    again = tldr_lab("fetch", name, "--out", b, "--split", "train", "--offline")
    assert again.exit_code == 0, again.stderr
    assert (a / "train.jsonl").read_bytes() == (b / "train.jsonl").read_bytes()
    assert not (b / "valid1.jsonl").exists()
    lacking = tldr_lab("fetch", "trl-lib/tldr", "--out", b, "--offline")
    assert lacking.exit_code == 2
    assert "offline, and 'trl-lib/tldr' was never fetched" in lacking.stderr


def test_hf_endpoint_is_where_the_hub_is(tmp_path: Path) -> None:
    code = (
        "from tldr.sources.hub import catalog, listing\n"
        "known = catalog.known_source('trl-lib/tldr')\n"
        "print(listing.get_listing(known, None, offline=False, refresh=False).files[0].url)"
    )
    with serve() as hub:
        hub.publish("trl-lib/tldr", {"data/train-00000-of-00001.parquet": b""})
        env = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True
        )
    path = f"datasets/trl-lib/tldr/resolve/{COMMIT}/data/train-00000-of-00001.parquet"
    assert done.stdout.strip() == f"{hub.url}/{path}"


def test_sources_lists_every_known_set() -> None:
    told = CliRunner().invoke(app, ["data", "sources"], env={"COLUMNS": "300"})
    assert told.exit_code == 0
    for known in CATALOG.values():
        assert known.name in told.stdout
        assert known.note in told.stdout
        assert all(f"{rows:,}" in told.stdout for rows in known.rows.values())
