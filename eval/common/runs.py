"""A study's folder as data: its runs, their states and their files.

``study.json`` at the top of the folder names the runs; a folder without one is taken as samples
made elsewhere, one run per folder that holds ``samples.jsonl``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from eval.common.io import SAMPLES_FILE, load_posts, load_samples
from tldr.errors import RecordError, UsageError
from tldr.files import distinct, files_below
from tldr.strict_json import BOM, numbered_lines, parse_json, parse_object

STUDY_FILE = "study.json"
POSTS_FILE = "valid2.jsonl"
NEWS = "cnndm"
"""`dataset` of runs on news articles, which are in ``cnndm.jsonl``; that of runs on posts is ""."""


@dataclass(frozen=True)
class StudyRun:
    """One row of ``study.json``: a stage at a size, seed and variant, and where its files lie."""

    run: str
    stage: str
    folder: Path
    size: str = ""
    seed: int | None = None
    variant: str = ""
    dataset: str = ""
    params: float | None = None
    parents: dict[str, str] = field(default_factory=dict)
    key: str = ""
    finished: bool = True

    @property
    def state(self) -> str:
        """Its state: finished, failed, or not finished."""
        failed = (self.folder / "FAILED").is_file()
        return "finished" if self.finished else "failed" if failed else "not finished"

    def json(self, name: str) -> dict[str, Any] | None:
        """A JSON object the run wrote, or None where it wrote no such file.

        Raises:
            RecordError: the file holds something else.
        """
        return _read_json(self.folder / name, dict) if (self.folder / name).is_file() else None


@dataclass(frozen=True)
class StudyRuns:
    """All runs of a study folder."""

    folder: Path
    runs: tuple[StudyRun, ...]
    named: bool = True
    """Whether a ``study.json`` named them."""

    def finished(self, stage: str) -> list[StudyRun]:
        """The finished runs of a stage, in the study's order; those on news are left out."""
        return [run for run in self.runs if run.stage == stage and run.finished and not run.dataset]

    def sampled(self) -> list[StudyRun]:
        """Finished runs with samples; unscored samples give way to the score run made from them."""
        done = [run for run in self.runs if run.stage == "score" and run.finished]
        scored = {parent for run in done for parent in run.parents.values()}
        return [
            run
            for run in self.runs
            if run.finished and (run.folder / SAMPLES_FILE).is_file() and not {run.run, run.key} & scored
        ]


def _read_json(path: Path, kind: type | tuple[type, ...]) -> Any:
    try:
        data = parse_json(path.read_bytes().removeprefix(BOM))
    except ValueError as error:
        raise RecordError(str(error), where=path) from None
    if not isinstance(data, kind):
        raise RecordError(f"not the expected JSON: a {type(data).__name__}", where=path)
    return data


def load_runs(folder: Path, listing: Mapping[str, Any] | None = None) -> StudyRuns:
    """Read a study's folder.

    Args:
        listing: what its ``study.json`` should contain now; by default what it contains.

    Raises:
        UsageError: no such folder. RecordError: a broken ``study.json``.
    """
    if not folder.is_dir():
        raise UsageError(
            "no such folder of runs", where=folder, remedy="give the folder the study was run in"
        )
    file = folder / STUDY_FILE
    if listing is None and not file.is_file():
        places = sorted(path.parent for path in distinct(files_below(folder, SAMPLES_FILE)))
        return StudyRuns(
            folder, tuple(StudyRun(place.name, "samples", place) for place in places), named=False
        )
    data = _read_json(file, (list, dict)) if listing is None else listing
    rows = data if isinstance(data, list) else data.get("runs", [])
    return StudyRuns(folder, tuple(_run(folder, row, file) for row in rows))


def _run(folder: Path, row: dict[str, Any], listing: Path) -> StudyRun:
    try:
        place = folder / row["folder"]
        return StudyRun(
            run=row["run"],
            stage=row["stage"],
            folder=place,
            size=row.get("size") or "",
            seed=row.get("seed"),
            variant=row.get("variant") or "",
            dataset=row.get("dataset") or "",
            params=row.get("params"),
            parents=row.get("parents") or {},
            key=row.get("key") or "",
            finished=(place / "DONE").is_file(),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"a run without its fields: {error!r}", where=listing) from None


def study_samples(study: StudyRuns, dataset: str = "") -> pd.DataFrame | None:
    """All samples of the finished runs, named after them; None if nothing was sampled.

    What the samples' tags leave open (variant, params) is filled from ``study.json``.

    Args:
        dataset: what they summarize: "" posts, `NEWS` articles. The two are never in one table.
    """
    tables = []
    for run in study.sampled():
        if run.dataset not in ("", dataset):
            continue
        table = load_samples(run.folder / SAMPLES_FILE).assign(run=run.run)
        if "tag.dataset" in table:
            table = table[table["tag.dataset"].fillna("") == dataset].drop(columns="tag.dataset")
        elif dataset:
            continue
        for tag, value in (("tag.variant", run.variant or None), ("tag.params", run.params)):
            if tag not in table and value is not None:
                table[tag] = value
        tables.append(table)
    tables = [table for table in tables if len(table)]
    return pd.concat(tables, ignore_index=True) if tables else None


def study_posts(study: StudyRuns, name: str = POSTS_FILE) -> pd.DataFrame | None:
    """The reporting posts (or articles) of the study's data run, or beside its samples."""
    places = [run.folder / name for run in study.finished("data")] + [study.folder / name]
    present = [place for place in places if place.is_file()]
    return load_posts(present[0]) if present else None


def training_metrics(runs: list[StudyRun]) -> pd.DataFrame | None:
    """The rows of every run's ``metrics.jsonl`` that count episodes, with the run's name, size and seed.

    Raises:
        RecordError: a broken line.
    """
    rows: list[dict[str, Any]] = []
    for run in runs:
        path = run.folder / "metrics.jsonl"
        lines = path.read_bytes().split(b"\n") if path.is_file() else []
        names = {
            "run": run.run,
            "size": run.size,
            "seed": run.seed,
            "variant": run.variant,
            "params": run.params,
        }
        for number, line in numbered_lines(lines):
            if not line:
                continue
            try:
                row = parse_object(line)
            except ValueError as error:
                raise RecordError(str(error), where=f"{path}:{number}") from None
            if "episodes" in row:
                rows.append({**row, **names})
    return pd.DataFrame(rows) if rows else None
