"""Verdicts: a claim, this study's value with its interval and runs, and what follows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from eval.claims.contrast import ClaimStep, Missing
from eval.claims.evidence import Evidence
from eval.claims.schema import Citation, ShapeClaim, cited_rows
from eval.common.cells import cell_order, listed_values
from tldr.errors import UsageError

ClaimVerdict = Literal["reproduced", "not reproduced", "not run here"]
SYMBOLS: dict[str, str] = {"reproduced": "+", "not reproduced": "-", "not run here": "o"}
"""Plain characters: they survive Markdown, LaTeX and screen readers."""
COLUMNS = [
    *("claim", "kind", "paper", "ours", "low", "high", "n"),
    *("cells", "cell_sd", "holds_in", "step", "runs", "verdict"),
]
"""Of ``claims.csv``."""
STEP_COLUMNS = [
    *("claim", "step", "ours", "low", "high", "unit", "margin", "two_sided", "level", "chosen", "holds"),
    *("n", "cells", "cell_sd", "holds_in", "cell_values"),
]
"""Of ``claim_steps.csv``."""


@dataclass(frozen=True)
class ClaimRow:
    """A claim with its verdict.

    Attributes:
        paper: the published number, or for a shape the place that states it.
        where, tag, source: the place in the paper, how sure it is, the paper.
        ours, low, high: in `unit`; of a shape the effect at its weakest step.
        n: observations (posts or pairs); `runs`: ids, empty only where nothing was run.
        cells: repetitions with all that the claim compares; with one the verdict rests on one draw.
        cell_sd: standard deviation of `ours` between cells, None with one.
        step: of a shape the label of its weakest step.
        holds_in: in how many of them each step's own mean lies on the claimed side; None of a number.
        steps: of a shape all that it requires.

    Raises:
        UsageError: a verdict without the runs it came from.
    """

    id: str
    claim: str
    kind: Literal["number", "shape"]
    paper: str
    where: str
    tag: str
    source: str
    verdict: ClaimVerdict
    note: str
    ours: float = math.nan
    low: float = math.nan
    high: float = math.nan
    unit: str = ""
    n: int = 0
    cells: int = 0
    cell_sd: float | None = None
    holds_in: int | None = None
    step: str = ""
    runs: tuple[str, ...] = ()
    steps: tuple[ClaimStep, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.verdict != "not run here" and (not self.runs or not all(self.runs) or self.n < 1):
            raise UsageError(
                f"{self.verdict}, but the runs it came from are not known",
                where=f"claim {self.id}",
                remedy="a sample must name its run: write the file again, or leave it out of the study",
            )


def row_table(rows: list[ClaimRow]) -> pd.DataFrame:
    """All fields of the rows; runs become one string, joined by spaces. What was not run has no counts."""
    fields = [{name: value for name, value in vars(row).items() if name != "steps"} for row in rows]
    table = pd.DataFrame([{**row, "runs": " ".join(row["runs"])} for row in fields])
    table["cells"] = table["cells"].where(table["n"] > 0)
    counts = {name: table[name].astype("Int64") for name in ("cells", "holds_in")}
    return table.assign(n=table["n"].replace(0, pd.NA).astype("Int64"), **counts)


def shown_value(row: Any) -> str:
    """A value with its interval, of any row with ``ours``, ``low`` and ``high``; "" without a value."""
    if pd.isna(row.ours):
        return ""
    return f"{row.ours:.3f}" + ("" if pd.isna(row.low) else f" [{row.low:.3f}, {row.high:.3f}]")


def step_table(rows: list[ClaimRow]) -> pd.DataFrame:
    """Every step of every shape, with its own effect in each cell (`listed_values`)."""
    steps = [(row.claim, step) for row in rows if "@" not in row.id for step in row.steps]
    return pd.DataFrame(
        [
            {
                "claim": claim,
                "step": step.label,
                "ours": step.effect.value,
                "low": step.effect.low,
                "high": step.effect.high,
                "unit": step.unit,
                "margin": step.margin,
                "two_sided": step.two_sided,
                "level": step.level,
                "chosen": step.chosen,
                "holds": step.holds,
                "n": step.effect.n,
                "cells": len(step.cells),
                "cell_sd": step.effect.cell_sd,
                "holds_in": sum(map(step.holds_in, step.cells)),
                "cell_values": listed_values(step.cells.items()),
            }
            for claim, step in steps
        ],
        columns=STEP_COLUMNS,
    )


def shape_rows(claim: ShapeClaim, evidence: Evidence, draws: int) -> list[ClaimRow]:
    """A shape's verdict; one more a step where the claim is to be split."""
    tag, source = _cited(claim.paper, evidence.study.paper)

    about: dict[str, Any] = {
        "kind": "shape",
        "paper": claim.where,
        "where": claim.where,
        "tag": tag,
        "source": source,
    }

    def made(name: str, text: str, steps: list[ClaimStep], left_out: list[str]) -> ClaimRow:
        weakest = weakest_of(steps)
        return ClaimRow(
            id=name,
            claim=text,
            **about,
            **outcome(steps),
            note=_note(steps, weakest, left_out, evidence.study.runs.cells),
            unit=weakest.unit,
            n=weakest.effect.n,
            runs=tuple(sorted({run for step in steps for run in step.runs})),
            steps=tuple(steps),
        )

    try:
        steps, left_out = claim.steps(evidence, draws)
    except Missing as missing:
        return [ClaimRow(claim.id, claim.text, **about, verdict="not run here", note=str(missing))]
    rows = [made(claim.id, claim.text, steps, left_out)]
    if claim.split and len(steps) > 1:
        rows += [
            made(f"{claim.id}@{step.label}", f"{claim.text} ({step.label})", [step], []) for step in steps
        ]
    return rows


