"""Preference against temperature and top-p: the paper's Fig. 8."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.common.figures import cell_marks, published_bounds
from eval.common.style import BLACK, CYCLE, MARKERS, Series, percent_axis, styled

_PUBLISHED = Series("Published (Fig. 8)", BLACK, "X")


@styled
def sampling_sweeps(
    table: pd.DataFrame, by_temperature: pd.DataFrame | None, by_top_p: pd.DataFrame | None, *, title: str
) -> Figure:
    """Share preferred to the reference against temperature (left) and top-p at temperature 1 (right).

    Args:
        table: results of one measure and scorer of supervised policies; may be empty.
        by_temperature, by_top_p: rows of ``fig8.csv``, drawn in black among ours: the axes are the same.
    """
    figure = Figure(figsize=(12.5, 5.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    sizes = table.drop_duplicates("size").sort_values("params")["size"]
    rows = table.assign(top_p=table["top_p"].fillna(1.0))
    sweeps = (("temperature", rows["top_p"] == 1), ("top_p", rows["temperature"] == 1))
    for panel, (column, kept), paper in zip(panels, sweeps, (by_temperature, by_top_p), strict=True):
        for number, size in enumerate(sizes):
            part = rows[kept & (rows["size"] == size)].sort_values(column)
            _line(panel, part[column], part, Series(f"Size {size}", CYCLE[number], MARKERS[number]))
        if paper is not None:
            _line(panel, paper["x"].astype(float), published_bounds(paper), _PUBLISHED, style="--")
        panel.axhline(0.5, color=BLACK, linestyle=":", linewidth=1.4, zorder=1)
    panels[0].set_xlabel("Temperature")
    panels[1].set_xlabel("top-p (nucleus sampling, temperature 1)")
    percent_axis(panels[0], "Preferred to the reference")
    panels[0].set_ylim(bottom=min(0.0, panels[0].get_ylim()[0]))
    panels[0].set_title(title)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, len(labels)))
    return figure


def _line(
    panel: Axes, places: pd.Series[float], rows: pd.DataFrame, series: Series, style: str = "-"
) -> None:
    bars = np.vstack([rows["value"] - rows["low"], rows["high"] - rows["value"]]).clip(min=0)
    panel.errorbar(
        places,
        rows["value"],
        yerr=bars,
        color=series.color,
        marker=series.marker,
        linestyle=style,
        capsize=4,
        elinewidth=1.6,
        label=series.label,
    )
    cell_marks(panel, places, rows, series.color)
