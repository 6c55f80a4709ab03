"""Logs of a run: ``metrics.jsonl``, with one row per update, and ``progress.json``."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from tldr.errors import NonFiniteError, RecordError
from tldr.files import write_text
from tldr.records import write_json
from tldr.strict_json import dump_json, parse_object

MetricsRow = dict[str, float]
"""One update's figures; ``update`` counts from 1."""

TIMES = frozenset({"seconds", "tokens_per_s", "mfu"})
"""The columns that differ between two runs of the same seed."""


def read_metrics(path: Path) -> list[MetricsRow]:
    """The rows of a log, without a last line that is incomplete because the process was killed.

    NaN is read, although no stage writes it: the doctor looks for it.

    Raises:
        RecordError: any other line is invalid.
    """
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = parse_object(line, nan=True)
            if "update" not in row:
                raise ValueError("no 'update'")
            if odd := [name for name, value in row.items() if type(value) not in (int, float)]:
                raise ValueError(f"{odd[0]} is no number")
        except ValueError as error:
            raise RecordError(
                str(error), where=f"{path}:{number}", remedy="remove the run's folder to start it again"
            ) from None
        rows.append(row)
    return rows


class MetricsLog:
    """Appends rows to a log, after removing rows beyond the update that the run resumes from.

    Args:
        path: None in a process that writes no log.
        resumed: the last update whose row is kept.
    """

    def __init__(self, path: Path | None, resumed: int = 0):
        self.kept: list[MetricsRow] = []
        if path is not None:
            self.kept = [row for row in read_metrics(path) if row["update"] <= resumed]
            write_text(path, "".join(map(_line, self.kept)), durable=False)
        self._file = (path or Path(os.devnull)).open("a", encoding="utf-8")
        self._real = path is not None

    def append(self, row: Mapping[str, float]) -> None:
        """Write one row; it is visible to other processes at once.

        Raises:
            NonFiniteError: a figure is NaN or infinite.
        """
        self._file.write(_line(row))
        self._file.flush()

    def sync(self) -> None:
        """Flush all rows to disk, before a state is saved that relies on them."""
        if self._real:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _line(row: Mapping[str, float]) -> str:
    try:
        return dump_json(dict(row)) + "\n"
    except ValueError as error:
        raise NonFiniteError(f"the row of update {row.get('update')} cannot be written: {error}") from None


class Progress:
    """Updates ``progress.json`` in a run's folder about once a second.

    It contains `done` and `total` (updates, or whatever the stage counts), the running time `seconds`
    including earlier attempts, `eta` in seconds at this process's pace, and the latest `loss`.
    """

    def __init__(self, folder: Path, total: int, done: int = 0, seconds: float = 0.0):
        self._path = folder / "progress.json"
        self._total, self._first, self._before = total, done, seconds
        self._start = time.monotonic()
        self._written = float("-inf")

    @property
    def seconds(self) -> float:
        """Running time so far in seconds, including time before a resumption."""
        return self._before + time.monotonic() - self._start

    def update(self, done: int, loss: float | None = None) -> None:
        """Record that `done` of the total are done; completion is always written."""
        now = time.monotonic()
        if now - self._written < 1 and done < self._total:
            return
        self._written = now
        pace = (now - self._start) / max(done - self._first, 1)
        figures = {
            "done": done,
            "total": self._total,
            "seconds": round(self.seconds, 3),
            "eta": round(pace * (self._total - done), 3),
            "loss": loss,
        }
        write_json(self._path, figures)
