"""Answers as flat fields of text, the common ground of other labeling tools.

A tool shows every labeler an item in one order, drawn once for each item. A comparison is the field
``confidence`` ("1" to "9"), a ranking ``rank_1`` to ``rank_K``, a rating its four axes, a demonstration
``summary``; ``note_I`` and ``says_I`` are the notes and first interpretations, ``skip`` and ``skip_note`` the
reason of a skipped item. What the fields cannot hold is lost: the order shown to each labeler, idle time, and
what the labeler took back.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tldr.errors import RecordError, UsageError
from tldr.label.answers import (
    ANSWERS,
    AXES,
    ComparisonAnswer,
    DemonstrationAnswer,
    RankingAnswer,
    RatingAnswer,
    TaskAnswer,
)
from tldr.label.desk import SKIP_REASONS
from tldr.label.given import GivenLabel
from tldr.label.items import LabelItem
from tldr.label.labelers import Labelers, recount
from tldr.label.project import Project

CONFIDENCES = [str(value) for value in range(1, 10) if value != 5]
"""The points of the scale."""


@dataclass(frozen=True)
class ForeignLabel:
    """One labeler's fields for one item, from another tool; `where` names the place in its file."""

    item: str
    worker: str
    fields: Mapping[str, str]
    seconds: float
    answer_id: str
    where: str


def tool_order(item: LabelItem) -> list[int]:
    """The order in which other tools show an item's summaries."""
    order = list(range(len(item.summaries)))
    random.Random(f"outside/{item.id}").shuffle(order)
    return order


def field_names(item: LabelItem) -> dict[str, list[str] | None]:
    """The fields of an item's task in the order of the form: its values, or None for free text."""
    places = range(1, len(item.summaries) + 1)
    names: dict[str, list[str] | None] = {}
    if item.kind == "comparison":
        names |= {f"says_{place}": None for place in places} | {"confidence": CONFIDENCES}
    elif item.kind == "ranking":
        names |= {f"rank_{place}": [str(rank) for rank in places] for place in places}
    elif item.kind == "rating":
        names |= {axis: [str(value) for value in range(1, 8)] for axis in AXES}
    else:
        names["summary"] = None
    names |= {f"note_{place}": None for place in places}
    return names | {"skip": list(SKIP_REASONS), "skip_note": None}


def to_fields(label: GivenLabel) -> dict[str, str]:
    """The fields of a label in the tool's order; empty texts are left out."""
    if label.skip is not None:
        fields = {"skip": label.skip["reason"], "skip_note": label.skip["note"]}
        return {name: text for name, text in fields.items() if text}
    assert label.answer is not None
    answer, fields = label.answer.shuffled(tool_order(label.item)), {}
    if isinstance(answer, ComparisonAnswer):
        fields["confidence"] = str(answer.confidence)
        fields |= {f"says_{place}": text for place, text in enumerate(answer.interpretations, 1)}
    elif isinstance(answer, RankingAnswer):
        fields |= {f"rank_{place}": str(rank) for place, rank in enumerate(answer.rank, 1)}
    elif isinstance(answer, RatingAnswer):
        fields |= {axis: str(value) for axis, value in answer.axes.items()}
    elif isinstance(answer, DemonstrationAnswer):
        fields["summary"] = answer.summary
    fields |= {f"note_{place}": note for place, note in enumerate(answer.notes, 1)}
    return {name: text for name, text in fields.items() if text}


def from_fields(item: LabelItem, fields: Mapping[str, str]) -> TaskAnswer:
    """The answer in the item's order. Ranks with gaps or repeats (1, 2, 2, 3) become 1, 2, 2, 4.

    Raises:
        ValueError: a field is missing or has no valid value.
    """
    places = range(1, len(item.summaries) + 1)
    notes = [fields.get(f"note_{place}", "") for place in places]
    raw: dict[str, object] = {"notes": notes if any(notes) else []}

    def number(name: str) -> int:
        text = fields.get(name, "").strip()
        if not text:
            raise ValueError(f"the field {name} is missing")
        if not text.lstrip("-").isdigit():
            raise ValueError(f"{name}: '{text[:40]}' is not a whole number")
        return int(text)

    if item.kind == "comparison":
        raw["confidence"] = number("confidence")
        says = [fields.get(f"says_{place}", "") for place in places]
        raw["interpretations"] = says if any(says) else []
    elif item.kind == "ranking":
        ranks = [number(f"rank_{place}") for place in places]
        raw["rank"] = [1 + sum(other < rank for other in ranks) for rank in ranks]
    elif item.kind == "rating":
        raw |= {axis: number(axis) for axis in AXES}
    else:
        raw["summary"] = fields.get("summary", "")
    try:
        answer = ANSWERS[item.kind].model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return answer.unshuffled(tool_order(item))


