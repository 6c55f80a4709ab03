"""Label Studio: tasks with annotations as JSON, and the labeling configuration as XML, for each task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from tldr.errors import RecordError
from tldr.label.answers import AXES
from tldr.label.desk import SKIP_REASONS
from tldr.label.foreign import (
    CONFIDENCES,
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


def _text(name: str, heading: str) -> str:
    return f'  <Header value={quoteattr(heading)}/>\n  <Text name="{name}" value="${name}"/>\n'


def _choices(name: str, to: str, values: Iterable[str]) -> str:
    choices = "".join(f"<Choice value={quoteattr(value)}/>" for value in values)
    return f'  <Choices name="{name}" toName="{to}" choice="single-radio">{choices}</Choices>\n'


def _area(name: str, to: str, words: str, *, rows: int = 2) -> str:
    return (
        f'  <TextArea name="{name}" toName="{to}" placeholder={quoteattr(words)} rows="{rows}"'
        ' maxSubmissions="1" editable="true"/>\n'
    )


def config_xml(kind: str, summaries: int) -> str:
    """The labeling configuration of a task.

    Args:
        summaries: most summaries of an item.
    """
    parts = [_text("title", "Post"), '  <Text name="post" value="$post"/>\n']
    for place in range(1, summaries + 1):
        name = f"summary_{place}"
        parts.append(_text(name, f"Summary {place}"))
        if kind == "ranking":
            parts.append(f'  <Number name="rank_{place}" toName="{name}" min="1" max="{summaries}"/>\n')
        if kind == "comparison":
            parts.append(
                _area(f"says_{place}", name, "What does this summary say on its own? (if asked for)")
            )
        parts.append(_area(f"note_{place}", name, "A note"))
    if kind == "comparison":
        parts.append('  <Header value="1: summary 1 is certainly better. 9: summary 2 is."/>\n')
        parts.append(_choices("confidence", "post", CONFIDENCES))
    if kind == "rating":
        for axis in AXES:
            parts.append(f"  <Header value={quoteattr(axis.capitalize())}/>\n")
            parts.append(f'  <Rating name="{axis}" toName="summary_1" maxRating="7"/>\n')
    if kind == "demonstration":
        parts.append(_area("summary", "post", "Write a summary", rows=6))
    parts.append(_choices("skip", "post", SKIP_REASONS))
    parts.append(_area("skip_note", "post", "Why skip it?"))
    parts.append(
        f'  <View style="display:none">\n  {_area("worker", "post", escape("who labeled"))}  </View>\n'
    )
    return f"<View>\n{''.join(parts)}</View>\n"


def _result(name: str, text: str) -> dict[str, Any]:
    """A field as one result of an annotation."""
    place = name.rpartition("_")[2]
    on_summary = place.isdigit() or name in AXES
    value: dict[str, Any] = {"text": [text]}
    kind = "textarea"
    if name in ("confidence", "skip"):
        kind, value = "choices", {"choices": [text]}
    elif name.startswith("rank_"):
        kind, value = "number", {"number": int(text)}
    elif name in AXES:
        kind, value = "rating", {"rating": int(text)}
    to = f"summary_{place if place.isdigit() else 1}" if on_summary else "post"
    return {"from_name": name, "to_name": to, "type": kind, "value": value}


def _annotation(label: GivenLabel) -> dict[str, Any]:
    fields = to_fields(label) | {"worker": label.labeler.worker}
    return {
        "unique_id": label.answer_id,
        "lead_time": label.seconds,
        "was_cancelled": label.skip is not None,
        "result": [_result(name, text) for name, text in fields.items()],
    }


def write_label_studio(items: Sequence[LabelItem], labels: Sequence[GivenLabel], out: Path) -> dict[str, int]:
    """Write ``KIND-tasks.json`` and ``KIND-config.xml`` for each task.

    Returns:
        File -> tasks.
    """
    given, counts = by_item_id(labels), {}
    for kind, asked in outside_items(items).items():
        most = max(len(item.summaries) for item in asked)
        tasks = []
        for item in asked:
            texts = [*shown_texts(item), *[""] * (most - len(item.summaries))]
            data = {
                "item": item.id,
                "title": item.info.title or "",
                "post": item.info.post or item.info.article,
            }
            data |= {f"summary_{place}": text for place, text in enumerate(texts, 1)}
            annotations = [_annotation(label) for label in given.get(item.id, [])]
            tasks.append({"data": data, "annotations": annotations})
        write_json(out / f"{kind}-tasks.json", tasks)
        (out / f"{kind}-config.xml").write_text(config_xml(kind, most), encoding="utf-8")
        counts[f"{kind}-tasks.json"] = len(tasks)
    return counts


def read_label_studio(path: Path, items: Sequence[LabelItem]) -> Iterator[ForeignLabel]:
    """The annotations of a JSON export of Label Studio; drafts and predictions are not read.

    Args:
        items: the items of the folder.

    Raises:
        UsageError: the file is not such an export.
        RecordError: a task or an annotation is invalid.
    """
    known = {item.id: item for item in items}
    tasks = read_list(path, "tasks", "export as JSON, not as JSON-MIN or CSV")
    for number, task in enumerate(tasks):
        where = f"{path}: task {number}"
        try:
            id, annotations = task["data"]["item"], task["annotations"]
            for place, annotation in enumerate(annotations):
                found = _fields(annotation["result"])
                worker = found.pop("worker", None) or _person(annotation.get("completed_by"))
                if annotation.get("was_cancelled") and "skip" not in found:
                    found["skip"] = "other"
                wanted = field_names(known[id]) if id in known else {}
                fields = {name: text for name, text in found.items() if name in wanted}
                unique = (
                    annotation.get("unique_id") or f"label-studio-{annotation.get('id', f'{id}-{worker}')}"
                )
                seconds = float(annotation.get("lead_time") or 0.0)
                yield ForeignLabel(id, worker, fields, seconds, str(unique), f"{where}, annotation {place}")
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise RecordError(
                f"not a task of this project: {type(error).__name__} {error}", where=where
            ) from None


def _fields(result: Sequence[dict[str, Any]]) -> dict[str, str]:
    fields = {}
    for entry in result:
        (value,) = (
            entry["value"][key] for key in ("text", "choices", "number", "rating") if key in entry["value"]
        )
        fields[entry["from_name"]] = "\n".join(value) if isinstance(value, list) else str(value)
    return fields


def _person(completed_by: Any) -> str:
    if isinstance(completed_by, dict):
        completed_by = completed_by.get("id", completed_by.get("email"))
    return f"label-studio-{completed_by if completed_by is not None else 'unknown'}"
