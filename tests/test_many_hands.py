"""Several processes on one file at once: nothing is lost, nothing is half written, no traceback.

The acts are in tests/races.py; docs/many-processes.md lists the files.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from tests import races
from tldr.records import Judgement, read_records
from tldr.stages.data.settings import DataSettings
from tldr.study.folder import RunFile
from tldr.toy.settings import ToyData

Race = Callable[[str, Path, int], None]
FEW, MANY = (4, 3), (8, 20)
"""Processes and rounds: in every run of the tests, and in the slow ones."""


@pytest.fixture(scope="module", params=[FEW, pytest.param(MANY, marks=pytest.mark.slow)], ids=["few", "many"])
def hands(request: pytest.FixtureRequest) -> Iterator[tuple[int, int, ProcessPoolExecutor]]:
    """Processes that start every round together, and the number of rounds."""
    count, rounds = request.param
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(count)
    with ProcessPoolExecutor(count, context, initializer=races.begin, initargs=(barrier,)) as pool:
        yield count, rounds, pool


@pytest.fixture
def run(hands: tuple[int, int, ProcessPoolExecutor], tmp_path: Path) -> Callable[[str], list[Path]]:
    """Let all processes do an act in every round, after `prepare` made its folder; the folders."""
    count, rounds, pool = hands

    def call(act: str, prepare: Callable[[Path], None] = lambda _: None) -> list[Path]:
        places = [tmp_path / str(number) for number in range(rounds)]
        for place in places:
            prepare(place)
        futures = [pool.submit(races.take_part, act, tmp_path, who, rounds) for who in range(count)]
        failures = [text for future in futures for text in future.result(600)]
        assert not failures, f"{len(failures)} failed, the first:\n{failures[0]}"
        assert not races.left_behind(tmp_path)
        return places

    return call


@pytest.mark.parametrize("act", ["one_json", "memory_of_hashes", "sets", "probes"])
def test_the_last_writer_wins_as_a_whole(run: Callable[..., list[Path]], act: str) -> None:
    run(act)


def test_two_judges_into_one_file_lose_no_verdict(
    run: Callable[..., list[Path]], hands: tuple[int, int, ProcessPoolExecutor]
) -> None:
    for place in run("judgements"):
        rows = read_records(place / "out.jsonl", Judgement)
        assert len(rows) == 40 * hands[0] and len({row.judge for row in rows}) == hands[0]


def test_a_question_is_asked_once_by_all_processes(run: Callable[..., list[Path]]) -> None:
    for place in run("answers", lambda place: place.mkdir()):
        assert sorted((place / "asked").read_text().split()) == list("01234")


def test_a_run_is_executed_by_one_process(run: Callable[..., list[Path]]) -> None:
    settings = DataSettings(data=ToyData()).model_dump(mode="json")

    def prepare(place: Path) -> None:
        RunFile(stage="data", settings=settings, title="data").write(place / "data-0123456789")
        (place / "behaviour.json").write_text("{}")

    for place in run("one_run", prepare):
        assert (place / "events.txt").read_text().splitlines() == ["start data 0", "end data"]


def test_two_commands_with_one_out_do_not_run_each_others_settings(run: Callable[..., list[Path]]) -> None:
    for place in run("one_place", lambda place: place.mkdir()):
        assert (place / "run" / "run.json").exists()


def test_a_stale_run_is_set_aside_once(run: Callable[..., list[Path]]) -> None:
    def prepare(place: Path) -> None:
        folder = place / "sft-s-s0-0123456789"
        RunFile(stage="sft", settings={}).write(folder)
        (folder / "DONE").write_text("{")

    for place in run("aside", prepare):
        assert len((place / "moved").read_text().split()) == 1
        assert [path.name for path in (place / "set-aside").iterdir()] == ["sft-s-s0-0123456789.1"]


def test_what_is_added_to_a_note_is_kept(
    run: Callable[..., list[Path]], hands: tuple[int, int, ProcessPoolExecutor]
) -> None:
    for place in run("note"):
        assert len(json.loads((place / "submitted.json").read_text())) == hands[0]


def test_a_checkpoint_is_one_processs_own(run: Callable[..., list[Path]]) -> None:
    for place in run("checkpoint"):
        files = list((place / "policy").iterdir())
        assert len(files) == 2 and len({file.read_text() for file in files}) == 1


def test_lines_are_added_whole(
    run: Callable[..., list[Path]], hands: tuple[int, int, ProcessPoolExecutor]
) -> None:
    for place in run("lines"):
        rows = [json.loads(line) for line in (place / "bench.jsonl").read_text().splitlines()]
        assert len(rows) == 20 * hands[0]
