"""SFT on the first of the shuffled posts: nested parts, the same everywhere; all of them are as no limit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from tests.stages import lab as laboratory
from tldr.errors import UsageError
from tldr.records import Post
from tldr.stages.shared.posts import first_shuffled
from tldr.train.metrics import read_metrics

POSTS = [Post(id=f"p{number}", post="a post", title="", subreddit="r") for number in range(40)]


def ids(limit: int | None, seed: int = 0, posts: list[Post] = POSTS) -> list[str]:
    return [str(post.id) for post in first_shuffled(posts, limit, seed=seed, stage="sft")]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**62))
def test_a_smaller_limit_is_a_part_of_a_larger_one(one: int, two: int, seed: int) -> None:
    small, large = ids(min(one, two), seed), ids(max(one, two), seed)
    assert len(small) == min(one, two) == len(set(small)) and set(small) <= set(large)
    assert small == sorted(small, key=lambda name: int(name[1:])), "in the order of the file"


def test_all_posts_by_a_limit_are_all_posts_without_one() -> None:
    assert ids(None) == ids(40) == [post.id for post in POSTS]


def test_the_posts_are_shuffled_and_each_seed_has_its_own() -> None:
    assert ids(10) != ids(10, 1) != [f"p{number}" for number in range(10)]
    mean = sum(int(name[1:]) for seed in range(200) for name in ids(10, seed)) / 2000
    assert abs(mean - 19.5) < 1, "every part of the file is as likely"  # its standard error is 0.22


def test_another_process_chooses_the_same_posts() -> None:
    code = (
        "import json; from tests.stages.test_sft_limit import ids; print(json.dumps([ids(7, 3), ids(20, 3)]))"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(made.stdout.splitlines()[-1]) == [ids(7, 3), ids(20, 3)]


def test_more_posts_than_there_are_is_refused() -> None:
    with pytest.raises(UsageError) as error:
        ids(41)
    assert "41 posts are asked for, but there are 40" in str(error.value)
    assert "sft.limit" in str(error.value) and "at most 40" in str(error.value)


def trained(lab: Path, folder: Path, limit: int) -> Path:
    ctx = laboratory.context("sft", lab, folder, settings=laboratory.changed("sft", {"limit": limit}))
    return laboratory.run(ctx, "sft")


def test_a_run_on_fewer_posts_has_fewer_updates_and_says_so(lab: Path, tmp_path: Path) -> None:
    few = trained(lab, tmp_path / "few", 32)
    assert len(read_metrics(few / "metrics.jsonl")) == 32 // 8
    assert "SFT on 32 references" in (few / "checkpoint" / "README.md").read_text()
    losses = [read_metrics(folder / "metrics.jsonl")[-1]["valid_loss"] for folder in (few, lab / "sft")]
    assert losses[0] > losses[1], "a third of the posts teaches less"


def test_a_run_on_all_posts_by_a_limit_is_the_run_without_one(lab: Path, tmp_path: Path) -> None:
    whole = trained(lab, tmp_path / "whole", 96)
    weights, others = (load_file(f / "checkpoint" / "model.safetensors") for f in (whole, lab / "sft"))
    assert weights.keys() == others.keys() and all(weights[name].equal(others[name]) for name in weights)


def test_a_run_on_more_posts_than_its_data_has_is_refused(lab: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="97 posts are asked for, but there are 96"):
        trained(lab, tmp_path / "more", 97)
