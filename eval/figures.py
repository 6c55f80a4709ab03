"""Figures of a study, each drawn from a result table; intervals always shown.

Every function returns a matplotlib `Figure` that belongs to no window; `eval.style.save` writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.style import BLACK, CYCLE, GREY, MARKERS, METHODS, Series, parameter_axis, percent_axis, styled
from eval.tables import human_count
from tldr.errors import UsageError

PAPER_SERIES = {"human_feedback": "ppo", "supervised": "sft", "pretrained": "pretrained"}


def headline(table: pd.DataFrame, temperature: float | None = None) -> pd.DataFrame:
    """The rows of the main figure: one a method and size.

    Policies at `temperature` (default: the lowest there is, as in the paper, T = 0); of best-of-N
    the largest N chosen by the reward model, at the temperature its pool was drawn at.
    """
    pool = table["method"] == "best_of_n"
    chosen = table[pool & table["selected_by"].isin(["", "rm"])]
    chosen = chosen[chosen["best_of"] == chosen["best_of"].max()]
    single = table[~pool & table["method"].isin(list(METHODS)) & (table["variant"] == "")]
    wanted = single["temperature"].min() if temperature is None else temperature
    rows: pd.DataFrame = pd.concat([single[single["temperature"] == wanted], chosen])
    return rows.sort_values(["method", "params"])


def _interval(
    axis: Axes, rows: pd.DataFrame, series: Series, *, shift: float = 1.0, label: str | None = None
) -> None:
    """A line through the values with interval bars; `shift` (a factor) keeps bars of series apart."""
    bars = np.vstack([rows["value"] - rows["low"], rows["high"] - rows["value"]]).clip(min=0)
    axis.errorbar(
        rows["params"] * shift,
        rows["value"],
        yerr=bars,
        color=series.color,
        marker=series.marker,
        capsize=4,
        elinewidth=1.6,
        label=label or series.label,
    )


def _step(rows: pd.DataFrame) -> float:
    """Factor that moves a point by a hundredth of a log axis of model sizes."""
    sizes = rows["params"]
    return float((sizes.max() / sizes.min()) ** 0.01) if sizes.nunique() > 1 else 1.02


@styled
def preference_by_size(
    pooled: pd.DataFrame,
    by_seed: pd.DataFrame | None = None,
    paper: pd.DataFrame | None = None,
    *,
    title: str,
    paper_title: str = "Published: Stiennon et al. 2020, Fig. 1",
) -> Figure:
    """Share preferred to the reference against model size, in the manner of the paper's Fig. 1.

    Args:
        pooled: results of one preference measure and scorer, seeds pooled (`eval.tables.POOLED`).
        by_seed: the same with seeds apart (`eval.tables.GROUP`): drawn as small dots.
        paper: rows of ``fig1.csv`` or ``fig10a.csv``; drawn in a second panel of their own, never mixed in.

    Raises:
        UsageError: no row has a method of the figure and a model size.
    """
    rows = headline(pooled.dropna(subset=["params"]))
    seeds = pooled.iloc[:0] if by_seed is None or pooled["seeds"].max() == 1 else by_seed
    dots = headline(seeds.dropna(subset=["params"]))
    if rows.empty:
        raise UsageError("no policies with a method and a size to draw")
    figure = Figure(figsize=(12.5 if paper is not None else 7, 5.2), layout="constrained")
    panels = figure.subplots(1, 2 if paper is not None else 1, sharey=True, squeeze=False)[0]
    present = [name for name in METHODS if (rows["method"] == name).any()]
    step = _step(rows)
    for place, name in enumerate(present):
        part, shift = rows[rows["method"] == name], step ** (place - (len(present) - 1) / 2)
        first = part.iloc[0]
        label = f"Best of {first['best_of']} (T = {first['temperature']:g})" if name == "best_of_n" else None
        _interval(panels[0], part, METHODS[name], shift=shift, label=label)
        single = dots[dots["method"] == name]
        panels[0].plot(
            single["params"] * shift * step**1.6,
            single["value"],
            ".",
            color=METHODS[name].color,
            markersize=6,
        )
    parameter_axis(panels[0], list(rows["params"]))
    percent_axis(panels[0], "Preferred to the reference")
    panels[0].set_title(title)
    if paper is not None:
        _paper_panel(panels[1], paper, paper_title)
    for panel in panels:
        line = panel.axhline(0.5, color=BLACK, linestyle="--", linewidth=1.4, zorder=1)
        panel.set_ylim(-0.02, 1)
    # Ours first: its labels say more; the published panel adds what this study lacks.
    named = {
        label: bar for panel in panels for bar, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    named["Reference"] = line
    figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=len(named))
    return figure


def _paper_panel(axis: Axes, paper: pd.DataFrame, title: str) -> None:
    rows = paper[paper["series"].isin(list(PAPER_SERIES))].assign(
        params=lambda table: table["x"].astype(float),
        low=lambda table: table["value"] - 1.96 * table["se"],
        high=lambda table: table["value"] + 1.96 * table["se"],
    )
    for name, method in PAPER_SERIES.items():
        _interval(axis, rows[rows["series"] == name], METHODS[method])
    parameter_axis(axis, list(rows["params"]))
    axis.set_title(title)


@dataclass(frozen=True)
class Curve:
    """One panel of the training curves: a key of ``metrics.jsonl`` and how its axis is named."""

    key: str
    title: str
    unit: str


CURVES = (
    Curve("score", "Reward model score", "score"),
    Curve("reward", "Reward (score - beta KL)", "reward an episode"),
    Curve("kl", "KL from the supervised policy", "nats a sequence"),
    Curve("entropy", "Entropy", "nats a token"),
    Curve("length", "Length", "tokens"),
    Curve("explained_variance", "Value: explained variance", "share"),
)


@styled
def training_curves(metrics: pd.DataFrame, curves: Sequence[Curve] = CURVES) -> Figure:
    """PPO's course against episodes, one panel a quantity, one colour a size, one line a run.

    Args:
        metrics: rows of all runs' ``metrics.jsonl`` with columns ``size``, ``params``, ``run``,
            ``episodes`` and any of the curves' keys; a key nobody logged gets no panel.

    Raises:
        UsageError: none of the keys was logged.
    """
    shown = [curve for curve in curves if curve.key in metrics and metrics[curve.key].notna().any()]
    if not shown:
        raise UsageError(f"no training curve to draw: none of {[curve.key for curve in curves]} was logged")
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.5 * lines + 0.5), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True)
    sizes = metrics.drop_duplicates("size").sort_values("params")["size"]
    for place, (panel, curve) in enumerate(zip(panels.flat, shown, strict=False)):
        for number, size in enumerate(sizes):
            for _, run in metrics[metrics["size"] == size].groupby("run"):
                run = run.dropna(subset=[curve.key]).sort_values("episodes")
                panel.plot(run["episodes"], run[curve.key], color=CYCLE[number % len(CYCLE)], linewidth=1.8)
        panel.set_title(curve.title, fontsize=12.5)
        panel.set_ylabel(curve.unit)
        panel.xaxis.set_major_formatter(lambda value, _: human_count(value) or "0")
        panel.xaxis.get_major_locator().set_params(nbins=5)
        if place + columns >= len(shown):
            panel.set_xlabel("Episodes")
            panel.tick_params(labelbottom=True)
    for panel in list(panels.flat)[len(shown) :]:
        panel.remove()
    handles = [panels.flat[0].plot([], [], color=CYCLE[n % len(CYCLE)])[0] for n in range(len(sizes))]
    figure.legend(handles, [f"Size {size}" for size in sizes], loc="outside lower center", ncols=len(sizes))
    return figure


@styled
def reward_accuracy(table: pd.DataFrame, agreement: float | None = None) -> Figure:
    """Reward-model accuracy against size, beside how often two labelers agree (cf. the paper's Fig. 6).

    Args:
        table: results with ``measure`` valid1_accuracy or valid2_accuracy and ``params``.
        agreement: share of pairs on which two labelers agree: about as good as an RM can look.

    Raises:
        UsageError: no accuracy to draw.
    """
    rows = table[table["measure"].isin(["valid1_accuracy", "valid2_accuracy"])].dropna(subset=["params"])
    if rows.empty:
        raise UsageError("no reward model accuracy to draw")
    figure = Figure(figsize=(7.4, 5), layout="constrained")
    axis = figure.subplots()
    splits = (("valid2_accuracy", "valid2 (reporting)"), ("valid1_accuracy", "valid1 (selection)"))
    for place, (measure, label) in enumerate(splits):
        part = rows[rows["measure"] == measure].sort_values(["params", "seed"])
        if len(part):
            _interval(
                axis, part, Series(label, CYCLE[place], MARKERS[place]), shift=_step(rows) ** (0.5 - place)
            )
    parameter_axis(axis, list(rows["params"]))
    percent_axis(axis, "Accuracy on labelled pairs")
    axis.axhline(0.5, color=GREY, linestyle=":", linewidth=1.8, label="Chance", zorder=1)
    if agreement is not None:
        axis.axhline(
            agreement, color=BLACK, linestyle="--", linewidth=1.4, label="Two labelers agree", zorder=1
        )
    bounds: npt.NDArray[np.float64] = rows[["low", "high", "value"]].to_numpy(dtype=float)
    top = max(float(np.nanmax(bounds)), agreement or 0.0)
    axis.set_ylim(min(0.45, float(np.nanmin(bounds)) - 0.02), min(1.0, top + 0.06))
    axis.set_title("Reward model accuracy")
    figure.legend(loc="outside lower center", ncols=2)
    return figure
