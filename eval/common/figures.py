"""Points with intervals and single cells, the same in every figure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import offset_copy

from eval.common.cells import values_of
from eval.common.style import Series

MARK_OFFSET = 7.0
"""Points between an interval's bar and the dots of its cells."""


def interval(
    axis: Axes,
    rows: pd.DataFrame,
    series: Series,
    *,
    shift: float = 1.0,
    label: str | None = None,
    x: str = "params",
) -> None:
    """A line through the values with interval bars; `shift` (a factor) keeps bars of series apart.

    Args:
        x: the column along the x axis, a log one.
    """
    bars = np.vstack([rows["value"] - rows["low"], rows["high"] - rows["value"]]).clip(min=0)
    axis.errorbar(
        rows[x] * shift,
        rows["value"],
        yerr=bars,
        color=series.color,
        marker=series.marker,
        capsize=4,
        elinewidth=1.6,
        label=label or series.label,
    )
    cell_marks(axis, rows[x] * shift, rows, series.color)


def cell_marks(
    axis: Axes, places: Iterable[float], rows: pd.DataFrame, color: str, *, across: bool = False
) -> None:
    """A small dot for each cell beside a row's point, so that bar and dots are both seen.

    Args:
        places: where the rows' points are on the other axis. rows: with ``cell_values``; rows of one cell
            (or without the column) get no dots.
        across: values run along the x axis, and the dots stand below the point instead of right of it.
    """
    texts = rows["cell_values"] if "cell_values" in rows else [""] * len(rows)
    points = [
        (float(place), value)
        for place, text in zip(places, texts, strict=True)
        for value in values_of(text).values()
    ]
    if not points:
        return
    x, y = zip(*points, strict=True)
    figure = axis.get_figure(root=True)
    right, up = (0.0, -MARK_OFFSET) if across else (MARK_OFFSET, 0.0)
    axis.plot(
        *((y, x) if across else (x, y)),
        linestyle="none",
        marker="o",
        markersize=4.5,
        markeredgewidth=0,
        alpha=0.7,
        color=color,
        transform=offset_copy(axis.transData, fig=figure, x=right, y=up, units="points"),
    )


def grid(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, two in a line, that share their y axis.

    Args:
        width: inches of a panel. height: inches of everything beside the panels' 4.4 a line.
    """
    columns = min(2, count)
    lines = -(-count // columns)
    figure = Figure(figsize=(width * columns, 4.4 * lines + height), layout="constrained")
    axes = list(figure.subplots(lines, columns, sharey=True, squeeze=False).flat)
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def legend_of(axes: Iterable[Axes]) -> dict[str, Any]:
    """Label -> handle of everything that the axes name, each label once."""
    return {
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }


def spacing(rows: pd.DataFrame, *, wide: bool = False, x: str = "params") -> float:
    """Factor that moves a point by a hundredth of a log axis of model sizes; by three where cells are drawn.

    Args:
        x: the column along the axis, where it is another.
        wide: by three in any case, as where there is a single size and all series stand at it.
    """
    sizes = rows[x]
    share = 0.03 if wide or ("cells" in rows and rows["cells"].max() > 1) else 0.01
    return float((sizes.max() / sizes.min()) ** share) if sizes.nunique() > 1 else 1 + 2 * share


def dots(axis: Axes, row: pd.Series[Any], place: float, series: Series, *, hollow: bool = False) -> None:
    """A row's value and interval on a horizontal line of a dot plot; hollow: a published one."""
    bars = np.array([[row["value"] - row["low"]], [row["high"] - row["value"]]], dtype=float)
    axis.errorbar(
        [row["value"]],
        [place],
        xerr=bars.clip(min=0),
        color=series.color,
        marker=series.marker,
        markerfacecolor="white" if hollow else series.color,
        linestyle="none",
        markersize=6.5,
        capsize=4.5,
        elinewidth=1.6,
    )
    if not hollow:
        cell_marks(axis, [place], row.to_frame().T, series.color, across=True)


def published_bounds(paper: pd.DataFrame) -> pd.DataFrame:
    """Published rows with ``low`` and ``high``: 1.96 standard errors where one was published, else none."""
    return paper.assign(low=paper["value"] - 1.96 * paper["se"], high=paper["value"] + 1.96 * paper["se"])
