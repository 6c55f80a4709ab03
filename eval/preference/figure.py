"""Share preferred to the reference against model size: the paper's Figs. 1 and 10a."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.common.figures import interval, legend_of, published_bounds, spacing
from eval.common.style import BLACK, GREY, METHODS, parameter_axis, percent_axis, styled
from tldr.errors import UsageError

PAPER_SERIES = {"human_feedback": "ppo", "supervised": "sft", "pretrained": "pretrained"}


def headline(table: pd.DataFrame, temperature: float | None = None) -> pd.DataFrame:
    """The rows of the main figure: one per method and size, without variants and nucleus sampling.

    Policies at `temperature` (default: the lowest there is, as in the paper, T = 0); of best-of-N
    the largest N chosen by the reward model, at the temperature its pool was drawn at.
    """
    plain = table[(table["variant"] == "") & ~(table["top_p"] < 1)]
    pool = plain["method"] == "best_of_n"
    chosen = plain[pool & plain["selected_by"].isin(["", "rm"])]
    chosen = chosen[chosen["best_of"] == chosen["best_of"].max()]
    single = plain[~pool & plain["method"].isin(list(METHODS))]
    wanted = single["temperature"].min() if temperature is None else temperature
    rows: pd.DataFrame = pd.concat([single[single["temperature"] == wanted], chosen])
    return rows.sort_values(["method", "params"])


@styled
def preference_by_size(
    rows: pd.DataFrame,
    paper: pd.DataFrame | None = None,
    *,
    title: str,
    paper_title: str = "Published: Stiennon et al. 2020, Fig. 1",
    beside: pd.DataFrame | None = None,
    beside_title: str = "",
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """Share preferred to the reference against model size, in the manner of the paper's Fig. 1.

    Args:
        rows: results of one preference measure and scorer, one a method and size, such as `headline` gives.
        paper: rows of ``fig1.csv`` or ``fig10a.csv``; drawn in a second panel of their own, never mixed in.
        beside: another study's `rows`, called `beside_title`: its intervals are wide pale bars.
        labels: what the legend calls a method, where that is not its usual name.

    Raises:
        UsageError: no row has a method of the figure and a model size.
    """
    rows = rows[rows["params"].notna() & rows["method"].isin(list(METHODS))]
    if rows.empty:
        raise UsageError("no policies with a method and a size to draw")
    figure = Figure(figsize=(12.5 if paper is not None else 7, 5.2), layout="constrained")
    panels = figure.subplots(1, 2 if paper is not None else 1, sharey=True, squeeze=False)[0]
    present = [name for name in METHODS if (rows["method"] == name).any()]
    step = spacing(rows, wide=beside is not None or bool(labels) or rows["params"].nunique() == 1)
    for place, name in enumerate(present):
        part, shift = rows[rows["method"] == name], step ** (place - (len(present) - 1) / 2)
        first = part.iloc[0]
        label = f"Best of {first['best_of']} (T = {first['temperature']:g})" if name == "best_of_n" else None
        label = (labels or {}).get(name, label)
        interval(panels[0], part, METHODS[name], shift=shift, label=label)
        if beside is not None:
            sizes = part.set_index("size")["params"]
            same = beside[(beside["method"] == name) & (beside["best_of"] == first["best_of"])]
            _pale_bars(panels[0], same, sizes * shift, METHODS[name].color)
    if beside is not None:
        panels[0].plot([], [], color=GREY, linewidth=10, alpha=0.35, label=beside_title)
    parameter_axis(panels[0], list(rows["params"]))
    percent_axis(panels[0], "Preferred to the reference")
    panels[0].set_title(title)
    if paper is not None:
        _paper_panel(panels[1], paper, paper_title, named=labels or ())
    for panel in panels:
        line = panel.axhline(0.5, color=BLACK, linestyle="--", linewidth=1.4, zorder=1)
        panel.set_ylim(-0.02, 1)
    # Our labels come first, as they say more; the published panel adds those that this study lacks.
    named = legend_of(panels)
    named["Reference"] = line
    columns = len(named) if len(named) < 6 else 3
    if labels:  # they are long
        columns = 2 if paper is not None else 1
    figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=columns)
    return figure


def _pale_bars(axis: Axes, rows: pd.DataFrame, places: pd.Series[float], color: str) -> None:
    """Another study's intervals at this study's places of the same sizes, with its values as ticks."""
    rows = rows[rows["size"].isin(places.index) & rows["low"].notna()]
    x = rows["size"].map(places)
    axis.vlines(x, rows["low"], rows["high"], color=color, linewidth=9, alpha=0.25, zorder=1)
    axis.plot(x, rows["value"], linestyle="none", marker="_", markersize=9, color=color, alpha=0.7)


def _paper_panel(axis: Axes, paper: pd.DataFrame, title: str, named: Collection[str]) -> None:
    """The published points; methods in `named` are in the legend already, by another name."""
    rows = published_bounds(paper[paper["series"].isin(list(PAPER_SERIES))])
    rows = rows.assign(params=rows["x"].astype(float))
    for name, method in PAPER_SERIES.items():
        label = f"_{method}" if method in named else None  # no legend shows a label with this beginning
        interval(axis, rows[rows["series"] == name], METHODS[method], label=label)
    parameter_axis(axis, list(rows["params"]))
    axis.set_title(title)
