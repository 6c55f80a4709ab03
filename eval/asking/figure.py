"""Accuracy against the labels that were asked for, one line for each way of choosing the questions."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from eval.asking.measure import RANDOM
from eval.common.figures import cell_marks, interval, legend_of, spacing
from eval.common.style import CYCLE, MARKERS, Series, parameter_axis, percent_axis, styled
from tldr.errors import UsageError

WAYS = {
    RANDOM: "Random questions",
    "uncertainty": "Where the reward models are least sure",
    "disagreement": "Where the reward models disagree most",
}
"""`labels.choose_by` -> its name in the legend."""


@styled
def accuracy_by_labels(rows: pd.DataFrame, *, title: str) -> Figure:
    """Share of held-out pairs that reward models order as the labelers did, on a log axis of labels.

    Args:
        rows: results of one size with ``way`` and ``labels``.

    Raises:
        UsageError: there are none.
    """
    if rows.empty:
        raise UsageError("no reward model on labels asked for in different ways to draw")
    figure = Figure(figsize=(7.4, 5.6), layout="constrained")
    axis = figure.subplots()
    rows = rows.astype({"labels": float})
    parameter_axis(axis, list(rows["labels"]))
    step = spacing(rows, x="labels")
    ways = [way for way in WAYS if way in set(rows["way"])]
    for place, way in enumerate(ways):
        series = Series(WAYS[way], CYCLE[place], MARKERS[place])
        part = rows[rows["way"] == way].sort_values("labels")
        shift = step ** (place - (len(ways) - 1) / 2)
        interval(axis, part, series, shift=shift, x="labels")
        cell_marks(axis, part["labels"] * shift, part, series.color)
    axis.set_xlabel("Labels of the last round (rankings, log scale)")
    percent_axis(axis, "Held-out pairs ordered as by the labelers")
    low, high = axis.get_ylim()
    if high - low < 0.12:  # else ticks within a per cent would have the same label
        axis.yaxis.set_major_locator(MultipleLocator(0.01))
    axis.set_title(title)
    named = legend_of([axis])
    figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=1, handlelength=3)
    return figure
