"""A batch that its processes cannot share is refused before a network is loaded."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.stages import lab as laboratory
from tldr.errors import UsageError
from tldr.stages.ppo import stage as ppo
from tldr.stages.ppo.batches import rollout_plan
from tldr.stages.pretrain import stage as pretrain
from tldr.stages.reward import stage as reward
from tldr.stages.sft import stage as sft


def loaded(*_: Any, **__: Any) -> None:
    raise AssertionError("a network was loaded first")


def refused(lab: Path, folder: Path, stage: str, **changes: Any) -> str:
    settings = laboratory.changed(stage, changes)
    with pytest.raises(UsageError) as caught:
        laboratory.run(laboratory.context(stage, lab, folder, settings=settings), stage)
    return caught.value.what


@pytest.mark.parametrize(
    ("stage", "module", "load"),
    [
        ("pretrain", pretrain, "build_policy"),
        ("sft", sft, "load_policy"),
        ("reward", reward, "reward_from_policy"),
    ],
)
def test_a_batch_that_is_smaller_than_its_processes_is_refused_first(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, module: Any, load: str
) -> None:
    monkeypatch.setattr(module, load, loaded)
    monkeypatch.setattr(module, "make_accelerator", lambda _: SimpleNamespace(num_processes=9))
    assert "cannot be shared by 9 processes" in refused(lab, tmp_path, stage)


def test_validation_posts_that_are_fewer_than_the_processes_are_refused_first(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be missed after the first epoch."""
    monkeypatch.setattr(sft, "load_policy", loaded)
    monkeypatch.setattr(sft, "make_accelerator", lambda _: SimpleNamespace(num_processes=32))
    assert refused(lab, tmp_path, "sft", batch=32) == "24 examples cannot be shared by 32 processes"


@pytest.mark.parametrize(
    ("processes", "changes", "what"),
    [
        (3, {}, "3 processes cannot share 8 queries in 2 minibatches"),
        (8, {}, "8 processes cannot share 8 queries in 2 minibatches"),
        (1, {"ptx_coef": 1.0, "ptx_ratio": 0.2, "micro_batch": 1}, "2 pretraining texts a minibatch for 4"),
    ],
)
def test_a_rollout_that_cannot_be_split_is_refused_first(
    lab: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    processes: int,
    changes: dict[str, Any],
    what: str,
) -> None:
    for name in ("load_policy", "load_reward"):
        monkeypatch.setattr(ppo, name, loaded)
    monkeypatch.setattr(ppo, "process_count", lambda: processes)
    assert refused(lab, tmp_path, "ppo", **changes).startswith(what)


def test_several_processes_cannot_sample_with_vllm() -> None:
    settings: Any = laboratory.changed("ppo", {"sampler": "vllm"})
    with pytest.raises(UsageError, match="vLLM samples in one process, not in 2"):
        rollout_plan(settings, queries=128, processes=2, seed=0)
