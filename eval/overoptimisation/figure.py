"""Preference and score against KL: the paper's Fig. 5, and PPO beside best of N."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from eval.common.cells import values_of
from eval.common.figures import grid, legend_of
from eval.common.style import (
    BLACK,
    BLUE,
    CYCLE,
    GREEN,
    GREY,
    MARKERS,
    METHODS,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    Series,
    percent_axis,
    styled,
)
from eval.judge.verdicts import PREFIX
from eval.overoptimisation.measure import OveroptimisationFit
from tldr.errors import UsageError

PREDICTED = {
    "rm_expected_preference": Series("Predicted: mean sigma(score difference)", BLUE, "s"),
    "rm_preference": Series("Predicted: share scored above the reference", SKY, "D"),
}
PLANTED = {"gold_expected_preference": Series("Actual: planted labelers", VERMILLION, "o")}
VERDICTS = ((BLACK, "v"), (GREEN, "^"), (PURPLE, "P"), (ORANGE, "X"))
"""Colors and markers of people and judges, in order; with more judges they come again."""
PAPER = {
    "rm_predicted": Series("Predicted by the reward model", BLUE, "s"),
    "human": Series("Actual: people", VERMILLION, "o"),
}
TICKS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 25, 75, 250, 1000)
GAINS = {"rm_gain": "Proxy: reward model score", "gold_gain": "Gold: planted score"}


def points(axis: Axes, x: str, rows: pd.DataFrame, series: Series, *, line: str = "-") -> None:
    """Values with intervals both ways, in the order of `x`; ``<x>_low``, ``<x>_high`` bound it.

    Each cell is a small dot at its own KL.
    """
    rows = rows.sort_values(x)
    up, across = (
        np.vstack([rows[name] - rows[low], rows[high] - rows[name]]).clip(min=0)
        for name, low, high in (("value", "low", "high"), (x, f"{x}_low", f"{x}_high"))
    )
    axis.errorbar(
        rows[x], rows["value"], yerr=up, xerr=across, color=series.color, marker=series.marker, ls=line,
        capsize=3, elinewidth=1.4, label=series.label,
    )  # fmt: skip
    for text, places, kl in zip(rows["cell_values"], rows["kl_cells"], rows["kl"], strict=True):
        values = values_of(text)
        at = np.array([values_of(places).get(cell, kl) for cell in values], dtype=np.float64)
        axis.plot(
            np.sqrt(at.clip(min=0)) if x == "d" else at, list(values.values()), ls="none", marker="o",
            ms=4.5, mew=0, alpha=0.6, color=series.color, zorder=3,
        )  # fmt: skip


def kl_axis(axis: Axes, highest: float) -> None:
    """x axis of KL in nats on a log(1 + KL) scale, as in the paper's Fig. 5."""
    axis.set_xscale("function", functions=(np.log1p, np.expm1))
    kept = [0.0]
    for tick in TICKS:
        if tick <= highest * 1.1 and np.log1p(tick) - np.log1p(kept[-1]) > np.log1p(highest) / 10:
            kept.append(tick)
    axis.xaxis.set_major_locator(FixedLocator(kept))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_xlim(np.expm1(-0.04 * np.log1p(highest)), np.expm1(1.05 * np.log1p(highest)))
    axis.set_xlabel("KL from the supervised policy (nats, log(1 + KL))")


