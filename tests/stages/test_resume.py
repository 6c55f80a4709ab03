"""Killed anywhere and run again, a stage ends with the bits of an uninterrupted run."""

from __future__ import annotations

import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from tests.stages import forks
from tests.stages import lab as laboratory
from tldr.train.checkpoint import hash_folder
from tldr.train.metrics import TIMES, read_metrics


def figures(folder: Path) -> list[dict[str, float]]:
    return [
        {name: value for name, value in row.items() if name not in TIMES}
        for row in read_metrics(folder / "metrics.jsonl")
    ]


def kill_after(process: ForkServerProcess, log: Path, updates: int) -> bool:
    """SIGKILL once `updates` rows are logged; False if the run ended before."""
    while process.is_alive():
        if log.exists() and log.read_bytes().count(b"\n") >= updates:
            process.kill()
            process.join()
            return True
        time.sleep(0.002)
    return False


@pytest.mark.parametrize("stage", laboratory.TRAINED)
def test_killed_and_resumed_equals_uninterrupted(lab: Path, tmp_path: Path, stage: str) -> None:
    total = len(read_metrics(lab / stage / "metrics.jsonl"))
    forks.prepare(stage, lab, tmp_path)
    (process,) = forks.start(tmp_path, held=total // 2)
    assert kill_after(process, tmp_path / "metrics.jsonl", total // 2), "ended before the kill"
    assert not (tmp_path / "checkpoint").exists()
    forks.finish(tmp_path)
    assert hash_folder(tmp_path / "checkpoint") == hash_folder(lab / stage / "checkpoint")
    assert figures(tmp_path) == figures(lab / stage)


def test_another_seed_gives_other_weights_and_the_same_seed_the_same(lab: Path, tmp_path: Path) -> None:
    for stage in laboratory.TRAINED:
        other = laboratory.run(laboratory.context(stage, lab, tmp_path / stage, seed=1), stage)
        again = laboratory.run(laboratory.context(stage, lab, tmp_path / f"{stage}-again"), stage)
        assert hash_folder(again / "checkpoint") == hash_folder(lab / stage / "checkpoint")
        assert hash_folder(other / "checkpoint") != hash_folder(lab / stage / "checkpoint")


@pytest.mark.parametrize(
    "stage", ["data", "labels", "epoch", "best_of_n", "sample", "score", "pairs", "ratings"]
)
def test_stages_without_training_write_the_same_bytes_again(lab: Path, tmp_path: Path, stage: str) -> None:
    laboratory.run(laboratory.context(stage, lab, tmp_path / stage), stage)
    names = [path.name for path in (lab / stage).glob("*.jsonl")]
    assert names
    for name in names:
        assert (tmp_path / stage / name).read_bytes() == (lab / stage / name).read_bytes()
