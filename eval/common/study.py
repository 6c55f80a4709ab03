"""The parts of a report's section, and the study that sections are made from."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from eval.common.beside import CommittedReport
from eval.common.numeric import numeric_failures_told
from eval.common.paper import load_paper
from eval.common.runs import NEWS, StudyRuns, study_posts, study_samples
from eval.common.tables import METHOD_ORDER, MeasuredResult, PolicyNames, readable, result_table, wide
from eval.judge.verdicts import Verdicts, read_verdicts, with_verdicts
from tldr.errors import NonFiniteError, UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # a section of tables alone needs no matplotlib

NOT_RUN = "Not run here."

T = TypeVar("T")


@dataclass(frozen=True)
class Picture:
    """A figure with the file name it is saved under and a caption that says what the bars are."""

    name: str
    figure: Figure
    caption: str


@dataclass(frozen=True)
class Table:
    """A result table (or any frame) with the file name it is saved under and a caption.

    `shown` is its readable form (`eval.common.tables.wide`).
    """

    name: str
    frame: pd.DataFrame
    caption: str
    shown: pd.DataFrame


@dataclass(frozen=True)
class Section:
    """One part of the report.

    `missing` says why there is nothing, or less than there could be. `undrawn` says it of figures drawn
    from files (`eval.report.people`).
    """

    id: str
    title: str
    intro: str = ""
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    undrawn: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class StudyResults:
    """The data that sections are made from; each part is read once, when it is first needed."""

    runs: StudyRuns
    paper: Path
    draws: int
    beside: CommittedReport | None = None
    """Another study's report, to set this one beside."""
    made: dict[str, Any] = field(default_factory=dict, repr=False)
    """The results that `once` keeps."""

    @cached_property
    def verdicts(self) -> Verdicts:
        """People's and judges' verdicts in the study's folder."""
        return read_verdicts(self.runs)

    @cached_property
    def samples(self) -> pd.DataFrame | None:
        """All samples of posts, with the verdicts on them as scores (`eval.judge.verdicts.with_verdicts`)."""
        return self._samples_and_notes[0]

    @property
    def verdict_notes(self) -> list[str]:
        """The verdicts that are left out, with the reason."""
        return self._samples_and_notes[1]

    @cached_property
    def _samples_and_notes(self) -> tuple[pd.DataFrame | None, list[str]]:
        samples = study_samples(self.runs)
        return (None, self.verdicts.notes) if samples is None else with_verdicts(samples, self.verdicts)

    @cached_property
    def posts(self) -> pd.DataFrame | None:
        return study_posts(self.runs)

    @cached_property
    def news(self) -> pd.DataFrame | None:
        """Summaries of news articles, which are in no other table."""
        return study_samples(self.runs, NEWS)

    @cached_property
    def articles(self) -> pd.DataFrame | None:
        return study_posts(self.runs, f"{NEWS}.jsonl")

    @cached_property
    def sizes(self) -> dict[str, float]:
        """Parameters of each model size."""
        return {run.size: run.params for run in self.runs.runs if run.size and run.params is not None}

    @property
    def planted(self) -> bool:
        """Whether the samples carry a planted truth, which makes the study synthetic in any case."""
        return self.samples is not None and "score.gold" in self.samples


def once(make: Callable[[StudyResults], T]) -> Callable[[StudyResults], T]:
    """`make(study)`, computed once a study: tables that several sections and the claims share.

    Copy the result before changing it.
    """

    @wraps(make)
    def kept(study: StudyResults) -> T:
        name = f"{make.__module__}.{make.__qualname__}"
        if name not in study.made:
            study.made[name] = make(study)
        found: T = study.made[name]
        return found

    return kept


def policy_names(study: StudyResults, policy: str) -> PolicyNames:
    """The parts of a policy's name in the records: ``ppo-m-kl-0.3-t0.7`` is a method, size, variant and
    temperature; a name of another form is its own method, such as ``reference``.
    """
    methods, sizes = ("|".join(map(re.escape, names)) for names in (METHOD_ORDER, study.sizes or [""]))
    match = re.fullmatch(rf"({methods})-({sizes})(?:-(.+?))?(?:-t(\d[\d.]*))?", policy)
    method, size, variant, temperature = match.groups() if match else (policy, "", None, None)
    return {
        "policy": policy,
        "method": method,
        "size": size,
        "params": study.sizes.get(size),
        "variant": variant or "",
        "temperature": float(temperature) if temperature else None,
    }


def published(folder: Path, name: str, item: str | None = None) -> pd.DataFrame | None:
    """Rows of ``results/paper/<name>.csv`` (of one item, by default named like the file); None without it."""
    return load_paper(name, item or name, folder) if (folder / f"{name}.csv").is_file() else None


def results_table(name: str, table: pd.DataFrame, caption: str) -> Table:
    """A result table, shown one row per policy with each measure in its column."""
    return Table(name, table, caption, wide(table))


def plain_table(name: str, frame: pd.DataFrame, caption: str) -> Table:
    """A frame shown as it is."""
    return Table(name, frame, caption, frame)


def without(section: Section, *why: str) -> Section:
    """The section with what is missing said; without a reason, that it was not run."""
    section.missing.extend(why or [NOT_RUN])
    return section


def try_table(
    section: Section, name: str, caption: str, make: Callable[[], pd.DataFrame | list[MeasuredResult]]
) -> None:
    """Add the table that `make` gives; where it cannot be made, the section says why."""
    name = re.sub(
        r"[^\w.-]+", "_", name
    )  # names of judges and scorers come from outside, and this becomes a file name
    try:
        with numeric_failures_told():
            made = make()
    except (UsageError, NonFiniteError) as error:
        section.missing.append(f"{name}: {error.what}")
        return
    frame = result_table(made) if isinstance(made, list) else made
    section.tables.append(Table(name, frame, caption, readable(frame)))
