"""Reward-model accuracy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from eval.figures.base import interval, spacing
from eval.style import BLACK, CYCLE, GREY, MARKERS, Series, parameter_axis, percent_axis, styled
from tldr.errors import UsageError


@styled
def reward_accuracy(table: pd.DataFrame, agreement: float | None = None) -> Figure:
    """Reward-model accuracy against size, beside how often two labelers agree (cf. the paper's Fig. 6).

    Args:
        table: results with ``measure`` valid1_accuracy or valid2_accuracy and ``params``.
        agreement: share of pairs on which two labelers agree: about as good as an RM can look.

    Raises:
        UsageError: no accuracy to draw.
    """
    rows = table[table["measure"].isin(["valid1_accuracy", "valid2_accuracy"])].dropna(subset=["params"])
    if rows.empty:
        raise UsageError("no reward model accuracy to draw")
    figure = Figure(figsize=(7.4, 5), layout="constrained")
    axis = figure.subplots()
    splits = (("valid2_accuracy", "valid2 (reporting)"), ("valid1_accuracy", "valid1 (selection)"))
    for place, (measure, label) in enumerate(splits):
        part = rows[rows["measure"] == measure].sort_values(["params", "seed"])
        if len(part):
            interval(
                axis, part, Series(label, CYCLE[place], MARKERS[place]), shift=spacing(rows) ** (0.5 - place)
            )
    parameter_axis(axis, list(rows["params"]))
    percent_axis(axis, "Accuracy on labelled pairs")
    axis.axhline(0.5, color=GREY, linestyle=":", linewidth=1.8, label="Chance", zorder=1)
    if agreement is not None:
        axis.axhline(
            agreement, color=BLACK, linestyle="--", linewidth=1.4, label="Two labelers agree", zorder=1
        )
    bounds: npt.NDArray[np.float64] = rows[["low", "high", "value"]].to_numpy(dtype=float)
    top = max(float(np.nanmax(bounds)), agreement or 0.0)
    axis.set_ylim(min(0.45, float(np.nanmin(bounds)) - 0.02), min(1.0, top + 0.06))
    axis.set_title("Reward model accuracy")
    figure.legend(loc="outside lower center", ncols=2)
    return figure
