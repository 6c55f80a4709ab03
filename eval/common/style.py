"""The style of figures: Okabe-Ito colours, shapes beside colours, legible when printed half size."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from eval.common.tables import human_count
from tldr.files import replacing

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE, GREY = "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#6B6B6B"
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)
"""Okabe & Ito (2008) without yellow, which is too faint for lines on white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.8,
    "lines.linewidth": 2.2,
    "lines.markersize": 8,
    "legend.frameon": False,
    "legend.fontsize": 12,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "tldr",
}


@dataclass(frozen=True)
class Series:
    """The look of one series in every figure."""

    label: str
    color: str
    marker: str


METHODS = {
    "ppo": Series("Human feedback (PPO)", VERMILLION, "o"),
    "best_of_n": Series("Best of N", PURPLE, "D"),
    "sft": Series("Supervised", BLUE, "s"),
    "pretrained": Series("Pretrained only", GREEN, "^"),
}

P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw under this style, leaving matplotlib's global state alone."""

    @wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(RC):
            return draw(*args, **kwargs)

    return inside


def parameter_axis(axis: Axes, sizes: list[float]) -> None:
    """Log x axis with a tick at each model size, named 1.3B, 35k; ticks that would touch are left out."""
    axis.set_xscale("log")
    sizes = sorted(set(sizes))
    low, high = sizes[0], sizes[-1]
    margin = (high / low) ** 0.09 if high > low else 2.0
    axis.set_xlim(low / margin, high * margin)
    shown: list[float] = []
    for size in sizes:
        if not shown or size / shown[-1] > (high / low) ** 0.11:
            shown.append(size)
    axis.xaxis.set_major_locator(FixedLocator(shown))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: human_count(value)))
    axis.set_xlabel("Model size (parameters)")


def percent_axis(axis: Axes, label: str) -> None:
    """y axis of shares 0..1, printed in per cent."""
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.set_ylabel(label)


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """Write ``name.png`` (200 dpi) and ``name.svg``; the same figure gives the same bytes."""
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    with matplotlib.rc_context(RC):
        with replacing(png, durable=False) as partial:
            figure.savefig(partial, format="png", dpi=200, metadata={"Software": None})
        figure.set_layout_engine("none")  # the layout is done; doing it again costs as much as drawing
        with replacing(svg, durable=False) as partial:
            figure.savefig(partial, format="svg", metadata={"Date": None})
    return png, svg


def data_uri(svg: Path) -> str:
    """An SVG file as a data URI, for pages that load nothing."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.read_bytes()).decode("ascii")
