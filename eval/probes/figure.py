"""Probes of the reward models as a dot plot."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from eval.common.figures import cell_marks
from eval.common.style import BLACK, CYCLE, GREY, MARKERS, styled
from tldr.errors import UsageError


@styled
def probe_shares(
    table: pd.DataFrame, series: Mapping[str, str], paper: Mapping[str, Mapping[str, float]]
) -> Figure:
    """Share of pairs on which each reward model prefers what it should, one line per probe.

    Args:
        table: results with ``measure`` (the probe), ``scorer``.
        series: scorer -> label, in drawing order; scorers that it does not name are not drawn.
        paper: probe -> {label: value} of published numbers, drawn hollow.

    Raises:
        UsageError: nothing to draw.
    """
    rows = table[table["scorer"].isin(list(series))]
    if rows.empty:
        raise UsageError("no probe to draw")
    probes = list(dict.fromkeys(rows["measure"]))
    several = "cells" in rows and rows["cells"].max() > 1
    figure = Figure(figsize=(10, 1.6 + (0.95 if several else 0.62) * len(probes)), layout="constrained")
    axis = figure.subplots()
    for place, (scorer, label) in enumerate(series.items()):
        part = rows[rows["scorer"] == scorer]
        lane = (place - (len(series) - 1) / 2) * min(0.22, 0.66 / len(series))
        heights = [probes.index(name) + lane for name in part["measure"]]
        bars = np.vstack([part["value"] - part["low"], part["high"] - part["value"]]).clip(min=0)
        axis.errorbar(
            part["value"], heights, xerr=bars, color=CYCLE[place % len(CYCLE)],
            marker=MARKERS[place % len(MARKERS)], ls="", capsize=3, elinewidth=1.6, label=label,
        )  # fmt: skip
        cell_marks(axis, heights, part, CYCLE[place % len(CYCLE)], across=True)
    hollow = list(dict.fromkeys(label for values in paper.values() for label in values))
    for place, label in enumerate(hollow):
        marks = [(values[label], probes.index(name)) for name, values in paper.items() if label in values]
        x, y = zip(*marks, strict=True)
        axis.plot(
            x, y, ls="", marker=MARKERS[place % len(MARKERS)], mfc="white", mec=BLACK, mew=1.6,
            zorder=1.5, label=label,
        )  # fmt: skip
    axis.axvline(0.5, color=GREY, ls=":", lw=1.8, label="Chance", zorder=1)
    axis.set_yticks(range(len(probes)), [name.replace("_", " ") for name in probes])
    axis.set_ylim(len(probes) - 0.5, -0.5)
    axis.set_xlim(-0.02, 1.02)
    axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.set_xlabel("Preferred as it should be")
    named = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    order = [*series.values(), *hollow, "Chance"]
    figure.legend([named[label] for label in order], order, loc="outside lower center", ncols=3)
    return figure
