"""Sampling and scoring in two processes: whole batches are shared; files have the bytes of one process."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.stages import forks
from tests.stages import lab as laboratory
from tldr.stages.judge.settings import JudgeSettings
from tldr.stages.labels.settings import LabelsSettings
from tldr.study.registry import STAGES
from tldr.train.crew import Crew

SPREAD = ("labels", "epoch", "sample", "score", "best_of_n", "pairs", "judge")
TOKENS = 700
"""Of a batch: about five queries with their responses, so that there are many batches."""


def run(lab: Path, out: Path, processes: int) -> Path:
    folders = [forks.prepare(stage, lab, out / stage) for stage in SPREAD]
    forks.finish(*folders, processes=processes, tokens=TOKENS)
    return out


@pytest.fixture(scope="module")
def runs(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """All stages that several processes can share, run by one and by two."""
    one, two = (run(lab, tmp_path_factory.mktemp(f"by{count}"), count) for count in (1, 2))
    return one, two


@pytest.mark.parametrize("stage", SPREAD)
def test_two_processes_write_the_bytes_of_one(runs: tuple[Path, Path], stage: str) -> None:
    one, two = (
        {path.name: path.read_bytes() for path in sorted((out / stage).glob("*.jsonl"))} for out in runs
    )
    assert one == two and one, stage
    done = [json.loads((out / stage / "DONE").read_text()) for out in runs]
    assert done[0] == done[1], "the same files, and no others"


@pytest.mark.parametrize("stage", SPREAD)
def test_the_processes_share_the_batches(runs: tuple[Path, Path], stage: str) -> None:
    taken = []
    for out in runs:
        log = (out / stage / "log.txt").read_text()
        rows = re.findall(r"process (\d) of (\d): (\d+) batches", log)
        taken.append(Counter[str]())
        for index, _, count in rows:
            taken[-1][index] += int(count)
    assert set(taken[0]) == {"0"} and set(taken[1]) == {"0", "1"}
    assert taken[1].total() == taken[0].total() and min(taken[1].values()) >= 0.3 * taken[0].total()


def test_every_stage_that_can_is_shared() -> None:
    assert {name for name, stage in STAGES.items() if stage.spread} == set(SPREAD)
    trained = {"pretrain", "sft", "reward", "ppo"}
    settings = laboratory.SETTINGS
    assert {name for name in settings if STAGES[name].in_processes(settings[name])} == trained | set(SPREAD)


def test_what_asks_people_or_an_endpoint_is_one_process() -> None:
    people = LabelsSettings(kind="people")
    model = JudgeSettings(kind="openai", model="m", price="0/0")
    assert not STAGES["labels"].in_processes(people)
    assert not STAGES["judge"].in_processes(JudgeSettings(kind="people"))
    assert not STAGES["judge"].in_processes(model)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_each_batch_is_one_processs(count: int) -> None:
    batches = list(range(11))
    parts = [Crew(index, count).own(batches) for index in range(count)]
    assert sorted(batch for part in parts for batch in part) == batches
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_without_a_launcher_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert Crew.of_run() == Crew(0, 1) and Crew().all_of({3: "x"}) == {3: "x"}
    assert "RANK" not in os.environ
