"""Likert ratings: the paper's Figs. 3, 12 and 13, and news quality by size and length (Figs. 4a, 4b)."""

from __future__ import annotations

from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, Locator, MaxNLocator, NullLocator

from eval.common.figures import cell_marks, dots, interval, published_bounds, spacing
from eval.common.style import BLACK, GREY, METHODS, ORANGE, SKY, Series, parameter_axis, styled
from eval.ratings.measure import AXES
from tldr.errors import UsageError

OWN = "This study"
_PAPER_METHODS = {"human_feedback": "ppo", "supervised": "sft", "pretrained": "pretrained"}
_NAMES = {"human": "Human feedback", "supervised": "Supervised", "pretrained": "Pretrained"}


def paper_policy(series: str) -> tuple[str, str]:
    """A published series' readable name and its method: ``supervised_cnndm_6.7b`` is "Supervised
    CNN/DM 6.7B" of method ``sft``.
    """
    method = next((ours for name, ours in _PAPER_METHODS.items() if series.startswith(name)), series)
    words = series.replace("human_feedback", "human").split("_")
    named = [_NAMES.get(word, word.upper() if word[:1].isdigit() or word == "t5" else word) for word in words]
    label = " ".join(named).replace("cnndm", "CNN/DM")
    return label[:1].upper() + label[1:], method


_OTHERS = {
    "ref": Series("", BLACK, "P"),
    "lead": Series("", GREY, "X"),
    "t5": Series("", SKY, "v"),
    "sl(cnn": Series("", ORANGE, "D"),
    "supervised cnn": Series("", ORANGE, "D"),
}
_FAMILIES = {
    "ppo": "ppo",
    "best_of_n": "best_of_n",
    "rl": "ppo",
    "sft": "sft",
    "sl(tldr": "sft",
    "pretrained": "pretrained",
    "gpt": "pretrained",
}


def _look(name: str) -> Series:
    """Colour and marker of a policy by how its name, ours or the paper's, begins."""
    known = {start: METHODS[method] for start, method in _FAMILIES.items()} | _OTHERS
    found = next((look for start, look in known.items() if name.lower().startswith(start)), None)
    return found or Series("", GREY, "X")


@styled
def axis_ratings(
    ours: pd.DataFrame, paper: pd.DataFrame | None = None, *, published: str, own: str = OWN
) -> Figure:
    """Mean rating of every policy on the four axes, best overall first; the paper's below, hollow.

    Args:
        ours: results named like `eval.ratings.measure.AXES` with ``policy`` and ``method``; may be empty.
        paper: rows of ``fig12.csv`` or ``fig13.csv``. published, own: the titles of the two blocks.

    Raises:
        UsageError: neither has a rating.
    """
    blocks = []
    if len(ours):
        blocks.append((own, ours.assign(label=ours["policy"]), False))
    if paper is not None:
        names = paper["series"].map(paper_policy)
        rows = published_bounds(paper).assign(
            measure=paper["x"], label=[label for label, _ in names], method=[method for _, method in names]
        )
        blocks.append((published, rows, True))
    if not blocks:
        raise UsageError("no rating to draw")
    counts = [rows["label"].nunique() for _, rows, _ in blocks]
    figure = Figure(figsize=(14, 0.36 * sum(counts) + 1.3 * len(blocks)), layout="constrained")
    panels = figure.subplots(
        len(blocks),
        len(AXES),
        squeeze=False,
        sharex=True,
        sharey="row",
        height_ratios=[n + 1.5 for n in counts],
    )
    for line, (title, rows, hollow) in zip(panels, blocks, strict=True):
        best = rows[rows["measure"] == "overall"].sort_values("value")["label"]
        places = {label: place for place, label in enumerate(best)}
        for panel, axis in zip(line, AXES, strict=True):
            shown = rows[(rows["measure"] == axis) & rows["label"].isin(list(places))]
            for _, row in shown.iterrows():
                dots(panel, row, places[row["label"]], _look(row["method"]), hollow=hollow)
            panel.set_title(axis.capitalize(), fontsize=13)
            panel.set_ylim(-0.7, len(places) - 0.3)
            panel.set_xlim(0.85, 7.15)
            panel.set_xticks(range(1, 8))
        line[0].set_yticks(list(places.values()), list(places))
        line[0].set_title(f"{title}\nOverall", fontsize=13)
    for panel in panels[-1]:
        panel.set_xlabel("Mean rating (1-7)")
    return figure


