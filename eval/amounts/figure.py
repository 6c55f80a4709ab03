"""Preference to the reference against the number of demonstrations, or of prompts."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eval.amounts.data import PPO, DataKind
from eval.common.figures import cell_marks, interval, legend_of, spacing
from eval.common.style import BLACK, CYCLE, GREY, MARKERS, Series, parameter_axis, percent_axis, styled
from eval.common.tables import human_count
from tldr.errors import UsageError


@styled
def preference_by_amount(rows: pd.DataFrame, kind: DataKind, *, title: str) -> Figure:
    """Share preferred to the reference against the kind of data on a log axis, one line a size.

    What stands beside (PPO beside demonstrations, SFT beside prompts) is a dashed line of the same colour at
    each size, its interval a hollow point: right of the line where it is PPO, left where it is SFT, which has
    seen no prompt.

    Args:
        rows: results of one measure and scorer: of the kind's method with its amount, a row an amount and
            size, and of the method beside, a row a size.

    Raises:
        UsageError: no policy with an amount.
    """
    own = rows[(rows["method"] == kind.stage) & rows[kind.name].notna()].astype({kind.name: float})
    if own.empty:
        raise UsageError(f"no {kind.own} with a number of {kind.name} to draw")
    figure = Figure(figsize=(7.4, 5.8), layout="constrained")
    axis = figure.subplots()
    amounts = own[kind.name]
    parameter_axis(axis, list(amounts))
    low, high = float(amounts.min()), float(amounts.max())
    width = high / low if high > low else 4.0
    end, outwards = (high, 1) if kind.beside == PPO else (low, -1)
    sizes = own.drop_duplicates("size").sort_values("params")
    step = spacing(own, x=kind.name)
    for place, size in enumerate(sizes.itertuples()):
        middle = place - (len(sizes) - 1) / 2
        series = Series(_size_label(size), CYCLE[place % len(CYCLE)], MARKERS[place % len(MARKERS)])
        part = own[own["size"] == size.size].sort_values(kind.name)
        interval(axis, part, series, shift=step**middle, x=kind.name)
        beside = rows[(rows["method"] == kind.beside) & (rows["size"] == size.size)]
        _beside(axis, beside, series, end * width ** (outwards * 0.16 + 0.05 * middle))
    near, far = width**0.09, width ** (0.22 + 0.025 * len(sizes))
    axis.set_xlim(*((low / near, high * far) if outwards > 0 else (low / far, high * near)))
    reference = axis.axhline(0.5, color=BLACK, linestyle=":", linewidth=1.4, zorder=1)
    axis.set_ylim(-0.02, 1)
    axis.set_xlabel(kind.axis)
    percent_axis(axis, "Preferred to the reference")
    axis.set_title(title)
    named = legend_of([axis])
    if (rows["method"] == kind.beside).any():
        named[kind.other] = Line2D([], [], color=GREY, linestyle="--", marker="o", markerfacecolor="white")
    named["Reference"] = reference
    figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=2, handlelength=3)
    return figure


def _beside(axis: Axes, rows: pd.DataFrame, series: Series, place: float) -> None:
    """The value of the policy beside as a dashed line across, and its interval at `place`."""
    for _, row in rows.iterrows():
        axis.axhline(row["value"], color=series.color, linestyle="--", linewidth=1.6, zorder=1)
        bars = [[max(0.0, row["value"] - row["low"])], [max(0.0, row["high"] - row["value"])]]
        axis.errorbar(
            [place],
            [row["value"]],
            yerr=bars,
            color=series.color,
            marker=series.marker,
            markerfacecolor="white",
            linestyle="none",
            capsize=4,
            elinewidth=1.6,
        )
        cell_marks(axis, [place], row.to_frame().T, series.color)


def _size_label(row: object) -> str:
    params = human_count(getattr(row, "params", None))
    return f"Size {getattr(row, 'size', '')}" + (f" ({params})" if params else "")
