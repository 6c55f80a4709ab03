"""Runs that wait for people: how far their labels are."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from tldr.label.batch import BatchProgress, Wanted, answered, labeling_folder, progress_in
from tldr.label.database import NAME, sole_server
from tldr.label.items import read_items
from tldr.label.project import ITEMS
from tldr.stages.judge.algorithm import wanted_of
from tldr.stages.judge.settings import JudgeSettings
from tldr.stages.labels.settings import LabelsSettings
from tldr.study.folder import DONE, last_wait
from tldr.study.runs import Run
from tldr.study.settings import Study


def is_by_people(study: Study) -> bool:
    """Whether people label in some round of a study, or judge it."""
    labels = [study.labels, *(each.labels for each in study.rounds)]
    kinds = [*(one.kind for one in labels), *(judge.kind for judge in study.judges.values())]
    return "people" in kinds


def asks_people(run: Run) -> bool:
    """Whether people label for a run."""
    return isinstance(run.settings, LabelsSettings | JudgeSettings) and run.settings.kind == "people"


def wanted_by(run: Run, root: Path) -> Wanted | None:
    """The labels that a run by people waits for; None of a judge whose questions are not made yet.

    Args:
        root: the study's folder.
    """
    if isinstance(run.settings, LabelsSettings):
        return Wanted(run.settings.items_wanted(), run.settings.page.labelers_per_item)
    assert isinstance(run.settings, JudgeSettings)
    file = labeling_folder(root, run.name) / ITEMS
    if not file.exists():
        return None
    return wanted_of(sum(item.role == "label" for item in read_items(file)), run.settings)


def progress_for(run: Run, root: Path) -> BatchProgress | None:
    """How far the labels of a run are; None if it asks no people, or has not asked them yet."""
    if not asks_people(run):
        return None
    wanted = wanted_by(run, root)
    return None if wanted is None else progress_in(labeling_folder(root, run.name), wanted)


def wait_of(run: Run, root: Path) -> str | None:
    """What a run waits for now, and what to do; None if it has not asked people.

    Args:
        root: the study's folder.
    """
    now = progress_for(run, root)
    if now is None:
        return last_wait(root / run.name)
    if now.enough:
        return f"there are enough labels: {now.given:,} of {now.wanted:,}; next: run the study"
    return f"{now}; next: tldr-lab label serve {labeling_folder(root, run.name)}"


def served(runs: Iterable[Run], root: Path) -> list[Path]:
    """The labeling folders of the runs that have asked people and are not done, in the order of the runs;
    if all are done, of the last one."""
    asked = [run for run in runs if asks_people(run) and (labeling_folder(root, run.name) / ITEMS).exists()]
    waiting = [run for run in asked if not (root / run.name / DONE).exists()]
    return [labeling_folder(root, run.name) for run in waiting or asked[-1:]]


def take_labeling(old: Path, new: Path) -> bool:
    """Copy a labeling folder, also while it is served; one in which people have labeled is not replaced.

    Returns:
        Whether the new folder has the labels of the old one.

    Raises:
        Busy: the new folder is being served.
    """
    if old.resolve() == new.resolve() or not (old / ITEMS).exists():
        return True
    if new.exists() and answered(new):
        return False
    if new.exists():
        with sole_server(new):
            pass
    partial = new.with_name(f".{new.name}.partial")
    for place in (partial, new):
        shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(old, partial, ignore=shutil.ignore_patterns(f"{NAME}*", ".serving.lock*"))
    if (old / NAME).exists():
        with closing(sqlite3.connect(old / NAME)) as there, closing(sqlite3.connect(partial / NAME)) as here:
            there.backup(here)
    partial.rename(new)
    return True
