"""ROUGE against model size: the paper's Figs. 14a and 14b."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from eval.common.figures import interval, legend_of, published_bounds, spacing
from eval.common.style import BLACK, METHODS, ORANGE, Series, parameter_axis, styled
from eval.preference.figure import PAPER_SERIES, headline
from tldr.errors import UsageError


@dataclass(frozen=True)
class Published:
    """A panel of the paper's Fig. 14: its name, its series and their look, and our baselines beside it."""

    name: str
    series: Mapping[str, Series]
    baselines: Mapping[str, str]


POSTS = Published(
    "Fig. 14a",
    {name: METHODS[method] for name, method in PAPER_SERIES.items()},
    {"title": "--", "lead-2": ":"},
)
NEWS = Published(
    "Fig. 14b",
    {
        "human_feedback_transfer": METHODS["ppo"],
        "supervised_transfer": METHODS["sft"],
        "pretrained": METHODS["pretrained"],
        "supervised_cnndm": Series("Supervised on CNN/DM", ORANGE, "D"),
    },
    {"lead-3": ":"},
)


@styled
def rouge_by_size(
    table: pd.DataFrame, paper: pd.DataFrame | None = None, beside: Published = POSTS
) -> Figure:
    """Mean of ROUGE-1, -2 and -L F1 against model size, at the lowest temperature.

    Args:
        table: results with measure ``rouge_mean``, over cells; baselines are drawn as lines.
        paper: rows of ``fig14.csv``: a second panel, as `beside` says.

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
    for name, style in beside.baselines.items():
        for value in means[means["method"] == name]["value"]:
            panels[0].axhline(value, color=BLACK, linestyle=style, linewidth=1.5, label=name, zorder=1)
    parameter_axis(panels[0], list(rows["params"]))
    panels[0].set_ylabel("ROUGE F1, mean of R-1, R-2, R-L")
    panels[0].set_title(f"This study, T = {rows['temperature'].iloc[0]:g}")
    if paper is not None:
        known = published_bounds(paper).assign(params=paper["x"].astype(float))
        for name, look in beside.series.items():
            interval(panels[1], known[known["series"] == name], look)
        parameter_axis(panels[1], list(known["params"]))
        panels[1].set_title(f"Published: Stiennon et al. 2020, {beside.name}")
    panels[0].set_ylim(bottom=0)
    named = legend_of(panels)
    figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=len(named))
    return figure
