"""Folders, items and clocks for tests of labeling."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tldr.label.answers import TaskKind
from tldr.label.desk import Desk, Sent, Shown
from tldr.label.items import LabelItem
from tldr.label.labelers import Labeler
from tldr.label.project import ITEMS, Project
from tldr.label.settings import LabelSettings
from tldr.records import CandidateSummary, Info, write_records

ANSWERS: dict[TaskKind, dict[str, Any]] = {
    "comparison": {"confidence": 8},
    "ranking": {"rank": [2, 1, 2]},
    "rating": {"coverage": 3, "accuracy": 7, "coherence": 6, "overall": 4},
    "demonstration": {"summary": "a summary of three"},
}
COUNTS: dict[TaskKind, int] = {"comparison": 2, "ranking": 3, "rating": 1, "demonstration": 0}


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def an_item(number: int, kind: TaskKind = "comparison", **more: Any) -> LabelItem:
    texts = [f" summary {place} of {number}" for place in range(COUNTS[kind])]
    fields: dict[str, Any] = {
        "id": f"item-{number}",
        "kind": kind,
        "info": Info(id=f"post-{number}", subreddit="dogs", title=f"title {number}", post=f"post {number}"),
        "summaries": [CandidateSummary(text=text, policy=f"policy-{n}") for n, text in enumerate(texts)],
        "batch": "b1",
    }
    return LabelItem.model_validate(fields | more)


@dataclass
class Bench:
    """A project, its clock and its people."""

    project: Project
    clock: Clock
    people: list[Labeler]
    secrets: list[str]

    @property
    def desk(self) -> Desk:
        return self.project.desk

    def answer(self, who: Labeler, shown: Shown, **raw: Any) -> dict[str, Any]:
        sent = Sent(shown.ticket, f"answer-{shown.ticket}", 5.0)
        return self.desk.answer(who, sent, raw or ANSWERS[shown.item.kind])

    def label(self, who: Labeler, most: int = 1000) -> list[str]:
        """Have somebody answer until nothing is left; the ids of the items."""
        found = []
        for _ in range(most):
            shown = self.desk.next(who)
            if shown is None:
                break
            found.append(shown.item.id)
            self.clock.now += 20
            self.answer(who, shown)
        return found

    def person(self, number: int) -> Labeler:
        """A labeler as the database has them now."""
        found = self.project.labelers.by_secret(self.secrets[number])
        assert found is not None
        return found


def bench(folder: Path, items: list[LabelItem], people: int = 2, **settings: Any) -> Bench:
    """A project of these items; nothing is shared and nothing calibrates unless asked for."""
    chosen = {"shared": 0.0, "calibration": 0.0, "min_tokens": 1, "max_tokens": 9} | settings
    clock = Clock()
    write_records(folder / ITEMS, items)
    project = Project.open(folder, LabelSettings.model_validate(chosen), clock)
    secrets = [project.labelers.add(f"name {n}", clock()) for n in range(people)]
    made = Bench(project, clock, [], secrets)
    made.people = [made.person(n) for n in range(people)]
    return made
