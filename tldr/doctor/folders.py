"""The folders to examine: a study's runs, or one run with all its ancestors."""

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
from tldr.train.metrics import MetricsRow, read_metrics

STUDY_FILE = "study.json"


@dataclass(frozen=True, eq=False)
class Examined:
    """A run's folder; its files are read on demand, and only once."""

    folder: Path
    file: RunFile
    examination: Examination = field(repr=False)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def stage(self) -> str:
        """The run's stage."""
        return self.file.stage

    @property
    def settings(self) -> dict[str, Any]:
        """The stage's settings."""
        return self.file.settings

    @cached_property
    def parents(self) -> dict[str, Examined]:
        """The runs that it reads, by the input's name; inputs that are not runs are left out."""
        places = {name: Path(place) for name, place in self.file.inputs.items()}
        places |= {name: self.folder.parent / parent.run for name, parent in self.file.parents.items()}
        return {
            name: self.examination.open(place) for name, place in places.items() if (place / RUN).is_file()
        }

    @cached_property
    def metrics(self) -> list[MetricsRow]:
        """Its log, one row per update; [] if it has none."""
        return read_metrics(self.folder / "metrics.jsonl")

    def json(self, name: str) -> dict[str, Any]:
        """A JSON object in its folder; {} if the file does not exist.

        Raises:
            RecordError: the file is not a JSON object.
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
class Examination:
    """One examination: the `runs` to examine, and all run folders `beside` them, for comparisons."""

    runs: list[Examined] = field(default_factory=list)
    beside: list[Path] = field(default_factory=list)
    opened: dict[Path, Examined] = field(default_factory=dict, repr=False)

    def open(self, folder: Path) -> Examined:
        """The run in a folder; the same object for the same folder.

        Raises:
            UsageError: the folder contains no run.
        """
        folder = folder.resolve()
        if folder not in self.opened:
            self.opened[folder] = Examined(folder, RunFile.read(folder), self)
        return self.opened[folder]

    @cached_property
    def all(self) -> list[Examined]:
        """Every run of the study, examined or not."""
        return [self.open(folder) for folder in self.beside]


def open_examination(place: Path) -> Examination:
    """All runs of a study's folder (as listed in `study.json`), or a run's folder and its ancestors.

    Raises:
        UsageError: the folder is neither.
    """
    if (place / RUN).is_file():
        examination = Examination(beside=run_folders(place.resolve().parent))
        examination.runs.extend(_with_ancestors(examination.open(place)))
        return examination
    folders = run_folders(place)
    if not folders:
        remedy = "give a run's folder, a study's folder, or the file of a study that was run"
        raise UsageError("contains no run", where=place, remedy=remedy)
    if (place / STUDY_FILE).is_file():
        listed = {row["folder"] for row in json.loads((place / STUDY_FILE).read_text("utf-8"))["runs"]}
        folders = [folder for folder in folders if folder.name in listed] or folders
    examination = Examination(beside=folders)
    examination.runs.extend(examination.all)
    return examination


def _with_ancestors(run: Examined) -> Iterator[Examined]:
    found: dict[Path, Examined] = {}
    todo = [run]
    while todo:
        ancestor = todo.pop()
        if ancestor.folder not in found:
            found[ancestor.folder] = ancestor
            todo += ancestor.parents.values()
    return reversed(found.values())
