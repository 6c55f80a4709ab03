"""PPO's training curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from eval.style import CYCLE, styled
from eval.tables import human_count
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
