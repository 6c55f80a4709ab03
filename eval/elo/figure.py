"""Elo ratings as a dot plot."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from eval.common.figures import dots
from eval.common.style import BLACK, METHODS, Series, styled
from tldr.errors import UsageError


@styled
def elo_dots(table: pd.DataFrame, methods: Mapping[str, str], *, title: str = "Elo ratings") -> Figure:
    """Ratings with intervals, best on top; the base, whose rating is given, is a line.

    Args:
        table: ``policy``, ``value``, ``low``, ``high`` (missing for the base). methods: policy -> method.

    Raises:
        UsageError: no rating.
    """
    if table.empty:
        raise UsageError("no rating to draw")
    rows = table.sort_values("value", ignore_index=True)
    figure = Figure(figsize=(9, 0.36 * len(rows) + 1.6), layout="constrained")
    axis = figure.subplots()
    other = Series("Other", BLACK, "P")
    for place, row in rows.iterrows():
        dots(axis, row, float(str(place)), METHODS.get(methods[row["policy"]], other))
    for given in rows[rows["low"].isna()]["value"]:
        axis.axvline(given, color=BLACK, linestyle="--", linewidth=1.4, zorder=1)
    for look in [METHODS[name] for name in METHODS if name in methods.values()] + [other]:
        axis.plot([], [], look.marker, color=look.color, label=look.label)
    axis.set_yticks(range(len(rows)), list(rows["policy"]))
    axis.set_ylim(-0.7, len(rows) - 0.3)
    axis.set_xlabel("Elo (400 points = odds of ten to one)")
    axis.set_title(title)
    figure.legend(loc="outside lower center", ncols=3)
    return figure