@styled
def overall_by_size(
    ours: pd.DataFrame, paper: pd.DataFrame, lines: pd.DataFrame, *, own: str = OWN
) -> Figure:
    """Mean overall rating of news summaries against model size (Fig. 4a); ours left where there are any.

    Args:
        ours: ``overall`` results of articles. paper: rows of ``fig4.csv``, item ``fig4a``;
        `lines`: those of policies without a size, item ``fig4a_line``. own: the title of our panel.
    """
    sized = ours.dropna(subset=["params"]).sort_values("params")
    panels = _panels(not sized.empty)
    if len(sized):
        present = [name for name in METHODS if (sized["method"] == name).any()]
        step = spacing(sized, wide=sized["params"].nunique() == 1)
        for place, method in enumerate(present):
            shift = step ** (place - (len(present) - 1) / 2)
            interval(panels[0], sized[sized["method"] == method], METHODS[method], shift=shift)
        rest = ours[ours["params"].isna()]
        _levels(panels[0], list(zip(rest["policy"], rest["value"], strict=True)))
        parameter_axis(panels[0], list(sized["params"]))
        panels[0].set_title(own)
    rows = published_bounds(paper).assign(params=paper["x"].astype(float))
    labels = rows["series"].map(lambda series: paper_policy(series)[0])
    for label, part in rows.groupby(labels, sort=False):
        method = paper_policy(str(part["series"].iloc[0]))[1]
        look = METHODS[method] if len(part) > 1 else _look(str(label))
        interval(panels[-1], part, look, label=str(label))
    named = lines["series"].map(lambda series: paper_policy(series)[0])
    _levels(panels[-1], list(zip(named, lines["value"], strict=True)))
    parameter_axis(panels[-1], list(rows["params"]))
    return _finished(panels, "Published: Stiennon et al. 2020, Fig. 4a")


@styled
def overall_by_length(
    bins: pd.DataFrame, fits: pd.DataFrame, paper: pd.DataFrame, *, own: str = OWN
) -> Figure:
    """Mean overall rating of news summaries against their length (Fig. 4b); ours left where there are any.

    Args:
        bins: `eval.ratings.measure.length_bins`. fits: a straight line in log length a policy, columns
            ``policy``, ``length`` (mean of ln characters), ``rating``, ``slope`` (per 1 of ln).
        paper: rows of ``table14.csv``: mean length, quality and slope of each policy; its lines are
            drawn over one standard deviation of length each way. own: the title of our panel.
    """
    panels = _panels(not bins.empty)
    if len(bins):
        for policy, part in bins.groupby("policy", sort=False):
            look = _look(str(part["method"].iloc[0]))
            bars = np.vstack([part["value"] - part["low"], part["high"] - part["value"]]).clip(min=0)
            panels[0].errorbar(
                part["characters"], part["value"], yerr=bars, color=look.color, marker=look.marker,
                linestyle="none", capsize=3, elinewidth=1.3, markersize=6, label=str(policy),
            )  # fmt: skip
            cell_marks(panels[0], part["characters"], part, look.color)
            for fit in fits[fits["policy"] == policy].itertuples():
                ends = np.array([part["characters"].min(), part["characters"].max()])
                panels[0].plot(ends, fit.rating + fit.slope * (np.log(ends) - fit.length), color=look.color)
        panels[0].set_title(own)
    table = paper.pivot(index="series", columns="x", values="value")
    for name in dict.fromkeys(paper["series"]):
        row, look = table.loc[name], _look(name)
        span = np.linspace(-1, 1, 20) * row["length_sd"]
        panels[-1].plot(
            row["length_characters"] + span,
            row["quality"] + row["gain_per_100_characters"] * span / 100,
            color=look.color,
            linestyle="--" if name.endswith("1.3b") else "-",
        )
        panels[-1].plot(
            row["length_characters"], row["quality"], look.marker, color=look.color, label=name,
            markerfacecolor="white" if name.endswith("1.3b") else look.color,
        )  # fmt: skip
    for panel in panels:
        panel.set_xscale("log")
        panel.set_xlabel("Length of the summary (characters)")
        panel.xaxis.set_major_locator(_length_ticks(panel))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return _finished(panels, "Published: Stiennon et al. 2020, Table 14")


def _length_ticks(panel: Axes) -> Locator:
    """Ticks of a log axis of lengths: usual lengths, or round ones where fewer than two of these are seen."""
    low, high = panel.get_xlim()
    usual = [50, 100, 200, 300, 500, 1000]
    seen = sum(low <= length <= high for length in usual)
    return FixedLocator(usual) if seen > 1 else MaxNLocator(5, steps=[1, 2, 5, 10])


def _panels(ours: bool) -> list[Axes]:
    figure = Figure(figsize=(13 if ours else 7.5, 6.2), layout="constrained")
    return list(figure.subplots(1, 2 if ours else 1, sharey=True, squeeze=False)[0])


def _levels(panel: Axes, levels: list[tuple[str, float]]) -> None:
    """Policies without a model size as lines across the panel."""
    styles = cycle([":", "-.", (0, (5, 1, 1, 1, 1, 1))])
    for name, value in levels:
        style = "--" if name.lower() == "reference" else next(styles)
        panel.axhline(value, color=_look(name).color, linestyle=style, linewidth=1.8, label=name, zorder=1)


def _finished(panels: list[Axes], published: str) -> Figure:
    """Titles and a legend below each panel: the two name different policies."""
    panels[-1].set_title(published)
    panels[0].set_ylabel("Mean overall rating (1-7)")
    panels[0].set_ylim(max(1.0, panels[0].get_ylim()[0]), 7.1)
    for panel in panels:
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize=11)
    figure = panels[0].figure
    assert isinstance(figure, Figure)
    return figure
