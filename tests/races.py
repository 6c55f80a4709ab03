"""What several processes do at once to one file, for tests/test_many_hands.py; no torch is imported.

Every act gets a folder that all processes share, and the number of the process. It raises if anything is lost
or half written.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
import types
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from threading import BrokenBarrierError
from typing import Any

from tldr.errors import UsageError
from tldr.files import PARTIAL, replacing_folder
from tldr.locks import Busy, locked
from tldr.records import Judgement, read_records, write_json, write_records

_barrier: Any = None


def begin(barrier: Any) -> None:
    """The start of a process of the pool."""
    global _barrier
    _barrier = barrier


def take_part(act: str, root: Path, who: int, rounds: int) -> list[str]:
    """Do an act at the same time as the other processes, several times; the tracebacks."""
    failures = []
    for number in range(rounds):
        place = root / str(number)
        with suppress(BrokenBarrierError):
            _barrier.wait(60)
        try:
            ACTS[act](place, who)
        except Exception:
            failures.append(traceback.format_exc())
    return failures


def one_json(place: Path, who: int) -> None:
    """``study.json``, ``listing.json``, a run's ``run.json``: the last writer wins as a whole."""
    path = place / "study.json"
    for turn in range(5):
        write_json(path, {"who": [who] * 2000, "turn": turn})
        read = json.loads(path.read_text(encoding="utf-8"))
        assert len(set(read["who"])) == 1 and len(read["who"]) == 2000


def verdict(who: int, number: int, order: list[int]) -> Judgement:
    policies = ["sft", "reference"]
    return Judgement(
        id=f"p{number}", policies=policies, order=order, judge=f"judge-{who}", verdict="A", runs=["r"]
    )


def judgements(place: Path, who: int) -> None:
    """``judge --out``: each process adds its own verdicts, and none are lost."""
    from tldr.cli.judge import _merge_into

    own = [verdict(who, number, order) for number in range(20) for order in ([0, 1], [1, 0])]
    _merge_into(place / "out.jsonl", own)
    there = read_records(place / "out.jsonl", Judgement)
    assert sum(row.judge == f"judge-{who}" for row in there) == len(own)


def answers(place: Path, who: int) -> None:
    """The judge's cache of answers: made, claimed and filled at once."""
    from tldr.judge.cache import Answer, Cache, JudgeQuestion

    cache = Cache(place / "cache.sqlite")
    try:
        for number in range(5):
            question = JudgeQuestion("m", "e", f"prompt {number}", {})
            with cache.claim(question):
                if cache.get(question) is None:
                    cache.put(question, Answer(f"{who}"))
                    with (place / "asked").open("a") as asked:
                        asked.write(f"{number}\n")
        keys = [JudgeQuestion("m", "e", f"prompt {number}", {}) for number in range(5)]
        assert len(cache.known(keys)) == 5
    finally:
        cache.close()


def memory_of_hashes(place: Path, who: int) -> None:
    """``hashes.json``: a memory only, but always one that can be read."""
    from tldr.study import hashes as module
    from tldr.study.hashes import FileHashes

    module.SETTLED_NS = -(2**62)  # files that have just been written are remembered, too
    file = place / f"file-{who}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(str(who))
    hashes = FileHashes(place / "hashes.json")
    hashes.file(file)
    hashes.save()
    json.loads((place / "hashes.json").read_text(encoding="utf-8"))


def one_run(place: Path, who: int) -> None:
    """A run's folder: one process executes it; the others are told who does, or find it done."""
    from tests.study.fake_stages import fake_all
    from tldr.study.folder import DONE, execute

    fake_all()
    without_tokens: Any = types.ModuleType("tldr.queries.tokenized")
    without_tokens.keep_tokens = lambda _: nullcontext()
    sys.modules["tldr.queries.tokenized"] = without_tokens  # it would import transformers
    folder = place / "data-0123456789"
    try:
        execute(folder)
    except Busy as busy:
        assert "is executing this run" in busy.what
    else:
        assert (folder / DONE).exists()


def one_place(place: Path, who: int) -> None:
    """Two commands with different settings and one ``--out``: one gets it, the other is refused."""
    from tldr.cli.stages import _claim
    from tldr.study.folder import RunFile

    spec = RunFile(stage="sft", settings={}, ingredients={"offset": who})
    with suppress(Busy, UsageError):
        _claim(spec, place / "run")
        assert json.loads((place / "run" / "run.json").read_text())["ingredients"] == {"offset": who}


def aside(place: Path, who: int) -> None:
    """A stale run is set aside once, by one of the processes."""
    from tldr.study.hashes import FileHashes
    from tldr.study.status import set_aside

    with suppress(Busy):
        if set_aside(place / "sft-s-s0-0123456789", FileHashes()):
            with (place / "moved").open("a") as moved:
                moved.write(f"{who}\n")


def note(place: Path, who: int) -> None:
    """``submitted.json``, a fetch's ``manifest.json``: read and written under a lock, nothing is lost."""
    place.mkdir(parents=True, exist_ok=True)
    path = place / "submitted.json"
    with locked(place / ".lock", "adding a line", waiting=lambda _: None):
        before = json.loads(path.read_text()) if path.exists() else {}
        time.sleep(0.001)
        write_json(path, before | {str(who): who})


def checkpoint(place: Path, who: int) -> None:
    """``import-gguf --out``: the folder of the last one, whole."""
    with replacing_folder(place / "policy") as partial:
        for name in ("config.json", "model.safetensors"):
            (partial / name).write_text(str(who))


def lines(place: Path, who: int) -> None:
    """``bench --out``: lines are added whole."""
    from tldr.cli.bench import append

    place.mkdir(parents=True, exist_ok=True)
    for _ in range(20):
        append(place / "bench.jsonl", {"who": who, "text": "x" * 3000})


def probes(place: Path, who: int) -> None:
    """``study status`` beside a starting run: the run is never turned away."""
    from tldr.study.folder import is_busy, locked

    place.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 0.15
    while time.monotonic() < end:
        if who:
            is_busy(place)
        else:
            with locked(place):
                pass


def sets(place: Path, who: int) -> None:
    """``data split --out`` and the like: files of records."""
    write_records(place / "sft.jsonl", [verdict(who, number, [0, 1]) for number in range(200)])
    assert len({row.judge for row in read_records(place / "sft.jsonl", Judgement)}) == 1


ACTS: dict[str, Callable[[Path, int], None]] = {
    act.__name__: act
    for act in (
        one_json, judgements, answers, memory_of_hashes, one_run, one_place, aside, note, checkpoint, lines,
        probes, sets,
    )
}  # fmt: skip


def left_behind(root: Path) -> list[Path]:
    """Temporary files that were not removed."""
    return list(root.rglob(f"*{PARTIAL}"))
