"""Hours that people label for a study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tldr.errors import UsageError
from tldr.plan.judging import judged_pools, judged_summaries
from tldr.plan.study import UnreadFiles
from tldr.stages.judge.algorithm import wanted_of
from tldr.stages.judge.settings import JudgeSettings
from tldr.stages.labels.settings import LabelsSettings
from tldr.study.graph import expand
from tldr.study.hashes import FileHashes
from tldr.study.people import asks_people, is_by_people, progress_for, wanted_by
from tldr.study.runs import Run
from tldr.study.settings import Study

COMPARISON = 60.0
"""Assumed seconds at work on a comparison, before anybody has labeled. A ranking of K summaries is assumed to
take K/2 times as long."""


@dataclass(frozen=True)
class LabelingPlan:
    """What a run asks of people.

    Attributes:
        labels: answers, of all labelers together.
        seconds: of one answer.
        measured: answers so far whose median `seconds` is; 0: it is an assumption.
    """

    run: str
    title: str
    labels: int
    seconds: float
    measured: int

    @property
    def hours(self) -> float:
        """Of all labelers together."""
        return self.labels * self.seconds / 3600

    @property
    def basis(self) -> str:
        """Where the seconds come from."""
        return f"median of {self.measured:,} answers" if self.measured else "assumed"

    def row(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return {
            "run": self.run,
            "labels": self.labels,
            "seconds": self.seconds,
            "hours": self.hours,
            "basis": self.basis,
        }


def labeling_plans(study: Study, root: Path) -> list[LabelingPlan]:
    """The labeling of every run that asks people.

    Args:
        root: the study's folder.
    """
    if not is_by_people(study):
        return []
    try:
        runs = expand(study, FileHashes(root / "hashes.json"))
    except UsageError:  # its files are not here, so nobody has labeled here
        runs = expand(study, UnreadFiles())
    return [_plan(run, root) for run in runs if asks_people(run)]


def _plan(run: Run, root: Path) -> LabelingPlan:
    now, settings = progress_for(run, root), run.settings
    assert isinstance(settings, LabelsSettings | JudgeSettings)
    seconds = assumed_seconds(settings) if isinstance(settings, LabelsSettings) else COMPARISON
    measured = 0
    if now is not None and now.seconds is not None:
        seconds, measured = now.seconds, now.answers
    wanted = wanted_by(run, root)
    if wanted is None:
        assert isinstance(settings, JudgeSettings)
        of_pools = sum(some * each for some, each in judged_pools(run, lambda posts: posts or settings.posts))
        wanted = wanted_of(settings.posts * judged_summaries(run) + of_pools, settings)
    return LabelingPlan(run.name, run.title, wanted.labels, seconds, measured)


def assumed_seconds(settings: LabelsSettings) -> float:
    """Seconds at work on an item of the settings' mean number of summaries."""
    return COMPARISON * sum(settings.k) / 4
