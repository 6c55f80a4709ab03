"""Killed at any moment, in any stage, and run again, a run ends with the bytes of one left alone.

The short form is an ordinary test, the long one slow: ``pytest -m slow tests/stages/test_kills.py -s`` prints
a table of its kills.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.stages import forks
from tests.stages.lab import TRAINED
from tldr.errors import DiskFullError
from tldr.study.folder import last_error

CHANGES: dict[str, dict[str, Any]] = {
    "pretrain": {"save_every": 2},
    "sft": {"save_every": 2, "select": "valid_loss"},
    "reward": {"save_every": 2},
    "ppo": {"save_every": 1, "save_steps": 1, "episodes": 96},
}
STAGES = ("pretrain", "sft", "labels", "reward", "ppo", "best_of_n", "sample", "score")
Moment = Callable[[Path], bool]


def states(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "state").glob("step-*"))


def saving(folder: Path) -> bool:
    """While a state is being written."""
    return any(name.endswith(".partial") for name in states(folder))


def inside(folder: Path) -> bool:
    """Inside the epochs of a PPO iteration."""
    return any(name.count("-") == 2 for name in states(folder))


def rows(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


@dataclass(frozen=True)
class Kill:
    """One kill of the table."""

    stage: str
    signal: str
    moment: str
    went_on_from: str
    status: int


class Victims:
    """Runs that are killed, and what they should come to."""

    def __init__(self, lab: Path, root: Path, seed: int):
        self.lab, self.root, self.rng = lab, root, random.Random(seed)
        self.whole: dict[str, dict[str, str]] = {}
        self.seconds: dict[str, float] = {}
        self.kills: list[Kill] = []

    def expected(self, stage: str) -> dict[str, str]:
        """The hashes of what an uninterrupted run writes."""
        if stage not in self.whole:
            folder = forks.prepare(stage, self.lab, self.root / f"{stage}-whole", CHANGES.get(stage))
            forks.finish()  # The first process waits for imports: many times what a stage takes.
            started = time.monotonic()
            forks.finish(folder)
            self.seconds[stage] = time.monotonic() - started
            self.whole[stage] = outputs(folder)
        return self.whole[stage]

    def moment(self, stage: str, folder: Path) -> tuple[str, Moment]:
        """A moment drawn at random: a time, or where something is going on."""
        kinds = (
            ["time"]
            + (["saving", "row"] if stage in TRAINED else [])
            + (["inside"] if stage == "ppo" else [])
        )
        kind, start = self.rng.choice(kinds), time.monotonic()
        if kind == "time":
            end = start + self.rng.uniform(0.0, self.seconds[stage])
            return f"after {end - start:.2f} s", lambda _: time.monotonic() >= end
        wanted, pause = rows(folder) + self.rng.randint(0, 2), self.rng.uniform(0.0, 0.02)

        def at(place: Path) -> bool:
            now = rows(place)
            if kind == "row":
                return now > wanted and not time.sleep(pause)  # type: ignore[func-returns-value]
            return now >= wanted and (saving(place) if kind == "saving" else inside(place))

        return f"{kind}, from row {wanted}", at

    def attack(self, stage: str, kills: int) -> None:
        """Kill runs of a stage so often in all, let them end, and compare."""
        expected, before, tries = self.expected(stage), len(self.kills), 0
        while (left := before + kills - len(self.kills)) > 0:
            tries += 1
            assert tries <= 10, "the runs end before they can be killed"
            folder = forks.prepare(
                stage, self.lab, self.root / f"{stage}-{before}-{tries}", CHANGES.get(stage)
            )
            for _ in range(left):
                self.kill(stage, folder)
            forks.finish(folder)
            assert outputs(folder) == expected, [kill for kill in self.kills if kill.stage == stage]

    def kill(self, stage: str, folder: Path) -> None:
        """Go on with a run up to a moment drawn at random, unless it ends before."""
        name, moment = self.moment(stage, folder)
        sent = self.rng.choice([signal.SIGKILL, signal.SIGTERM])
        (process,) = forks.start(folder)
        while process.is_alive() and not moment(folder):
            time.sleep(0.0003)
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, sent)
        process.join()
        if (folder / "DONE").exists():
            # The run that was timed may have had less of the machine.
            self.seconds[stage] *= 0.7
            return
        # A SIGTERM before the stage has begun ends the process as it ends any other.
        ends = {signal.SIGKILL: (-signal.SIGKILL,), signal.SIGTERM: (143, -signal.SIGTERM)}[sent]
        assert process.exitcode in ends, (folder / "log.txt").read_text()[-2000:]
        sound = [state for state in states(folder) if not state.endswith(".partial")]
        self.kills.append(Kill(stage, sent.name, name, sound[-1] if sound else "the start", process.exitcode))


def outputs(folder: Path) -> dict[str, str]:
    hashes: dict[str, str] = json.loads((folder / "DONE").read_text())["outputs"]
    return hashes


@pytest.mark.parametrize(("stage", "kills"), [("ppo", 3), ("sft", 2), ("labels", 1)])
def test_a_few_kills(lab: Path, tmp_path: Path, stage: str, kills: int) -> None:
    victims = Victims(lab, tmp_path, seed=time.time_ns())
    victims.attack(stage, kills)
    print(*victims.kills, sep="\n")


@pytest.mark.slow
def test_many_kills(lab: Path, tmp_path: Path) -> None:
    victims = Victims(lab, tmp_path, seed=1)
    while len(victims.kills) < 30:
        for stage in STAGES:
            victims.attack(stage, 3 if stage in TRAINED else 1)
    for kill in victims.kills:
        print(
            f"| {kill.stage} | {kill.signal} | {kill.moment} | {kill.went_on_from} | {kill.status} | equal |"
        )
    assert any(kill.went_on_from.count("-") == 2 for kill in victims.kills), "none inside an iteration"


def test_a_full_disk_stops_with_the_reason_and_the_run_goes_on_later(lab: Path, tmp_path: Path) -> None:
    """No file may grow any more from the first update on: what is saved next cannot be."""
    whole, full = (forks.prepare("sft", lab, tmp_path / name, CHANGES["sft"]) for name in ("whole", "full"))
    forks.finish(whole)
    (process,) = forks.start(full)
    while not (states(full) and rows(full) >= 3):
        assert process.is_alive()
        time.sleep(0.0003)
    resource.prlimit(process.pid or 0, resource.RLIMIT_FSIZE, (4096, 4096))
    process.join()
    assert process.exitcode == DiskFullError.exit_code
    assert "File too large" in (last_error(full) or ""), (full / "log.txt").read_text()[-2000:]
    assert states(full) and not any(name.endswith(".partial") for name in states(full))
    forks.finish(full)
    assert outputs(full) == outputs(whole)


def test_a_lost_process_ends_the_other(lab: Path, tmp_path: Path) -> None:
    folder = forks.prepare("sft", lab, tmp_path / "sft", CHANGES["sft"])
    ranks = forks.start(folder, processes=2)
    while rows(folder) < 1:
        assert ranks[1].is_alive()
        time.sleep(0.0003)
    ranks[1].kill()
    ranks[0].join(60)
    assert ranks[0].exitcode not in (0, None) and not (folder / "DONE").exists()
    forks.finish(folder, processes=2)


def test_two_processes_stopped_inside_an_iteration_go_on_with_the_same_bits(
    lab: Path, tmp_path: Path
) -> None:
    """SIGTERM reaches one of the two; both save and end, and both go on."""
    whole, stopped = (
        forks.prepare("ppo", lab, tmp_path / name, CHANGES["ppo"]) for name in ("whole", "stopped")
    )
    forks.finish(whole, processes=2)
    ranks = forks.start(stopped, processes=2)
    while not (rows(stopped) >= 1 and inside(stopped)):
        assert ranks[1].is_alive()
        time.sleep(0.0003)
    ranks[1].terminate()
    for rank in ranks:
        rank.join()
    assert [rank.exitcode for rank in ranks] == [143, 143], (stopped / "log.txt").read_text()[-2000:]
    forks.finish(stopped, processes=2)
    assert outputs(stopped) == outputs(whole)
