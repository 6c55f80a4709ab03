"""Reward models: accuracy (the paper's Fig. 6) and calibration."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from eval.common.figures import cell_marks, interval, spacing
from eval.common.style import (
    BLACK,
    CYCLE,
    GREY,
    MARKERS,
    Series,
    parameter_axis,
    percent_axis,
    styled,
)
from eval.common.tables import human_count
from tldr.errors import UsageError

ACCURACY = "Accuracy on labelled pairs"


@styled
def reward_accuracy(
    table: pd.DataFrame, agreement: float | None = None, paper: pd.DataFrame | None = None
) -> Figure:
    """Reward-model accuracy against size, one line per amount of labels (the paper's Fig. 6).

    With one amount of labels both splits are drawn; with several valid2 (reporting) alone.

    Args:
        table: results with ``measure`` valid1_accuracy or valid2_accuracy, ``params`` and, where
            models were trained on fewer labels, ``variant`` and ``rankings``.
        agreement: share of pairs on which two labelers agree: about as good as an RM can look.
        paper: rows of ``fig6.csv``, drawn in a second panel of their own.

    Raises:
        UsageError: no accuracy to draw.
    """
    rows = table[table["measure"].isin(["valid1_accuracy", "valid2_accuracy"])].dropna(subset=["params"])
    if rows.empty:
        raise UsageError("no reward model accuracy to draw")
    lines = _lines(rows)
    figure = Figure(figsize=(12.5 if paper is not None else 7.4, 5.4), layout="constrained")
    panels = figure.subplots(1, 2 if paper is not None else 1, sharey=True, squeeze=False)[0]
    for place, (label, part) in enumerate(lines.items()):
        shift = spacing(rows) ** ((len(lines) - 1) / 2 - place)
        series = Series(label, CYCLE[place % len(CYCLE)], MARKERS[place % len(MARKERS)])
        interval(panels[0], part.sort_values("params"), series, shift=shift)
    parameter_axis(panels[0], list(rows["params"]))
    percent_axis(panels[0], ACCURACY)
    panels[0].set_title("This study" if paper is not None else "Reward model accuracy")
    if agreement is not None:
        panels[0].axhline(agreement, color=BLACK, ls="--", lw=1.4, label="Two labelers agree", zorder=1)
    bounds: npt.NDArray[np.float64] = rows[["low", "high", "value"]].to_numpy(dtype=float)
    low, high = float(np.nanmin(bounds)) - 0.02, max(float(np.nanmax(bounds)), agreement or 0.0)
    if paper is not None:
        high = max(high, _paper_accuracy(panels[1], paper))
    for panel in panels:
        panel.axhline(0.5, color=GREY, ls=":", lw=1.8, label="Chance", zorder=1)
        panel.set_ylim(min(0.45, low), min(1.0, high + 0.04))
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    return figure


def _lines(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Label -> rows of a line, most labels first."""
    amounts = rows["rankings"] if "rankings" in rows else pd.Series(np.nan, index=rows.index)
    if amounts.nunique() < 2:
        named = (("valid2_accuracy", "valid2 (reporting)"), ("valid1_accuracy", "valid1 (selection)"))
        parts = {label: rows[rows["measure"] == measure] for measure, label in named}
        return {label: part for label, part in parts.items() if len(part)}
    reported = rows[rows["measure"] == "valid2_accuracy"]
    alike = reported.groupby("rankings")["variant"].transform("nunique") > 1
    labels = [f"{human_count(amount)} labels" for amount in reported["rankings"]]
    names = (" (" + reported["variant"].replace("", "main") + ")").where(alike, "")
    lines = reported.assign(line=labels + names).sort_values("rankings", ascending=False)
    return {str(label): part for label, part in lines.groupby("line", sort=False)}


def _paper_accuracy(axis: Axes, paper: pd.DataFrame) -> float:
    """The paper's lines; gives the highest value drawn."""
    curves = paper[paper["item"] == "fig6"].astype({"x": float})
    amounts = sorted(curves["series"].unique(), key=lambda name: -float(name.rstrip("k")))
    for place, amount in enumerate(amounts):
        part = curves[curves["series"] == amount]
        label = f"{amount} labels"
        axis.plot(part["x"], part["value"], color=CYCLE[place], marker=MARKERS[place], label=label)
    parameter_axis(axis, list(curves["x"]))
    flat = paper[paper["item"] == "fig6_line"].set_index("series")["value"]
    for name, label, dash in (
        ("human_baseline", "One labeler", "--"),
        ("ensemble_of_humans", "Ensemble of labelers", "-."),
    ):
        axis.axhline(float(flat[name]), color=BLACK, ls=dash, lw=1.4, label=label, zorder=1)
    axis.set_title("Published: Stiennon et al. 2020, Fig. 6")
    return float(max(curves["value"].max(), flat.max()))


@styled
def calibration_curves(curves: Mapping[str, pd.DataFrame], notes: Mapping[str, str]) -> Figure:
    """Observed accuracy against claimed probability, one panel per reward model, with the diagonal.

    Args:
        curves: title -> rows with ``claimed``, ``value``, ``low``, ``high``.
        notes: title -> what to print in the panel (its calibration error).

    Raises:
        UsageError: nothing to draw.
    """
    if not curves:
        raise UsageError("no calibration curve to draw")
    figure = Figure(figsize=(4.4 * len(curves) + 0.6, 4.9), layout="constrained")
    panels = figure.subplots(1, len(curves), sharex=True, sharey=True, squeeze=False)[0]
    bottom = min(0.45, *(float(rows["low"].min()) - 0.03 for rows in curves.values()))
    for panel, (title, rows) in zip(panels, curves.items(), strict=True):
        bars = np.vstack([rows["value"] - rows["low"], rows["high"] - rows["value"]]).clip(min=0)
        panel.plot([0.5, 1], [0.5, 1], color=BLACK, ls="--", lw=1.4, label="Perfect calibration")
        panel.errorbar(
            rows["claimed"], rows["value"], yerr=bars, color=CYCLE[0], marker="o", capsize=4,
            elinewidth=1.6, label="Observed, 95 % interval",
        )  # fmt: skip
        cell_marks(panel, rows["claimed"], rows, CYCLE[0])
        panel.set_title(title)
        panel.text(0.97, 0.04, notes.get(title, ""), transform=panel.transAxes, ha="right", va="bottom")
        panel.set_xlim(0.49, 1.01)
        panel.set_ylim(bottom, 1.02)
        panel.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        panel.set_xlabel("Claimed: sigma(score difference)")
    percent_axis(panels[0], "Observed: labeler agrees")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure
