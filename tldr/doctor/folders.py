"""The folders that are examined: a study's runs, or one run with all that it was made from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tldr.errors import RecordError, UsageError
from tldr.study.folder import RUN, RunFile
from tldr.study.status import run_folders
from tldr.train.metrics import Row, read_metrics

STUDY_FILE = "study.json"


@dataclass(frozen=True, eq=False)
class Examined:
    """A run as it was left behind; what it holds is read when it is asked for, and once."""

    folder: Path
    file: RunFile
    case: Case = field(repr=False)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def stage(self) -> str:
        """Which stage it is a run of."""
        return self.file.stage

    @property
    def settings(self) -> dict[str, Any]:
        """The stage's settings."""
        return self.file.settings

    @cached_property
    def parents(self) -> dict[str, Examined]:
        """The runs that it reads, by the input's name; folders that hold no run are left out."""
        places = {name: Path(place) for name, place in self.file.inputs.items()}
        places |= {name: self.folder.parent / parent.run for name, parent in self.file.parents.items()}
        return {name: self.case.open(place) for name, place in places.items() if (place / RUN).is_file()}

    @cached_property
    def metrics(self) -> list[Row]:
        """Its log, one row an update; [] where it has none."""
        return read_metrics(self.folder / "metrics.jsonl")

    def json(self, name: str) -> dict[str, Any]:
        """A JSON object in its folder; {} where there is no such file.

        Raises:
            RecordError: the file holds something else.
        """
        path = self.folder / name
        if not path.is_file():
            return {}
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RecordError(f"broken JSON: {error}", where=path) from None
        if not isinstance(data, dict):
            raise RecordError(f"not a JSON object but a {type(data).__name__}", where=path)
        return data


@dataclass(frozen=True, eq=False)
class Case:
    """What is examined: `runs`, and the folders `beside` them, which hold what they are compared with."""

    runs: list[Examined] = field(default_factory=list)
    beside: list[Path] = field(default_factory=list)
    opened: dict[Path, Examined] = field(default_factory=dict, repr=False)

    def open(self, folder: Path) -> Examined:
        """A run's folder; the same object for the same folder.

        Raises:
            UsageError: it holds no run.
        """
        folder = folder.resolve()
        if folder not in self.opened:
            self.opened[folder] = Examined(folder, RunFile.read(folder), self)
        return self.opened[folder]

    @cached_property
    def all(self) -> list[Examined]:
        """Every run of the study, examined or not."""
        return [self.open(folder) for folder in self.beside]


def open_case(place: Path) -> Case:
    """A study's folder: all its runs, as `study.json` lists them; a run's: it and what it was made from.

    Raises:
        UsageError: neither.
    """
    if (place / RUN).is_file():
        case = Case(beside=run_folders(place.resolve().parent))
        case.runs.extend(_with_ancestors(case.open(place)))
        return case
    folders = run_folders(place)
    if not folders:
        remedy = "give a run's folder, a study's, or a study file that was run"
        raise UsageError("holds neither a run nor runs", where=place, remedy=remedy)
    if (place / STUDY_FILE).is_file():
        listed = {row["folder"] for row in json.loads((place / STUDY_FILE).read_text("utf-8"))["runs"]}
        folders = [folder for folder in folders if folder.name in listed] or folders
    case = Case(beside=folders)
    case.runs.extend(case.all)
    return case


def _with_ancestors(run: Examined) -> Iterator[Examined]:
    found: dict[Path, Examined] = {}
    todo = [run]
    while todo:
        one = todo.pop()
        if one.folder not in found:
            found[one.folder] = one
            todo += one.parents.values()
    return reversed(found.values())