def _cited(paper: Citation, folder: Path) -> tuple[str, str]:
    """Tag and source of a shape."""
    if paper.file is None:
        return str(paper.tag), str(paper.source)
    rows = cited_rows(paper.file, paper.items, folder, paper.file)
    return ", ".join(dict.fromkeys(rows["tag"])), str(rows["source"].iloc[0])


def weakest_of(steps: list[ClaimStep]) -> ClaimStep:
    """The step whose value a claim shows: the farthest from holding, and one that fails if any does."""
    return min(steps, key=lambda step: (step.holds, step.strength))


def outcome(steps: list[ClaimStep]) -> dict[str, Any]:
    """The verdict of a claim's steps and the value of the weakest, by the names of `ClaimRow`."""
    weakest, cells = weakest_of(steps), _complete(steps)
    return {
        "verdict": "reproduced" if all(step.holds for step in steps) else "not reproduced",
        "ours": weakest.effect.value,
        "low": weakest.effect.low,
        "high": weakest.effect.high,
        "cells": len(cells),
        "cell_sd": weakest.effect.cell_sd,
        "step": weakest.label,
        "holds_in": _holding(steps, cells),
    }


def _holding(steps: list[ClaimStep], cells: list[str]) -> int:
    """The number of cells in which each step's own effect lies on the claimed side."""
    return sum(all(step.holds_in(cell) for step in steps) for cell in cells)


def _complete(steps: list[ClaimStep]) -> list[str]:
    """The cells that have every step."""
    return sorted(set.intersection(*(set(step.cells) for step in steps)), key=cell_order)


def _cells_note(steps: list[ClaimStep], weakest: ClaimStep, every: list[str]) -> list[str]:
    """How many cells the verdict rests on and agree with it, their spread, and the cells that are missing."""
    cells = _complete(steps)
    holding = _holding(steps, cells)
    parts = ["one draw"] if len(cells) == 1 else [f"holds in {holding} of {len(cells)} cells"]
    if weakest.effect.cell_sd is not None:
        parts.append(f"sd between cells {weakest.effect.cell_sd:.3g}")
    known = set(every).union(*(step.cells for step in steps))
    lacking = sorted(known - set(cells), key=cell_order)
    return parts + ([f"without {', '.join(lacking)}"] if lacking else [])


def _note(steps: list[ClaimStep], weakest: ClaimStep, left_out: list[str], cells: list[str]) -> str:
    parts = []
    failed = [step for step in steps if not step.holds]
    if failed and len(steps) > 1:
        parts.append(f"{len(failed)} of {len(steps)} steps fail")
    if len(steps) > 1:
        parts.append(f"weakest: {weakest.label}")
    if failed:
        parts += _why(failed, len(steps) > 1)
    if weakest.margin:
        parts.append(f"margin {weakest.margin:g}")
    parts += _cells_note(steps, weakest, cells)
    if left_out:
        parts.append(f"not run at {', '.join(left_out)}")
    return "; ".join(parts)


def _why(failed: list[ClaimStep], several: bool) -> list[str]:
    """Whether the failing steps go the other way, or are too close to call."""
    beyond = "beyond the margin" if failed[0].two_sided else "the other way"
    said = {
        beyond: [step.label for step in failed if step.refuted],
        "not distinguishable here": [step.label for step in failed if not step.refuted],
    }
    return [what + (f": {', '.join(at)}" if several else "") for what, at in said.items() if at]
