"""Argilla: records and settings as its documentation describes them. No Argilla server has read them yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tldr.label.foreign import by_item_id, field_names, outside_items, shown_texts, to_fields
from tldr.label.given import GivenLabel
from tldr.label.items import LabelItem
from tldr.records import write_json


def _record(item: LabelItem, labels: Sequence[GivenLabel]) -> dict[str, Any]:
    fields = {"title": item.info.title or "", "post": item.info.post or item.info.article or ""}
    fields |= {f"summary_{place}": text for place, text in enumerate(shown_texts(item), 1)}
    responses: dict[str, list[dict[str, str]]] = {}
    for label in labels:
        for name, text in to_fields(label).items():
            responses.setdefault(name, []).append({"value": text, "user_id": label.labeler.worker})
    return {
        "id": item.id,
        "fields": fields,
        "metadata": {"batch": item.batch, "split": item.split},
        "suggestions": {},
        "responses": responses,
    }


def _settings(items: Sequence[LabelItem]) -> dict[str, Any]:
    largest = max(items, key=lambda item: len(item.summaries))
    questions = [
        {"name": name, "type": "text", "required": False}
        if values is None
        else {"name": name, "type": "label_selection", "labels": values, "required": False}
        for name, values in field_names(largest).items()
    ]
    fields = ["title", "post", *(f"summary_{place}" for place in range(1, len(largest.summaries) + 1))]
    return {
        "fields": [{"name": name, "type": "text", "required": name == "post"} for name in fields],
        "questions": questions,
    }


def write_argilla(items: Sequence[LabelItem], labels: Sequence[GivenLabel], out: Path) -> dict[str, int]:
    """Write ``KIND-records.json`` and ``KIND-settings.json`` for each task.

    Returns:
        File -> records.
    """
    given, counts = by_item_id(labels), {}
    for kind, asked in outside_items(items).items():
        records = [_record(item, given.get(item.id, [])) for item in asked]
        write_json(out / f"{kind}-records.json", records)
        write_json(out / f"{kind}-settings.json", _settings(asked))
        counts[f"{kind}-records.json"] = len(records)
    return counts
