"""Time and memory that the runs of a plan really took, from their logs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tldr.plan.study import RunPlan
from tldr.study.folder import DONE, ENVIRONMENT, read_note
from tldr.train.metrics import read_metrics


@dataclass(frozen=True)
class Actual:
    """A finished run: wall time, mean speed over its updates, peak memory of a process."""

    run: str
    hours: float
    tokens_per_s: float
    peak_bytes: float | None
    device: str


def actual(plan: RunPlan, root: Path) -> list[Actual]:
    """The finished runs of a plan in a study's folder, for the current settings.

    `tokens_per_s` counts whole updates: tokens of the training step over wall time, as in the plan.
    """
    found = []
    for run in plan.runs:
        folder = root / run.name
        if not (folder / DONE).exists():
            continue
        rows = read_metrics(folder / "metrics.jsonl")
        note = read_note(folder / ENVIRONMENT)
        seconds = sum(row["tokens"] / row["tokens_per_s"] for row in rows if row.get("tokens_per_s"))
        found.append(
            Actual(
                run.name,
                (note.get("seconds") or 0.0) / 3600,
                sum(row["tokens"] for row in rows) / seconds if seconds else 0.0,
                note.get("peak_bytes"),
                str(note.get("device", "")),
            )
        )
    return found
