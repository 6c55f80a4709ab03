"""Verdicts over the cells of several reports of one study that were made apart, such as on two machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from eval.claims.contrast import ClaimStep, Missing
from eval.claims.verdicts import outcome, shown_value
from eval.common.beside import CommittedReport
from eval.common.cells import values_of
from eval.common.stats import Estimate, over_cells
from eval.common.tables import write_table
from tldr.errors import UsageError

STEPS_TABLE = "claim_steps"
NOT_POOLED = "not pooled"
"""In place of a verdict, where the reports' steps are not the same."""
POOLED_COLUMNS = ["claim", "ours", "low", "high", "cells", "cell_sd", "holds_in", "step", "verdict"]


def pool_reports(folders: Sequence[Path], out: Path) -> pd.DataFrame:
    """Write ``claims_pooled.{csv,md,tex}`` under `out`: a row per shape, a column per report.

    The interval of every step is one over the cells of all reports (`eval.common.stats.over_cells`), as if
    one study had run them. Steps are matched by their place in the claim where all reports have equally
    many, since the label of one may name a measured value; else by their label, since a policy may lie
    outside a curve in all cells of one report.

    Args:
        folders: of reports with ``tables/claim_steps.csv``, at least two; the folders' names are the
            columns'. A study of one data seed names its cells by the training seed alone, so of two such
            studies with the same training seeds only one can be pooled.

    Returns:
        `POOLED_COLUMNS` and one verdict per report. A shape that a report did not run rests on the others.
        One whose peak lies at different places in the reports is `NOT_POOLED`: the place must be one for
        all cells.

    Raises:
        UsageError: fewer than two reports, two of one name, one without steps, or a cell in two of them.
    """
    names = [folder.resolve().name for folder in folders]
    if len(folders) < 2 or len(set(names)) < len(names):
        raise UsageError("pooling takes two or more reports of different names", remedy="name their folders")
    tables = {name: _steps_of(folder) for name, folder in zip(names, folders, strict=True)}
    _refuse_shared_cells(tables)
    claims = dict.fromkeys(claim for table in tables.values() for claim in table["claim"])
    rows = [
        _row(claim, {name: table[table["claim"] == claim] for name, table in tables.items()})
        for claim in claims
    ]
    pooled = pd.DataFrame(rows, columns=[*POOLED_COLUMNS, *names])
    write_table(pooled, _shown(pooled, names), out, "claims_pooled")
    return pooled


def _steps_of(folder: Path) -> pd.DataFrame:
    table = CommittedReport(folder).table(STEPS_TABLE)
    if table is None:
        raise UsageError(
            f"no tables/{STEPS_TABLE}.csv", where=folder, remedy="build the report again, or leave it out"
        )
    return table


def _refuse_shared_cells(tables: Mapping[str, pd.DataFrame]) -> None:
    seen: dict[str, str] = {}
    for name, table in tables.items():
        for cell in {cell for text in table["cell_values"] for cell in values_of(text)}:
            if cell in seen:
                raise UsageError(
                    f"cell {cell} is in {seen[cell]} and in {name}",
                    remedy="give reports of different data seeds or training seeds",
                )
            seen[cell] = name


def _row(claim: str, parts: Mapping[str, pd.DataFrame]) -> dict[str, object]:
    """The pooled verdict of a claim beside each report's."""
    apart = {
        name: outcome(_steps([part]))["verdict"] if len(part) else "not run here"
        for name, part in parts.items()
    }
    try:
        steps = _steps([part for part in parts.values() if len(part)])
    except Missing:
        return {"claim": claim, "verdict": NOT_POOLED, **apart}
    return {"claim": claim, **outcome(steps), **apart}


def _matched(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all reports with the step that each belongs to, ``place``.

    Raises:
        Missing: a peak lies at different places.
    """
    if any(part["chosen"].any() for part in parts) and len({tuple(part["step"]) for part in parts}) > 1:
        raise Missing("peaks at different places")
    if len({len(part) for part in parts}) == 1:
        return pd.concat([part.assign(place=range(len(part))) for part in parts])
    return pd.concat([part.assign(place=part["step"]) for part in parts])


def _steps(parts: Sequence[pd.DataFrame]) -> list[ClaimStep]:
    """The steps of a claim over all cells of some reports; one cell keeps the interval over its posts.

    Raises:
        Missing: a peak lies at different places.
    """
    steps = []
    for _, part in _matched(parts).groupby("place", sort=False):
        first = part.iloc[0]
        values = {cell: value for text in part["cell_values"] for cell, value in values_of(text).items()}
        alone = len(values) == 1
        low, high = (float(first[end]) if alone else np.nan for end in ("low", "high"))
        found = {cell: Estimate(value, low, high, np.nan, 0, 0) for cell, value in values.items()}
        step = ClaimStep(
            str(first["step"]),
            over_cells(found, level=float(first["level"])),
            str(first["unit"]),
            (),
            values,
            float(first["margin"]),
            bool(first["two_sided"]),
            float(first["level"]),
            bool(first["chosen"]),
        )
        steps.append(step)
    return steps


def _shown(pooled: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """One readable row per shape."""
    known = pooled["ours"].notna()
    held = [
        f"{row.holds_in:.0f} of {row.cells:.0f}" if there else ""
        for row, there in zip(pooled.itertuples(), known, strict=True)
    ]
    return pd.DataFrame(
        {
            "claim": pooled["claim"],
            "verdict": pooled["verdict"],
            "ours": [shown_value(row) for row in pooled.itertuples()],
            "step": pooled["step"].fillna(""),
            "holds_in": held,
            **{name: pooled[name] for name in names},
        }
    )
