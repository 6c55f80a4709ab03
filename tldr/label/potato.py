"""Potato: a folder for each task with its configuration, its data, and one state file a labeler.

``annotation_output/USER/user_state.json`` is what Potato 2 keeps of a labeler; its answers are read from
there and written there.
"""

from __future__ import annotations

import html
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from tldr.errors import RecordError, UsageError
from tldr.label.foreign import (
    ForeignLabel,
    field_names,
    outside_items,
    shown_texts,
    to_fields,
)
from tldr.label.given import GivenLabel
from tldr.label.items import LabelItem
from tldr.records import write_json

TEXT = "text_box"
"""The label of a free text."""


def _scheme(name: str, values: list[str] | None) -> dict[str, Any]:
    title = name.replace("_", " ")
    if values is None:
        return {"annotation_type": "text", "name": name, "description": title, "textarea": {"on": True}}
    return {"annotation_type": "radio", "name": name, "description": title, "labels": values}


def config_yaml(kind: str, items: Sequence[LabelItem]) -> str:
    """The configuration of a task; the form is that of the item with the most summaries."""
    largest = max(items, key=lambda item: len(item.summaries))
    return yaml.safe_dump(
        {
            "annotation_task_name": kind,
            "task_dir": ".",
            "data_files": ["data.jsonl"],
            "item_properties": {"id_key": "id", "text_key": "text"},
            "output_annotation_dir": "annotation_output",
            "annotation_schemes": [_scheme(name, values) for name, values in field_names(largest).items()],
        },
        sort_keys=False,
        allow_unicode=True,
    )


def _page(item: LabelItem) -> str:
    """The item as HTML, in which Potato shows texts; everything from outside is escaped."""
    parts = [("", item.info.title or ""), ("", item.info.post or item.info.article or "")]
    parts += [(f"Summary {place}", text) for place, text in enumerate(shown_texts(item), 1)]
    return "".join(
        (f"<h4>{heading}</h4>" if heading else "") + f"<p>{html.escape(text)}</p>".replace("\n", "<br>")
        for heading, text in parts
    )


def _state(worker: str, labels: Sequence[GivenLabel]) -> dict[str, Any]:
    answers = {}
    for label in labels:
        shown = field_names(label.item)
        answers[label.item.id] = [
            [
                {"schema": name, "name": TEXT if shown[name] is None else text},
                text if shown[name] is None else "true",
            ]
            for name, text in to_fields(label).items()
        ]
    return {
        "user_id": worker,
        "instance_id_ordering": [label.item.id for label in labels],
        "instance_id_to_label_to_value": answers,
        "instance_id_to_behavioral_data": {
            label.item.id: {"instance_id": label.item.id, "total_time_ms": round(label.seconds * 1000)}
            for label in labels
        },
    }


def write_potato(items: Sequence[LabelItem], labels: Sequence[GivenLabel], out: Path) -> dict[str, int]:
    """Write a folder for each task.

    Returns:
        Folder -> items.
    """
    counts = {}
    for kind, asked in outside_items(items).items():
        folder = out / kind
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(config_yaml(kind, asked), encoding="utf-8")
        rows = [json.dumps({"id": item.id, "text": _page(item)}, ensure_ascii=False) + "\n" for item in asked]
        (folder / "data.jsonl").write_text("".join(rows), encoding="utf-8")
        people: dict[str, list[GivenLabel]] = defaultdict(list)
        for label in labels:
            if label.item.kind == kind and label.item.role != "training":
                people[label.labeler.worker].append(label)
        for worker, theirs in people.items():
            write_json(folder / "annotation_output" / worker / "user_state.json", _state(worker, theirs))
        counts[kind] = len(asked)
    return counts


def read_potato(folder: Path, items: Sequence[LabelItem]) -> Iterator[ForeignLabel]:
    """The answers in every ``user_state.json`` below a folder.

    Args:
        items: the items of the labeling folder.

    Raises:
        UsageError: there is no such file.
        RecordError: a file is not a labeler's state.
    """
    known = {item.id: item for item in items}
    files = sorted(folder.rglob("user_state.json"))
    if not files:
        raise UsageError("holds no user_state.json", where=folder, remedy="name Potato's annotation_output")
    for file in files:
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
            worker = str(state["user_id"])
            times = state.get("instance_id_to_behavioral_data") or {}
            for id, pairs in state["instance_id_to_label_to_value"].items():
                wanted = field_names(known[id]) if id in known else {}
                fields = {}
                for label, value in pairs:
                    name = label["schema"]
                    if name in wanted and value not in (None, False, "", "false"):
                        fields[name] = str(value) if wanted[name] is None else str(label["name"])
                seconds = float((times.get(id) or {}).get("total_time_ms") or 0) / 1000
                if fields or id not in known:
                    yield ForeignLabel(id, worker, fields, seconds, f"potato-{worker}-{id}", f"{file}: {id}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RecordError(
                f"not the state of a labeler: {type(error).__name__} {error}", where=file
            ) from None
