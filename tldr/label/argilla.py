"""Argilla: a folder for each task in the layout of `Dataset.to_disk`, and the answers of its records.

``argilla.Dataset.from_disk(FOLDER)`` makes the task on a server. Its answers come back as the file of
``dataset.records.to_json(FILE)``, or a folder of `Dataset.to_disk`. Argilla names people by UUIDs: one is
drawn from the worker's pseudonym, and an answer by another user makes a labeler of its own. That file has
neither seconds nor what a user discarded. The SDK 2.8 reads and writes these files; no server has yet.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tldr.errors import RecordError, UsageError
from tldr.label.foreign import (
    ForeignLabel,
    by_item_id,
    field_names,
    outside_items,
    read_list,
    shown_texts,
    to_fields,
)
from tldr.label.given import GivenLabel
from tldr.label.items import LabelItem
from tldr.records import write_json

RECORDS = "records.json"
REMEDY = "write it with dataset.records.to_json"


def user_id(worker: str) -> str:
    """The UUID of a labeler: of the pseudonym and nothing else, so that it is the same in every export."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"tldr-feedback/{worker}"))


def _record(item: LabelItem, labels: Sequence[GivenLabel]) -> dict[str, Any]:
    fields = {"title": item.info.title or "", "post": item.info.post or item.info.article or ""}
    fields |= {f"summary_{place}": text for place, text in enumerate(shown_texts(item), 1)}
    responses: dict[str, list[dict[str, str]]] = {}
    for label in labels:
        who = {
            "user_id": user_id(label.labeler.worker),
            "status": "discarded" if label.skip is not None else "submitted",
        }
        for name, text in to_fields(label).items():
            responses.setdefault(name, []).append({"value": text} | who)
    return {
        "id": item.id,
        "fields": fields,
        "metadata": {"batch": item.batch, "split": item.split},
        "suggestions": {},
        "responses": responses,
    }


def _question(name: str, values: list[str] | None, required: bool) -> dict[str, Any]:
    settings: dict[str, Any] = {"type": "text", "use_markdown": False}
    if values is not None:
        settings = {"type": "label_selection", "options": [{"value": text, "text": text} for text in values]}
    return {"name": name, "title": name.replace("_", " "), "required": required, "settings": settings}


def _settings(items: Sequence[LabelItem], each: int) -> dict[str, Any]:
    """The form of the item with the most summaries; what the answers to all items have is required."""
    largest = max(items, key=lambda item: len(item.summaries))
    smallest = field_names(min(items, key=lambda item: len(item.summaries)))
    optional = ("says_", "note_", "skip")
    text = {"type": "text", "use_markdown": False}
    fields = ["title", "post", *(f"summary_{place}" for place in range(1, len(largest.summaries) + 1))]
    return {
        "guidelines": None,
        "fields": [
            {"name": name, "title": name.replace("_", " "), "required": name == "post", "settings": text}
            for name in fields
        ],
        "questions": [
            _question(name, values, name in smallest and not name.startswith(optional))
            for name, values in field_names(largest).items()
        ],
        "metadata": [
            {"name": name, "title": name, "settings": {"type": "terms"}} for name in ("batch", "split")
        ],
        "vectors": [],
        "allow_extra_metadata": False,
        "distribution": {"strategy": "overlap", "min_submitted": each},
    }


def write_argilla(
    items: Sequence[LabelItem], labels: Sequence[GivenLabel], out: Path, each: int
) -> dict[str, int]:
    """Write a folder for each task, for `argilla.Dataset.from_disk`.

    Args:
        each: labelers an item.

    Returns:
        Folder -> items.
    """
    given, counts = by_item_id(labels), {}
    for kind, asked in outside_items(items).items():
        records = [_record(item, given.get(item.id, [])) for item in asked]
        write_json(out / kind / RECORDS, records)
        write_json(out / kind / ".argilla" / "settings.json", _settings(asked, each))
        write_json(out / kind / ".argilla" / "dataset.json", {"name": kind})
        counts[kind] = len(records)
    return counts


def read_argilla(path: Path, items: Sequence[LabelItem], workers: Sequence[str]) -> Iterator[ForeignLabel]:
    """The answers in a file of records, or in every ``records.json`` below a folder.

    Args:
        items: the items of the labeling folder.
        workers: the pseudonyms of its labelers, who are known again by their UUIDs.

    Raises:
        UsageError: there is no such file, or it is no list of records.
        RecordError: a record is invalid.
    """
    files = sorted(path.rglob(RECORDS)) if path.is_dir() else [path]
    if not files:
        raise UsageError(f"holds no {RECORDS}", where=path, remedy=REMEDY)
    known, people = {item.id: item for item in items}, {user_id(worker): worker for worker in workers}
    for file in files:
        for number, record in enumerate(read_list(file, "records", REMEDY)):
            where = f"{file}: record {number}"
            try:
                id, answers = str(record["id"]), _by_person(record["responses"])
            except (KeyError, TypeError, AttributeError) as error:
                raise RecordError(
                    f"not a record of Argilla: {type(error).__name__} {error}", where=where
                ) from None
            wanted = field_names(known[id]) if id in known else {}
            for person, found in answers.items():
                fields = {name: text for name, text in found.items() if name in wanted}
                worker = people.get(person, f"argilla-{person}")
                yield ForeignLabel(id, worker, fields, 0.0, f"argilla-{id}-{person}", where)


def _by_person(responses: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, str]]:
    """User -> question -> answer; drafts are not answers."""
    found: dict[str, dict[str, str]] = {}
    for name, given in responses.items():
        for response in given:
            if response.get("status") != "draft":
                found.setdefault(str(response["user_id"]), {})[name] = str(response["value"])
    return found
