"""The labels as files of the project's records, in the order of the items and then of the workers.

``comparisons.jsonl`` and ``ratings.jsonl`` have OpenAI's fields, ``rankings.jsonl`` and
``demonstrations.jsonl`` the project's own. What those formats do not hold is in ``extra``: the seconds at
work and idle, the time of the answer, the order shown, and the marks of held-out, paused and dropped
labelers. Answers to items with known answers are in ``calibration/``, skipped items in ``skipped.jsonl``;
answers of the training round are nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from tldr.label.answers import (
    ComparisonAnswer,
    DemonstrationAnswer,
    RankingAnswer,
    RatingAnswer,
    TaskAnswer,
    TaskKind,
)
from tldr.label.given import GivenLabel
from tldr.records import (
    CandidateSummary,
    Comparison,
    Post,
    Ranking,
    RatedSummary,
    Rating,
    Record,
    write_records,
)

FILES: dict[TaskKind, str] = {
    "comparison": "comparisons.jsonl",
    "ranking": "rankings.jsonl",
    "rating": "ratings.jsonl",
    "demonstration": "demonstrations.jsonl",
}
SKIPPED = "skipped.jsonl"
LabelRecord: TypeAlias = Comparison | Ranking | Rating | Post


class Skipped(Record):
    """A skipped item: the labeler's reason and note."""

    item: str
    id: str | None = None
    worker: str
    batch: str
    reason: str
    note: str = ""


def extra_of(label: GivenLabel) -> dict[str, Any]:
    """What OpenAI's formats have no field for."""
    extra: dict[str, Any] = {
        "item": label.item.id,
        "seconds": label.seconds,
        "idle": label.idle,
        "at": label.at,
        "order": label.order,
    }
    if label.labeler.held_out:
        extra["held_out"] = True
    if label.labeler.status != "active":
        extra["labeler"] = label.labeler.status
    return extra


def _summaries(label: GivenLabel, answer: TaskAnswer) -> list[dict[str, Any]]:
    """The item's summaries with the labeler's notes and interpretations."""
    rows = [summary.model_dump(exclude_unset=True) for summary in label.item.summaries]
    for row, note in zip(rows, answer.notes, strict=False):
        if note.strip():
            row["note"] = note
    for row, text in zip(rows, getattr(answer, "interpretations", []), strict=False):
        row["interpretation"] = text
    return rows


def to_record(label: GivenLabel) -> LabelRecord:
    """One answer as a record.

    Raises:
        ValueError: the label has no answer.
    """
    item, answer, extra = label.item, label.answer, extra_of(label)
    common: dict[str, Any] = {"worker": label.labeler.worker, "batch": item.batch, "split": item.split}
    if isinstance(answer, DemonstrationAnswer):
        post = {"subreddit": "", "title": "", **item.info.model_dump(exclude_unset=True)}
        return Post.model_validate({**post, "summary": answer.summary, **common, "extra": extra})
    if answer is None:
        raise ValueError("a skipped item has no record")
    rows = _summaries(label, answer)
    common["info"] = item.info
    if isinstance(answer, RatingAnswer):
        rated = RatedSummary.model_validate({**rows[0], "axes": answer.axes})
        return Rating.model_validate({**common, "summary": rated, "extra": extra})
    common["summaries"] = [CandidateSummary.model_validate(row) for row in rows]
    if isinstance(answer, RankingAnswer):
        return Ranking.model_validate({**common, "rank": answer.rank, "extra": extra})
    assert isinstance(answer, ComparisonAnswer)
    extra = {"confidence": answer.confidence, **extra}
    return Comparison.model_validate({**common, "choice": answer.choice, "extra": extra})


def write_labels(labels: Sequence[GivenLabel], out: Path, *, leave_out: Iterable[str] = ()) -> dict[str, int]:
    """Write all labels; files of an earlier export are replaced, and those that would be empty are removed.

    Args:
        leave_out: ``dropped`` and ``held-out``: labelers whose labels are not written.

    Returns:
        File -> records.
    """
    leave_out = set(leave_out)
    kept = [
        label
        for label in labels
        if label.item.role != "training"
        and not ("dropped" in leave_out and label.labeler.status == "dropped")
        and not ("held-out" in leave_out and label.labeler.held_out)
    ]
    files: dict[str, list[Record]] = {}
    for folder, role in (("", "label"), ("calibration/", "calibration")):
        for kind, name in FILES.items():
            files[folder + name] = [
                to_record(label)
                for label in kept
                if label.item.role == role and label.item.kind == kind and label.answer is not None
            ]
    files[SKIPPED] = [
        Skipped(
            item=label.item.id,
            id=label.item.info.id,
            worker=label.labeler.worker,
            batch=label.item.batch,
            reason=label.skip["reason"],
            note=label.skip["note"],
        )
        for label in kept
        if label.skip is not None
    ]
    for name, records in files.items():
        if records:
            write_records(out / name, records)
        else:
            (out / name).unlink(missing_ok=True)
    return {name: len(records) for name, records in files.items() if records}
