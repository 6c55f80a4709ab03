"""A whole study, killed at random moments, ends with the bytes of one that was left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.docs.test_commands import TINY_STUDY

REPOSITORY = Path(__file__).parents[1]


def start(runs: Path) -> subprocess.Popen[bytes]:
    sizes = [
        part
        for size in [*TINY_STUDY, "pretrain.save_every=3", "ppo.save_every=1"]
        for part in ("--set", size)
    ]
    command = [sys.executable, "-m", "tldr", "study", "run", "configs/toy.yaml", "--runs", str(runs), *sizes]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, env={**os.environ})


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the runner and to every run of it, all at once."""
    everyone = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for one in everyone:
        one.send_signal(signal.SIGKILL)
    process.wait()


def outputs(runs: Path) -> dict[str, dict[str, str]]:
    """What each finished run wrote, by the run's name."""
    return {
        done.parent.name: json.loads(done.read_text())["outputs"] for done in sorted(runs.glob("toy/*/DONE"))
    }


@pytest.mark.slow
def test_killed_study_equals_uninterrupted(tmp_path: Path) -> None:
    assert start(tmp_path / "whole").wait() == 0
    rng = random.Random(1)
    kills = 0
    while kills < 12:
        process = start(tmp_path / "killed")
        time.sleep(rng.uniform(4.5, 7))  # importing takes some four of these
        if process.poll() is not None:
            break
        kill(process)
        kills += 1
    assert kills >= 4, "the study was too short to be killed"
    assert start(tmp_path / "killed").wait() == 0
    whole, killed = outputs(tmp_path / "whole"), outputs(tmp_path / "killed")
    assert len(whole) > 30 and whole == killed
