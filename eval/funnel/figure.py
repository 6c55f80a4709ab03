"""The raw-data filter's funnel as a figure: what each rule left, and how long the kept texts are."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eval.common.style import BLUE, GREY, VERMILLION, styled
from eval.common.tables import human_count


@styled
def funnel_figure(funnel: Mapping[str, Any]) -> Figure:
    """Rows left and removed by each rule, with histograms of query and reference lengths.

    Args:
        funnel: a filter's ``funnel.json``.
    """
    figure = Figure(figsize=(13, 6.5), layout="constrained")
    axes = figure.subplot_mosaic([["rules", "queries"], ["rules", "references"]], width_ratios=[1.6, 1])
    names = [rule["rule"] for rule in funnel["rules"]]
    removed = [rule["removed"] for rule in funnel["rules"]]
    out = [rule["out"] for rule in funnel["rules"]]
    axis = axes["rules"]
    axis.barh(names, out, color=BLUE, label="left")
    axis.barh(names, removed, left=out, color=VERMILLION, label="removed")
    for place, (stay, gone) in enumerate(zip(out, removed, strict=True)):
        axis.text(stay + gone, place, f"  {stay:,}", va="center", fontsize=11, color=GREY)
    axis.invert_yaxis()
    axis.set(title="Rows left after each rule", xlim=(0, 1.2 * max(funnel["rows"], 1)))
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.xaxis.set_major_formatter(lambda value, _: human_count(value))
    axis.grid(axis="y", visible=False)
    axis.legend(loc="lower right")
    _histogram(axes["queries"], funnel["query_tokens"], "Queries", "tokens")
    _histogram(axes["references"], funnel["summary_tokens"], "References", "tokens, EOS included")
    return figure


def _histogram(axis: Axes, counts: Mapping[str, int], title: str, unit: str) -> None:
    """Bars over lengths, which are the lower ends of equal bins."""
    heights = {int(length): count for length, count in counts.items()}
    lengths = sorted(heights)
    width = min((after - before for before, after in pairwise(lengths)), default=1)
    axis.bar(lengths, [heights[n] for n in lengths], width, align="edge", color=BLUE, edgecolor="white")
    axis.set(title=title, xlabel=unit, ylabel="rows")
    axis.yaxis.set_major_formatter(lambda value, _: human_count(value))
    axis.grid(axis="x", visible=False)
