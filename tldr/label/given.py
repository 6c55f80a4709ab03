"""The labels in the database, as objects."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tldr.label.answers import ANSWERS, TaskAnswer
from tldr.label.database import Database
from tldr.label.items import LabelItem
from tldr.label.labelers import Labeler, Labelers


@dataclass(frozen=True)
class GivenLabel:
    """One labeler's answer to an item, in the item's order; `order` is the one they saw.

    `answer` is None for a skipped item, and `skip` then has the reason and the note. `seconds` at work and
    `idle` exclude each other; `at` is in seconds since 1970.
    """

    item: LabelItem
    labeler: Labeler
    order: list[int]
    answer: TaskAnswer | None
    skip: dict[str, Any] | None
    seconds: float
    idle: float
    at: float
    answer_id: str

    @property
    def counts(self) -> bool:
        """Whether it is an answer to a question by a labeler who was not dropped."""
        return self.answer is not None and self.labeler.status != "dropped" and self.item.role != "training"


def read_labels(database: Database) -> list[GivenLabel]:
    """All labels and skips, in the order of the items and then of the workers' pseudonyms."""

    people = {person.id: person for person in Labelers(database).all()}
    with database.reading() as sql:
        rows = sql.execute(
            """SELECT labels.*, body FROM labels JOIN items ON items.id=item
            JOIN labelers ON labelers.id=labeler ORDER BY place, worker"""
        ).fetchall()
    items: dict[str, LabelItem] = {}
    found = []
    for row in rows:
        if (item := items.get(row["item"])) is None:
            item = items[row["item"]] = LabelItem.model_validate_json(row["body"])
        answer = None if row["answer"] is None else ANSWERS[item.kind].model_validate_json(row["answer"])
        found.append(
            GivenLabel(
                item=item,
                labeler=people[row["labeler"]],
                order=json.loads(row["shown"]),
                answer=answer,
                skip=None if row["skip"] is None else json.loads(row["skip"]),
                seconds=row["seconds"],
                idle=row["idle"],
                at=row["at"],
                answer_id=row["answer_id"],
            )
        )
    return found
