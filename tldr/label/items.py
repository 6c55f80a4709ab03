"""What labelers are asked about: the lines of ``items.jsonl``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import Field, model_validator

from tldr.errors import UsageError
from tldr.label.answers import ANSWERS, TaskKind
from tldr.records import CandidateSummary, Info, NonEmpty, Record, iter_records

ItemRole: TypeAlias = Literal["label", "calibration", "training"]
"""A question, a question with a known answer mixed in, or an example whose answer is explained."""
MOST_RANKED = 9
SUMMARIES: dict[TaskKind, tuple[int, int]] = {
    "comparison": (2, 2),
    "ranking": (2, MOST_RANKED),
    "rating": (1, 1),
    "demonstration": (0, 0),
}
"""Fewest and most summaries of a task."""


class LabelItem(Record):
    """One question.

    `id` and the policies' names never reach a labeler. `known` is the right answer of a calibration or
    training item, in the form of an answer (`answers`), about the summaries in the order of this line;
    `explanation` tells the labeler why. `warning` is shown before the text, and the labeler may skip it.
    """

    id: NonEmpty
    kind: TaskKind
    info: Info
    summaries: list[CandidateSummary] = Field(default_factory=list)
    batch: str = ""
    split: Literal["train", "test", "valid1", "valid2"] = "train"
    role: ItemRole = "label"
    known: dict[str, Any] | None = None
    explanation: str = ""
    warning: str | None = None

    @model_validator(mode="after")
    def _is_a_question(self) -> LabelItem:
        least, most = SUMMARIES[self.kind]
        if not least <= len(self.summaries) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            raise ValueError(f"a {self.kind} shows {wanted} summaries, found {len(self.summaries)}")
        if any(not summary.text.strip() for summary in self.summaries):
            raise ValueError("a summary is empty")
        if self.kind == "demonstration" and self.info.id is None:
            raise ValueError(
                "a demonstration needs info.id: the written summary becomes that post's reference"
            )
        if self.split == "test" and self.kind != "rating":
            raise ValueError("only ratings have the split 'test'")
        if (self.role == "label") != (self.known is None):
            raise ValueError("'known' is the answer of calibration and training items, and of no others")
        if self.known is not None:
            ANSWERS[self.kind].model_validate(self.known).fits(len(self.summaries))
        return self


def read_items(path: Path) -> list[LabelItem]:
    """All items of a file.

    Raises:
        UsageError: no file, no item in it, or two items with one id.
        RecordError: a bad line, named ``file:line``.
    """
    items: list[LabelItem] = []
    seen: set[str] = set()
    for number, item in enumerate(iter_records(path, LabelItem), start=1):
        if item.id in seen:
            raise UsageError(f"two items have the id '{item.id}'", where=path, remedy=f"see item {number}")
        seen.add(item.id)
        items.append(item)
    if not items:
        raise UsageError("the file holds no item", where=path, remedy="make some: tldr-lab label items")
    return items


def kinds_of(items: Sequence[LabelItem]) -> list[TaskKind]:
    """The tasks among some items, in a fixed order."""
    return [kind for kind in SUMMARIES if any(item.kind == kind for item in items)]
