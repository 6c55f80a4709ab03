"""ROUGE against model size: the paper's Fig. 14."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from eval.figures.base import interval, legend_of, published_bounds, spacing
from eval.figures.preference import PAPER_SERIES, headline
from eval.style import BLACK, METHODS, parameter_axis, styled
from tldr.errors import UsageError

_PLAIN = {"title": "--", "lead-2": ":"}


@styled
def rouge_by_size(table: pd.DataFrame, paper: pd.DataFrame | None = None) -> Figure:
    """Mean of ROUGE-1, -2 and -L F1 against model size, at the lowest temperature.

    Args:
        table: results with measure ``rouge_mean``, seeds pooled; title and lead-2 are drawn as lines.
        paper: rows of ``fig14.csv``, item ``fig14a``: a second panel.

    Raises:
        UsageError: no sized policy to draw.
    """
    means = table[table["measure"] == "rouge_mean"]
    rows = headline(means.dropna(subset=["params"]))
    rows = rows[rows["method"] != "best_of_n"]
    if rows.empty:
        raise UsageError("no ROUGE of a policy with a size to draw")
    figure = Figure(figsize=(12.5 if paper is not None else 7, 5.2), layout="constrained")
    panels = figure.subplots(1, 2 if paper is not None else 1, sharey=True, squeeze=False)[0]
    for place, method in enumerate(name for name in METHODS if (rows["method"] == name).any()):
        interval(
            panels[0], rows[rows["method"] == method], METHODS[method], shift=spacing(rows) ** (place - 1)
        )
    for name, style in _PLAIN.items():
        for value in means[means["method"] == name]["value"]:
            panels[0].axhline(value, color=BLACK, linestyle=style, linewidth=1.5, label=name, zorder=1)
    parameter_axis(panels[0], list(rows["params"]))
    panels[0].set_ylabel("ROUGE F1, mean of R-1, R-2, R-L")
    panels[0].set_title(f"This study, T = {rows['temperature'].iloc[0]:g}")
    if paper is not None:
        known = published_bounds(paper).assign(params=paper["x"].astype(float))
        for name, method in PAPER_SERIES.items():
            interval(panels[1], known[known["series"] == name], METHODS[method])
        parameter_axis(panels[1], list(known["params"]))
        panels[1].set_title("Published: Stiennon et al. 2020, Fig. 14a")
    panels[0].set_ylim(bottom=0)
    named = legend_of(panels)
    figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=len(named))
    return figure
