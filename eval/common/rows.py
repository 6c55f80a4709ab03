"""Result tables with further columns, and the settings of the runs behind them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from eval.common.cells import values_of
from eval.common.runs import StudyRun, StudyRuns
from eval.common.stats import Estimate
from eval.common.tables import MeasuredResult, human_count, result_table

FurtherResult = tuple[MeasuredResult, dict[str, Any]]
"""A result and its further columns."""


def further_table(rows: Iterable[FurtherResult], *further: str) -> pd.DataFrame:
    """`eval.common.tables.result_table` with the columns `further` added (missing: None)."""
    known = list(rows)
    more = pd.DataFrame([{name: one.get(name) for name in further} for _, one in known], columns=[*further])
    return pd.concat([result_table(result for result, _ in known), more], axis=1)


def row_estimate(row: pd.Series[Any]) -> Estimate:
    """The estimate in a row of `eval.common.stats.table_over_cells`."""
    value, low, high, se = (float(row[name]) for name in ("value", "low", "high", "se"))
    spread = None if pd.isna(row["cell_sd"]) else float(row["cell_sd"])
    counts = int(row["n"]), int(row["posts"]), int(row["cells"])
    cells = tuple(values_of(row["cell_values"]).items())
    return Estimate(value, low, high, se, *counts, spread, cells)


def texts_of(table: pd.DataFrame) -> list[str]:
    """Each row's value and interval as text."""
    numbers = zip(table["value"], table["low"], table["high"], strict=True)
    return [f"{_text(value)} [{_text(low)}, {_text(high)}]" for value, low, high in numbers]


def _text(number: float) -> str:
    # Adding 0.0 turns a -0.0 that rounding left into 0.0.
    return f"{round(number, 3) + 0.0:.3f}" if abs(number) < 1e5 else f"{number:.2g}"


def listed(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """`columns` of a result table, each value with its interval, n, posts and runs: a row per number."""
    shown = table.assign(value=texts_of(table), params=table["params"].map(human_count))
    return shown[[*columns, "value", "n", "posts", "runs"]].astype(object).where(lambda t: t.notna(), "")


def crossed(table: pd.DataFrame, index: list[str], column: str) -> pd.DataFrame:
    """A row for each `index`, a column for each value of `column`, in the table's order."""
    known = table.assign(text=texts_of(table), params=table["params"].map(human_count))
    known[index] = known[index].astype(object).where(known[index].notna(), "")
    shown = known.pivot_table(index=index, columns=column, values="text", aggfunc="first", sort=False)
    return shown.reset_index().rename_axis(columns=None).fillna("")


def settings_of(run: StudyRun) -> dict[str, Any]:
    """The resolved settings of a run's stage (``run.json``); empty where it left none."""
    settings: dict[str, Any] = (run.json("run.json") or {}).get("settings") or {}
    return settings


def runs_by_name(runs: StudyRuns) -> dict[str, StudyRun]:
    """Every run of a study under the name its children call it by."""
    return {run.run: run for run in runs.runs}


def intervals(table: pd.DataFrame, unit: str = "posts") -> str:
    """What a table's intervals are: over cells, or in one draw over posts (or another `unit`)."""
    cells = table["cells"] if len(table) else pd.Series([1])
    fewest, most = int(cells.min()), int(cells.max())
    if most == 1:
        return f"95 % intervals over {unit} (one draw)"
    counts = f"{most}" if fewest == most else f"up to {most}"
    alone = f"; what has one cell: over {unit} (one draw)" if fewest == 1 else ""
    return f"95 % t intervals over {counts} cells{alone}"


def bars(table: pd.DataFrame, unit: str = "posts") -> str:
    """What a figure's bars and dots are, as its caption says it."""
    several = len(table) and table["cells"].max() > 1
    return f"bars: {intervals(table, unit)}" + ("; small dots: single cells" if several else "")
