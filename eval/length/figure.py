"""Preference against the length ratio: the paper's Fig. 10b."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from eval.common.figures import cell_marks
from eval.common.style import BLACK, METHODS, percent_axis, styled
from eval.preference.figure import PAPER_SERIES
from tldr.errors import UsageError


@styled
def preference_by_ratio(bins: pd.DataFrame, paper: pd.DataFrame | None = None, *, title: str) -> Figure:
    """Share preferred to the reference against ln(words / words of the reference).

    Args:
        bins: of one scorer: ``method``, ``size``, ``log_ratio``, ``value``, ``low``, ``high`` and
            ``fitted``, the regression's curve (missing: none is drawn); one size a method.
        paper: rows of ``fig10b.csv``: hollow points.

    Raises:
        UsageError: nothing to draw.
    """
    if bins.empty:
        raise UsageError("no preference by length to draw")
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    axis = figure.subplots()
    for method, look in METHODS.items():
        part = bins[bins["method"] == method].sort_values("log_ratio")
        if part.empty:
            continue
        bars = np.vstack([part["value"] - part["low"], part["high"] - part["value"]]).clip(min=0)
        axis.errorbar(
            part["log_ratio"],
            part["value"],
            yerr=bars,
            color=look.color,
            marker=look.marker,
            linestyle="none",
            capsize=3.5,
            elinewidth=1.4,
            markersize=7,
            label=f"{look.label}, {part['size'].iloc[0]}",
        )
        cell_marks(axis, part["log_ratio"], part, look.color)
        axis.plot(part["log_ratio"], part["fitted"].astype(float), color=look.color, linewidth=1.8)
    for name, method in PAPER_SERIES.items() if paper is not None else ():
        assert paper is not None
        axis.plot(
            paper[paper["series"] == name]["x"].astype(float),
            paper[paper["series"] == name]["value"],
            METHODS[method].marker,
            color=METHODS[method].color,
            markerfacecolor="white",
            markeredgewidth=2,
            markersize=11,
            linestyle="none",
            zorder=5,
        )
    axis.axvline(0, color=BLACK, linestyle="--", linewidth=1.4, zorder=1)
    axis.axhline(0.5, color=BLACK, linestyle=":", linewidth=1.4, zorder=1)
    axis.set_ylim(-0.02, 1.02)
    axis.set_xlabel("ln(words of the summary / words of the reference)")
    percent_axis(axis, "Preferred to the reference")
    axis.set_title(title)
    if paper is not None:
        axis.plot([], [], "o", color=BLACK, markerfacecolor="white", markersize=11, label="Published, by eye")
    figure.legend(loc="outside lower center", ncols=3)
    return figure
