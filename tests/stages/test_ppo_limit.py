"""PPO on the first of the shuffled posts: as many episodes, from nested parts; by all posts as no limit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.stages import lab as laboratory
from tldr.errors import UsageError
from tldr.records import Sample, read_records
from tldr.stages.ppo.settings import PPOSettings
from tldr.stages.shared.posts import first_shuffled, read_posts
from tldr.train.metrics import read_metrics


def trained(lab: Path, folder: Path, limit: int | None, **more: int) -> Path:
    settings = laboratory.changed("ppo", {"limit": limit, "keep_rollouts": 1, **more})
    return laboratory.run(laboratory.context("ppo", lab, folder, settings=settings), "ppo")


def asked(folder: Path) -> Counter[str]:
    """How many episodes each post had; the lab's PPO has 64, two for each query of 4 rollouts."""
    return Counter(row.id for row in read_records(folder / "rollouts.jsonl", Sample))


def chosen(lab: Path, limit: int) -> set[str]:
    posts = read_posts(lab / "data", "ppo")
    return {post.id for post in first_shuffled(posts, limit, seed=0, stage="ppo")}


def test_the_episodes_stay_as_many_and_the_posts_come_back(lab: Path, tmp_path: Path) -> None:
    few, more = trained(lab, tmp_path / "8", 8), trained(lab, tmp_path / "16", 16)
    assert asked(few) == dict.fromkeys(chosen(lab, 8), 8), "4 rollouts ask all 8 posts, two responses each"
    assert asked(more) == dict.fromkeys(chosen(lab, 16), 4)
    assert set(asked(few)) < set(asked(more)), "a smaller part lies within a larger"
    for folder in (few, more, lab / "ppo"):
        assert read_metrics(folder / "metrics.jsonl")[-1]["episodes"] == 64
    assert {post.id for post in read_posts(lab / "data", "ppo")} > set(asked(more))


def test_other_stages_choose_other_posts(lab: Path) -> None:
    posts = read_posts(lab / "data", "ppo")
    sft = {post.id for post in first_shuffled(posts, 40, seed=0, stage="sft")}
    assert sft != chosen(lab, 40)


def test_all_posts_by_a_limit_are_the_run_without_one(lab: Path, tmp_path: Path) -> None:
    whole = trained(lab, tmp_path / "whole", 128)
    weights, others = (load_file(f / "checkpoint" / "model.safetensors") for f in (whole, lab / "ppo"))
    assert weights.keys() == others.keys() and all(weights[name].equal(others[name]) for name in weights)


def test_more_posts_than_there_are_or_fewer_than_a_rollout_asks_are_refused(
    lab: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="129 posts are asked for, but there are 128") as error:
        trained(lab, tmp_path / "more", 129)
    assert "ppo.limit" in str(error.value)
    with pytest.raises(ValueError, match="limit 7 does not fill one rollout of 8 queries"):
        PPOSettings(batch=16, samples_per_query=2, limit=7)
    by_size = PPOSettings(batch={"s": 8, "m": 16}, limit=8)
    assert by_size.for_size("s").limit == 8
    with pytest.raises(ValueError, match="limit 8 does not fill one rollout of 16 queries"):
        by_size.for_size("m")