@styled
def kl_sweep(panels: Mapping[str, pd.DataFrame], paper: pd.DataFrame | None = None) -> Figure:
    """Share preferred to the reference against KL, as predicted and actually (the paper's Fig. 5).

    Args:
        panels: title -> results with ``measure``, ``kl`` and intervals of both; a panel each.
        paper: rows of ``fig5.csv``, in a panel of their own.

    Raises:
        UsageError: nothing to draw.
    """
    count = len(panels) + (paper is not None)
    if not count:
        raise UsageError("no KL sweep to draw")
    figure, axes = grid(count, 6.6, 1.3)
    for axis, (title, rows) in zip(axes, panels.items(), strict=False):
        for measure, series in (PREDICTED | PLANTED | _verdict_series(rows["measure"])).items():
            part = rows[rows["measure"] == measure]
            if len(part):
                points(axis, "kl", part, series, line="--" if measure == "rm_preference" else "-")
        _finish(axis, title, float(rows["kl_high"].max()))
    if paper is not None:
        curves = paper.astype({"x": float})
        for name, series in PAPER.items():
            part = curves[curves["series"] == name].sort_values("x")
            axes[len(panels)].plot(
                part["x"], part["value"], color=series.color, marker=series.marker, label=series.label
            )
        _finish(axes[len(panels)], "Published: Stiennon et al. 2020, Fig. 5", float(curves["x"].max()))
        axes[len(panels)].legend(loc="upper left", fontsize=11, borderaxespad=0.1)
    named = legend_of(axes[: len(panels)])
    if named:
        figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=2)
    return figure


def _verdict_series(measures: Iterable[str]) -> dict[str, Series]:
    """The measures that are shares of verdicts (`eval.judge.verdicts.PREFIX`), and how they are drawn."""
    ours = [name for name in dict.fromkeys(measures) if name.startswith(PREFIX)]
    judges = {name: name.removeprefix(PREFIX).removesuffix("_preference") for name in ours}
    kept = {name: judge for name, judge in judges.items() if not judge.endswith("_expected")}
    return {
        name: Series(f"Actual: {judge}", *VERDICTS[place % len(VERDICTS)])
        for place, (name, judge) in enumerate(kept.items())
    }


def _finish(axis: Axes, title: str, highest: float) -> None:
    axis.axhline(0.5, color=GREY, ls=":", lw=1.4, zorder=1)
    kl_axis(axis, highest)
    percent_axis(axis, "Preferred to the reference")
    axis.set_ylim(-0.02, 1.02)
    axis.set_title(title)


@styled
def gains_by_kl(table: pd.DataFrame, fits: Mapping[tuple[str, str], OveroptimisationFit]) -> Figure:
    """Score gained over the start against d = sqrt(KL): the proxy that is optimised, and gold.

    Args:
        table: results with ``measure`` rm_gain or gold_gain, ``kl`` and intervals of both, ``sweep``
            (points that belong together), and ``line``, what a line stands for (``ppo``, ``best_of_n``,
            or any label).
        fits: (line, measure) -> fitted curve, drawn through the points instead of joining them.

    Raises:
        UsageError: nothing to draw.
    """
    panels = [measure for measure in GAINS if (table["measure"] == measure).any()]
    if not panels:
        raise UsageError("no gain to draw")
    rows = table.assign(
        **{f"d{end}": np.sqrt(table[f"kl{end}"].clip(lower=0)) for end in ("", "_low", "_high")}
    )
    series = _line_series(list(dict.fromkeys(rows["line"])))
    figure = Figure(figsize=(6.3 * len(panels), 5.4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, measure in zip(axes, panels, strict=True):
        for name, style in series.items():
            part = rows[(rows["line"] == name) & (rows["measure"] == measure)]
            fit = fits.get((name, measure))
            for place, (_, run) in enumerate(part.groupby("sweep", sort=False)):
                named = style if place == 0 else replace(style, label="_another")
                points(axis, "d", run, named, line="none" if fit else "-")
            if fit is not None:
                d = np.linspace(0, float(part["d"].max()) * 1.02, 200)
                axis.plot(d, fit.predict(np.square(d)), color=style.color, lw=2, alpha=0.75)
        axis.axhline(0, color=BLACK, lw=1, zorder=1)
        axis.set_title(GAINS[measure])
        axis.set_xlabel("d = sqrt(KL from the start) (sqrt nats)")
        axis.set_ylabel("Score gained over the start")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
    return figure


def _line_series(lines: list[str]) -> dict[str, Series]:
    """Methods as everywhere; other lines in the order of the colours."""
    others = [name for name in lines if name not in METHODS]
    made = {
        name: Series(name, CYCLE[place % len(CYCLE)], MARKERS[place % len(MARKERS)])
        for place, name in enumerate(others)
    }
    return {name: METHODS.get(name) or made[name] for name in lines}
