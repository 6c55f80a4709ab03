"""PPO's training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eval.common.style import BLUE, CYCLE, VERMILLION, styled
from eval.common.tables import human_count
from tldr.errors import UsageError


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
def training_curves(
    metrics: pd.DataFrame, curves: Sequence[Curve] = CURVES, *, by: str = "size", order: str = "params"
) -> Figure:
    """PPO's training against episodes: one panel per quantity, one colour per `by`, one line per run.

    Args:
        metrics: rows of all runs' ``metrics.jsonl`` with columns ``run``, ``episodes``, `by`, `order`
            and any of the curves' keys; a key that was not logged gets no panel. Several ``cell`` of one
            `by` are thin lines, and their mean is the thick one.
        by: the column that a colour stands for, its values being the legend; `order`: sorts them.

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
    colors = _colors(metrics, by, order)
    for place, (panel, curve) in enumerate(zip(panels.flat, shown, strict=False)):
        _runs(panel, metrics.dropna(subset=[curve.key]), curve.key, by, colors)
        panel.set_title(curve.title, fontsize=12.5)
        panel.set_ylabel(curve.unit)
        _episode_axis(panel, named=place + columns >= len(shown))
    for panel in list(panels.flat)[len(shown) :]:
        panel.remove()
    _legend(
        figure, panels.flat[0], {f"Size {name}" if by == "size" else name: c for name, c in colors.items()}
    )
    return figure


def _colors(metrics: pd.DataFrame, by: str, order: str) -> dict[str, str]:
    names = metrics.drop_duplicates(by).sort_values(order)[by]
    return {name: CYCLE[place % len(CYCLE)] for place, name in enumerate(names)}


def _runs(axis: Axes, metrics: pd.DataFrame, key: str, by: str, colors: Mapping[str, str]) -> None:
    """Each colour's runs; those that differ in their cell alone are thin lines with their mean."""
    for name, color in colors.items():
        part = metrics[metrics[by] == name]
        for _, alike in part.groupby("variant", dropna=False) if "variant" in part else [("", part)]:
            cells = alike["cell"].nunique() if "cell" in alike else 1
            for _, run in alike.groupby("run"):
                run = run.sort_values("episodes")
                width, alpha = (1.8, 1.0) if cells < 2 else (0.8, 0.45)
                axis.plot(run["episodes"], run[key], color=color, linewidth=width, alpha=alpha)
            if cells > 1:
                values = alike.groupby(["cell", "episodes"])[key].mean().groupby(level="episodes")
                shared = values.mean()[values.size() == cells]
                axis.plot(shared.index, shared, color=color, linewidth=2.4)


def _episode_axis(axis: Axes, *, named: bool = True) -> None:
    axis.xaxis.set_major_formatter(lambda value, _: human_count(value) or "0")
    axis.xaxis.set_major_locator(MaxNLocator(5))
    if named:
        axis.set_xlabel("Episodes")
        axis.tick_params(labelbottom=True)


def _legend(figure: Figure, axis: Axes, colors: Mapping[str, str]) -> None:
    handles = [axis.plot([], [], color=color)[0] for color in colors.values()]
    figure.legend(handles, list(colors), loc="outside lower center", ncols=min(4, len(colors)))


NETWORKS = {"separate": VERMILLION, "shared": BLUE}


@styled
def value_networks(panels: Mapping[str, pd.DataFrame], paper: pd.DataFrame | None = None) -> Figure:
    """Reward-model score against episodes with a separate and a shared value network (the paper's Fig. 11).

    Args:
        panels: title -> rows of ``metrics.jsonl`` with ``run``, ``episodes``, ``score`` and
            ``value_network``; a panel each, one line per run.
        paper: rows of ``fig11.csv``, in a panel of their own.

    Raises:
        UsageError: nothing to draw.
    """
    count = len(panels) + (paper is not None)
    if not count:
        raise UsageError("no value networks to compare")
    figure = Figure(figsize=(5.6 * count + 0.6, 4.8), layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for axis, (title, metrics) in zip(axes, panels.items(), strict=False):
        _runs(axis, metrics, "score", "value_network", NETWORKS)
        axis.set_title(title)
    if paper is not None:
        curves = paper.astype({"x": float})
        for name, color in NETWORKS.items():
            part = curves[curves["series"] == name].sort_values("x")
            axes[-1].plot(part["x"], part["value"], color=color, marker="o", ls="--")
        axes[-1].set_title("Published: Stiennon et al. 2020, Fig. 11")
    for axis in axes:
        axis.set_ylabel("Reward model score")
        _episode_axis(axis)
    names = {"Separate value network": NETWORKS["separate"], "Shared with the policy": NETWORKS["shared"]}
    _legend(figure, axes[0], names)
    return figure
