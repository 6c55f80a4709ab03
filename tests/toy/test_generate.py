"""The files: deterministic, disjoint, readable as records."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

from tests.toy.conftest import SMALL
from tldr.records import Comparison, Post, Ranking, Rating, read_records
from tldr.toy import world
from tldr.toy.generate import ToyDocument, _draw, generate_toy
from tldr.toy.settings import ToyData


def test_same_seed_same_bytes_other_seed_other_bytes(folder: Path, tmp_path: Path) -> None:
    again = generate_toy(SMALL, tmp_path / "again")
    for name, entry in again["files"].items():
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
        assert entry["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert (folder / "manifest.json").read_bytes() == (tmp_path / "again" / "manifest.json").read_bytes()
    other = generate_toy(SMALL.model_copy(update={"seeds": [4]}), tmp_path / "other")
    assert all(other["files"][name]["sha256"] != entry["sha256"] for name, entry in again["files"].items())


def test_files_hold_what_was_asked_for(folder: Path) -> None:
    rows = {
        "sft": len(read_records(folder / "sft.jsonl", Post)),
        "ppo": len(read_records(folder / "ppo.jsonl", Post)),
        "valid1": len(read_records(folder / "valid1.jsonl", Post)),
        "valid2": len(read_records(folder / "valid2.jsonl", Post)),
        "corpus": len(read_records(folder / "corpus.jsonl", ToyDocument)),
    }
    assert rows == {"sft": 400, "ppo": 500, "valid1": 60, "valid2": 80, "corpus": 1500}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["synthetic"] is True and manifest["world"] == world.VERSION
    for name, n in rows.items():
        assert manifest["files"][f"{name}.jsonl"]["rows"] == n
    assert 0.7 < manifest["labeler_agreement"] < 0.85


def test_no_post_is_in_two_splits(folder: Path) -> None:
    bodies = {
        name: [p.post for p in read_records(folder / f"{name}.jsonl", Post)]
        for name in ("ppo", "valid1", "valid2")
    }
    corpus = [d.text[: d.query_chars] for d in read_records(folder / "corpus.jsonl", ToyDocument)]
    bodies["corpus"] = [text.split("\n\nPOST: ")[1].removesuffix("\n\nTL;DR:") for text in corpus]
    everything = [body for rows in bodies.values() for body in rows]
    assert len(everything) == len(set(everything)) == 500 + 60 + 80 + 1500


def test_a_body_drawn_again_is_passed_over() -> None:
    """Such draws are too rare to meet by chance; here the whole first draw is already taken."""
    seen: set[str] = set()
    first = _draw(random.Random(1), "a", 3, seen)
    assert seen == {post.post for post in first}
    second = _draw(random.Random(1), "b", 3, seen)
    assert not {post.post for post in first} & {post.post for post in second}
    assert [post.id for post in second] == ["b-000000", "b-000001", "b-000002"]


def test_sft_posts_are_among_the_ppo_posts_without_their_references(folder: Path) -> None:
    sft = read_records(folder / "sft.jsonl", Post)
    ppo = read_records(folder / "ppo.jsonl", Post)
    assert {p.id for p in sft} <= {p.id for p in ppo}
    assert all(p.summary for p in sft) and not any(p.summary for p in ppo)
    assert all(world.facts_of(p) for p in ppo)
    assert not any(p.to_json().count('"summary"') for p in ppo)


def test_labels_stay_within_their_split(folder: Path) -> None:
    ids = {
        name: {p.id for p in read_records(folder / f"{name}.jsonl", Post)}
        for name in ("sft", "valid1", "valid2")
    }
    comparisons = read_records(folder / "comparisons.jsonl", Comparison)
    assert {row.split for row in comparisons} == {"train", "valid1", "valid2"}
    for row in comparisons:
        assert row.info.id in ids["sft" if row.split == "train" else row.split]
        assert row.summaries[0].text != row.summaries[1].text
    rankings = read_records(folder / "rankings.jsonl", Ranking)
    assert all(row.info.id in ids["sft"] and len(row.summaries) == 5 for row in rankings)
    assert {row.info.id for row in read_records(folder / "ratings.jsonl", Rating)} <= ids["valid2"]


def test_evaluation_posts_do_not_depend_on_the_training_sizes(folder: Path, tmp_path: Path) -> None:
    fewer = ToyData(seeds=[3], corpus=10, sft_posts=20, ppo_posts=20, valid1_posts=60, valid2_posts=80)
    generate_toy(fewer, tmp_path)
    for name in ("valid1.jsonl", "valid2.jsonl"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