def read_list(file: Path, of: str, remedy: str) -> list[Any]:
    """The list that another tool's JSON file holds.

    Raises:
        UsageError: it is no JSON file, or holds no list.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"not a JSON file: {error}", where=file) from None
    if not isinstance(found, list):
        raise UsageError(f"holds no list of {of}", where=file, remedy=remedy)
    return found


def take_in(project: Project, labels: Iterable[ForeignLabel]) -> dict[str, int]:
    """Add labels from another tool. Labelers who are not known are added without a link.

    A label of a worker and an item that is there already stays as it is.

    Returns:
        ``added``, ``skips`` and ``there already``.

    Raises:
        RecordError: a label is about no item of the folder, or invalid; nothing was added.
    """
    items = {item.id: item for item in project.items()}
    rows = []
    for label in labels:
        item = items.get(label.item)
        if item is None:
            raise RecordError(
                f"there is no item '{label.item}'",
                where=label.where,
                remedy="import into the folder it was made from",
            )
        try:
            skip = _skip(label.fields)
            answer = None if skip else from_fields(item, label.fields)
        except ValueError as error:
            raise RecordError(f"no valid {item.kind}: {error}", where=label.where) from None
        rows.append((item, label, answer, skip))
    now = project.desk.clock()
    _add_labelers(project.labelers, {label.worker for _, label, *_ in rows}, now)
    ids = {person.worker: person.id for person in project.labelers.all()}
    counts = {"added": 0, "skips": 0, "there already": 0}
    with project.database.writing() as sql:
        for item, label, answer, skip in rows:
            done = sql.execute(
                "INSERT OR IGNORE INTO"
                " labels(item, labeler, answer_id, ticket, shown, answer, skip, seconds, idle, at)"
                " VALUES(?,?,?,?,?,?,?,?,0,?)",
                (
                    item.id, ids[label.worker], label.answer_id, "", json.dumps(tool_order(item)),
                    None if answer is None else answer.model_dump_json(), skip, label.seconds, now,
                ),
            )  # fmt: skip
            counts["there already" if not done.rowcount else "skips" if skip else "added"] += 1
        recount(sql, "1")
    return counts


def _skip(fields: Mapping[str, str]) -> str | None:
    reason = fields.get("skip", "")
    if not reason:
        return None
    if reason not in SKIP_REASONS:
        raise ValueError(f"skip: '{reason[:40]}' is not one of {', '.join(SKIP_REASONS)}")
    return json.dumps({"reason": reason, "note": fields.get("skip_note", "")})


def _add_labelers(labelers: Labelers, workers: set[str], now: float) -> None:
    known = {person.worker for person in labelers.all()}
    names = {person.name for person in labelers.all()}
    for worker in sorted(workers - known):
        name = worker if worker not in names else f"{worker} (imported)"
        labelers.add(name, now, worker=worker, link=False)


def outside_items(items: Iterable[LabelItem]) -> dict[str, list[LabelItem]]:
    """The items that another tool can ask, by task; training items need the page, which explains them."""
    found: dict[str, list[LabelItem]] = {}
    for item in items:
        if item.role != "training":
            found.setdefault(item.kind, []).append(item)
    return found


def shown_texts(item: LabelItem) -> list[str]:
    """An item's summaries in the tool's order."""
    return [item.summaries[place].text.strip() for place in tool_order(item)]


def by_item_id(labels: Iterable[GivenLabel]) -> dict[str, list[GivenLabel]]:
    """The labels of each item."""
    found: dict[str, list[GivenLabel]] = {}
    for label in labels:
        found.setdefault(label.item.id, []).append(label)
    return found
