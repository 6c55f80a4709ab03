"""What runs of a plan took, from what they wrote while they ran."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tldr.plan.study import RunPlan
from tldr.study.folder import DONE, ENVIRONMENT, read_note
from tldr.train.metrics import read_metrics

PEAK = "peak_bytes"
"""The metrics' column with a process's peak memory, where the run wrote one."""


@dataclass(frozen=True)
class Actual:
    """A finished run: wall time, mean speed over its updates, peak memory of a process."""

    run: str
    hours: float
    tokens_per_s: float
    peak_bytes: float | None
    device: str


def actual(plan: RunPlan, root: Path) -> list[Actual]:
    """The runs of a plan that are done in a study's folder, as it is set now.

    `tokens_per_s` is of whole updates, tokens through the training step over wall time, as planned.
    """
    found = []
    for run in plan.runs:
        folder = root / run.name
        if not (folder / DONE).exists():
            continue
        rows = read_metrics(folder / "metrics.jsonl")
        note = read_note(folder / ENVIRONMENT)
        seconds = sum(row["tokens"] / row["tokens_per_s"] for row in rows if row.get("tokens_per_s"))
        peaks = [row[PEAK] for row in rows if PEAK in row]
        found.append(
            Actual(
                run.name,
                (note.get("seconds") or 0.0) / 3600,
                sum(row["tokens"] for row in rows) / seconds if seconds else 0.0,
                max(peaks, default=None),
                str(note.get("device", "")),
            )
        )
    return found
