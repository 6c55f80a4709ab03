"""Best of N: the paper's Fig. 7."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from eval.common.figures import cell_marks, grid, legend_of
from eval.common.style import (
    BLACK,
    BLUE,
    CYCLE,
    GREY,
    MARKERS,
    ORANGE,
    VERMILLION,
    Series,
    percent_axis,
    styled,
)
from tldr.errors import UsageError
from tldr.measures.best_of_n import best_of_n_kl

NAMED = {
    "rm": Series("Its reward model", VERMILLION, "o"),
    "rouge": Series("ROUGE", GREY, "X"),
    "length": Series("Length", ORANGE, "v"),
    "gold": Series("Planted truth (ceiling)", BLACK, "*"),
}
PAPER = {
    "rm4_6.7b": Series("6.7B reward model (rm4)", BLUE, "s"),
    "rm4_1.3b": Series("1.3B reward model (rm4)", VERMILLION, "o"),
    "rm3_1.3b": Series("1.3B reward model (rm3)", CYCLE[2], "^"),
    "rouge": Series("ROUGE", GREY, "X"),
}
_OTHERS = tuple(color for color in CYCLE if color not in (VERMILLION, ORANGE, BLACK))


@styled
def best_of_n_by_chooser(
    panels: Mapping[str, pd.DataFrame], paper: pd.DataFrame | None = None, *, judged: bool = False
) -> Figure:
    """Share preferred to the reference against N on a log2 axis, one line per chooser; KL on the upper axis.

    Args:
        panels: title -> results with ``best_of``, ``selected_by`` and an interval; a panel each.
        paper: rows of ``fig7.csv``, in a panel of their own.
        judged: the shares are a judge's, for whom the planted truth is no ceiling.

    Raises:
        UsageError: nothing to draw.
    """
    count = len(panels) + (paper is not None)
    if not count:
        raise UsageError("no pool of samples to draw")
    figure, axes = grid(count, 6.3, 1.2)
    others = sorted({name for rows in panels.values() for name in rows["selected_by"]} - set(NAMED))
    series = NAMED | ({"gold": replace(NAMED["gold"], label="Planted truth")} if judged else {})
    series |= {
        name: Series(
            f"Reward model {name.removeprefix('rm_').replace('_', ', ', 1)}",
            _OTHERS[i % len(_OTHERS)],
            MARKERS[1 + i % 6],
        )
        for i, name in enumerate(others)
    }
    for axis, (title, rows) in zip(axes, panels.items(), strict=False):
        present = [name for name in series if (rows["selected_by"] == name).any()]
        apart = 1.09 if rows["cells"].max() > 1 else 1.025
        for place, name in enumerate(present):
            part = rows[rows["selected_by"] == name].sort_values("best_of")
            line = "--" if name == "gold" else "-"
            _line(axis, part, series[name], line, apart ** (place - (len(present) - 1) / 2))
        _finish(axis, title, rows["best_of"])
    if paper is not None:
        for name, style in PAPER.items():
            part = paper[paper["series"] == name].astype({"x": float})
            axes[len(panels)].plot(
                part["x"], part["value"], color=style.color, marker=style.marker, label=style.label
            )
        _finish(axes[len(panels)], "Published: Stiennon et al. 2020, Fig. 7", paper["x"].astype(float))
        axes[len(panels)].legend(loc="upper left", fontsize=11)
    named = legend_of(axes[: len(panels)])
    if named:
        figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=3)
    return figure


def _line(axis: Axes, rows: pd.DataFrame, series: Series, line: str, shift: float) -> None:
    bars = np.vstack([rows["value"] - rows["low"], rows["high"] - rows["value"]]).clip(min=0)
    axis.errorbar(
        rows["best_of"] * shift, rows["value"], yerr=bars, color=series.color, marker=series.marker,
        capsize=3, elinewidth=1.4, label=series.label, ls=line,
    )  # fmt: skip
    cell_marks(axis, rows["best_of"] * shift, rows, series.color)


def _finish(axis: Axes, title: str, counts: pd.Series[float]) -> None:
    axis.set_xscale("log", base=2)
    powers = np.arange(int(np.log2(counts.max())) + 1)
    step = 2 if len(powers) > 8 else 1
    axis.xaxis.set_major_locator(FixedLocator([float(2**power) for power in powers[::step]]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.axhline(0.5, color=BLACK, ls=":", lw=1.2, zorder=1)
    axis.set_ylim(-0.02, 1.02)
    axis.set_xlabel("N of best of N (log scale)")
    percent_axis(axis, "Preferred to the reference")
    axis.set_title(title)
    spent = axis.secondary_xaxis("top")
    spent.xaxis.set_major_locator(FixedLocator([float(2**power) for power in powers[::step]]))
    spent.xaxis.set_minor_locator(NullLocator())
    spent.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{float(best_of_n_kl(value)):.1f}"))
    spent.set_xlabel("KL from the sampled policy (nats)")
