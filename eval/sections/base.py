"""What every section of a report is made of, and what it draws on."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from eval.paper import load_paper
from eval.runs import StudyRuns, study_posts, study_samples
from eval.tables import wide

NOT_RUN = "Not run here."
SCORER_NAMES = {"gold": "planted labelers", "rm": "reward model"}


@dataclass(frozen=True)
class Picture:
    """A figure with the file name it is saved under and a caption that says what the bars are."""

    name: str
    figure: Figure
    caption: str


@dataclass(frozen=True)
class Table:
    """A result table (or any frame) with the file name it is saved under and a caption.

    `shown` is its form for people (`eval.tables.wide`).
    """

    name: str
    frame: pd.DataFrame
    caption: str
    shown: pd.DataFrame


@dataclass(frozen=True)
class Section:
    """One part of the report; `missing` says why there is nothing, or less than there could be."""

    id: str
    title: str
    intro: str
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    missing: str | None = None


@dataclass(frozen=True)
class Study:
    """What the sections draw on, each part read once and only when asked for."""

    runs: StudyRuns
    paper: Path
    draws: int

    @cached_property
    def samples(self) -> pd.DataFrame | None:
        return study_samples(self.runs)

    @cached_property
    def posts(self) -> pd.DataFrame | None:
        return study_posts(self.runs)

    @property
    def planted(self) -> bool:
        """Whether the samples carry a planted truth: then the study is synthetic, whoever says what."""
        return self.samples is not None and "score.gold" in self.samples


def published(folder: Path, name: str) -> pd.DataFrame | None:
    """Rows of ``results/paper/<name>.csv``, or None where the folder lacks the file."""
    return load_paper(name, name, folder) if (folder / f"{name}.csv").is_file() else None


def results_table(name: str, table: pd.DataFrame, caption: str) -> Table:
    """A result table, shown one row a policy with each measure in its column."""
    return Table(name, table, caption, wide(table))


def plain_table(name: str, frame: pd.DataFrame, caption: str) -> Table:
    """A frame shown as it is."""
    return Table(name, frame, caption, frame)


def without(section: Section, why: str = NOT_RUN) -> Section:
    """The section with what is missing said."""
    return Section(section.id, section.title, section.intro, section.pictures, section.tables, why)
