"""Killed anywhere and run again, a stage ends with the bits of an uninterrupted run."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.stages import lab as laboratory
from tldr.train.checkpoint import hash_folder
from tldr.train.metrics import TIMES, read_metrics

REPOSITORY = Path(__file__).parents[2]


def start(stage: str, lab: Path, out: Path, seed: int = 0) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.stages.lab", stage, str(lab), str(out), str(seed)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def figures(folder: Path) -> list[dict[str, float]]:
    return [
        {name: value for name, value in row.items() if name not in TIMES}
        for row in read_metrics(folder / "metrics.jsonl")
    ]


def kill_after(process: subprocess.Popen[bytes], log: Path, updates: int) -> bool:
    """SIGKILL once `updates` rows are logged; False if the run ended before."""
    while process.poll() is None:
        if log.exists() and log.read_bytes().count(b"\n") >= updates:
            process.kill()
            process.wait()
            return True
        time.sleep(0.002)
    return False


@pytest.mark.parametrize("stage", laboratory.TRAINED)
def test_killed_and_resumed_equals_uninterrupted(lab: Path, tmp_path: Path, stage: str) -> None:
    total = len(read_metrics(lab / stage / "metrics.jsonl"))
    assert kill_after(start(stage, lab, tmp_path), tmp_path / "metrics.jsonl", total // 2), (
        "ended before the kill"
    )
    assert not (tmp_path / "checkpoint").exists()
    assert start(stage, lab, tmp_path).wait() == 0
    assert hash_folder(tmp_path / "checkpoint") == hash_folder(lab / stage / "checkpoint")
    assert figures(tmp_path) == figures(lab / stage)


def test_another_seed_gives_other_weights_and_the_same_seed_the_same(lab: Path, tmp_path: Path) -> None:
    for stage in laboratory.TRAINED:
        other = laboratory.run(laboratory.context(stage, lab, tmp_path / stage, seed=1), stage)
        again = laboratory.run(laboratory.context(stage, lab, tmp_path / f"{stage}-again"), stage)
        assert hash_folder(again / "checkpoint") == hash_folder(lab / stage / "checkpoint")
        assert hash_folder(other / "checkpoint") != hash_folder(lab / stage / "checkpoint")


@pytest.mark.parametrize("stage", ["data", "labels", "best_of_n", "sample", "score", "pairs", "ratings"])
def test_stages_without_training_write_the_same_bytes_again(lab: Path, tmp_path: Path, stage: str) -> None:
    laboratory.run(laboratory.context(stage, lab, tmp_path / stage), stage)
    names = [path.name for path in (lab / stage).glob("*.jsonl")]
    assert names
    for name in names:
        assert (tmp_path / stage / name).read_bytes() == (lab / stage / name).read_bytes()
