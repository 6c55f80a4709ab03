"""Preference to the reference against the number of demonstrations, beside PPO of the same size."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eval.common.figures import cell_marks, interval, legend_of, spacing
from eval.common.style import BLACK, CYCLE, GREY, MARKERS, Series, parameter_axis, percent_axis, styled
from eval.common.tables import human_count
from tldr.errors import UsageError

DEMONSTRATIONS = "demonstrations"


@styled
def preference_by_demonstrations(rows: pd.DataFrame, *, title: str) -> Figure:
    """Share preferred to the reference against SFT posts on a log axis, one line a size.

    PPO of the same size is a dashed line of the same colour, its interval a hollow point at the right end.

    Args:
        rows: results of one measure and scorer: of method ``sft`` with ``demonstrations``, a row an amount
            and size, and of method ``ppo``, a row a size.

    Raises:
        UsageError: no supervised policy with a number of demonstrations.
    """
    supervised = rows[(rows["method"] == "sft") & rows[DEMONSTRATIONS].notna()].astype(
        {DEMONSTRATIONS: float}
    )
    if supervised.empty:
        raise UsageError("no supervised policy with a number of demonstrations to draw")
    figure = Figure(figsize=(7.4, 5.8), layout="constrained")
    axis = figure.subplots()
    amounts = supervised[DEMONSTRATIONS]
    parameter_axis(axis, list(amounts))
    low, high = float(amounts.min()), float(amounts.max())
    width = high / low if high > low else 4.0
    sizes = supervised.drop_duplicates("size").sort_values("params")
    step = spacing(supervised, x=DEMONSTRATIONS)
    for place, size in enumerate(sizes.itertuples()):
        middle = place - (len(sizes) - 1) / 2
        series = Series(_size_label(size), CYCLE[place % len(CYCLE)], MARKERS[place % len(MARKERS)])
        part = supervised[supervised["size"] == size.size].sort_values(DEMONSTRATIONS)
        interval(axis, part, series, shift=step**middle, x=DEMONSTRATIONS)
        reached = rows[(rows["method"] == "ppo") & (rows["size"] == size.size)]
        _reached(axis, reached, series, high * width ** (0.16 + 0.05 * middle))
    axis.set_xlim(low / width**0.09, high * width ** (0.22 + 0.025 * len(sizes)))
    reference = axis.axhline(0.5, color=BLACK, linestyle=":", linewidth=1.4, zorder=1)
    axis.set_ylim(-0.02, 1)
    axis.set_xlabel("Demonstrations (posts that SFT trains on, log scale)")
    percent_axis(axis, "Preferred to the reference")
    axis.set_title(title)
    named = legend_of([axis])
    if (rows["method"] == "ppo").any():
        named["PPO of the same size"] = Line2D(
            [], [], color=GREY, linestyle="--", marker="o", markerfacecolor="white"
        )
    named["Reference"] = reference
    figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=2, handlelength=3)
    return figure


def _reached(axis: Axes, rows: pd.DataFrame, series: Series, place: float) -> None:
    """PPO's value as a dashed line across, and its interval at `place`."""
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
