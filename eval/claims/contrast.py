"""One step of a claim: a difference between groups of the same posts, with the interval that decides it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from eval.common.cells import cell_order
from eval.common.stats import Estimate, bootstrap_totals, from_draws, over_cells
from tldr.errors import NonFiniteError

WeightedRows = tuple[float, pd.DataFrame]
"""A group's rows with the sign (or weight) that its mean has in the contrast."""

T = TypeVar("T")


class Missing(Exception):
    """The study lacks what a claim needs; the message names it."""


@dataclass(frozen=True)
class ClaimStep:
    """A required part of a claim, turned so that above 0 is the claimed side.

    Attributes:
        label: where it was taken ("m", "T 1 -> 0.7"). unit: of the effect.
        effect: over cells (`eval.common.stats.over_cells`); of a single cell, over posts.
        cells: cell -> its own effect.
        margin: the whole interval must lie above -margin (0: a strict claim).
        two_sided: it must lie below +margin as well (a claim of equality).
        level: of the interval. chosen: the place was chosen by what the study shows (a peak).
    """

    label: str
    effect: Estimate
    unit: str
    runs: tuple[str, ...]
    cells: Mapping[str, float]
    margin: float = 0.0
    two_sided: bool = False
    level: float = 0.95
    chosen: bool = False

    @property
    def holds(self) -> bool:
        """Whether the whole interval lies on the claimed side; false without an interval."""
        return self.effect.low > -self.margin and (not self.two_sided or self.effect.high < self.margin)

    def holds_in(self, cell: str) -> bool:
        """Whether the cell's own effect lies on the claimed side."""
        value = self.cells[cell]
        return value > -self.margin and (not self.two_sided or value < self.margin)

    @property
    def refuted(self) -> bool:
        """Whether the whole interval lies outside the claimed side."""
        return self.effect.high < -self.margin or (self.two_sided and self.effect.low > self.margin)

    @property
    def strength(self) -> float:
        """Distance from refutation in half widths, to find the weakest step."""
        effect = self.effect
        gap = effect.value + self.margin
        if self.two_sided:
            gap = self.margin - abs(effect.value)
        width = max(effect.value - effect.low, effect.high - effect.value, 1e-12)
        return gap / width if np.isfinite(width) else -np.inf


def matched(frames: Sequence[pd.DataFrame], on: Sequence[str]) -> list[pd.DataFrame]:
    """The rows whose values of `on` occur in every frame.

    Raises:
        Missing: there are none.
    """
    keys = [pd.MultiIndex.from_frame(frame[list(on)]) for frame in frames]
    common = keys[0].unique()
    for key in keys[1:]:
        common = common[common.isin(key)]
    if common.empty:
        raise Missing("the compared rows share no post")
    return [frame[key.isin(common)] for frame, key in zip(frames, keys, strict=True)]


def runs_of(frames: Sequence[pd.DataFrame]) -> tuple[str, ...]:
    """The run ids of all rows, sorted; a cell may name several, apart by spaces."""
    cells = {cell for frame in frames for cell in frame["run"].unique()}
    return tuple(sorted({run for cell in cells for run in str(cell).split()}))


def in_each_cell(
    frames: Sequence[pd.DataFrame], measure: Callable[[list[pd.DataFrame], int], T], draws: int
) -> dict[str, T]:
    """Cell -> what `measure` finds in the frames' rows of that cell, where all frames have rows.

    Args:
        measure: frames of one cell and bootstrap draws; the draws are 0 where several cells are found,
            which give the interval. It raises `Missing` where the cell lacks something.

    Raises:
        Missing: no cell has all.
    """
    shared = set.intersection(*(set(frame["cell"]) for frame in frames))
    if not shared:
        raise Missing("the compared rows share no cell")
    parts = {
        cell: [frame[frame["cell"] == cell] for frame in frames] for cell in sorted(shared, key=cell_order)
    }
    found, lacking = {}, []
    for cell, part in parts.items():
        try:
            found[cell] = measure(part, draws if len(parts) == 1 else 0)
        except Missing as missing:
            lacking.append(missing)
    if not found:
        raise lacking[0]
    if len(found) == 1 < len(parts):
        (cell,) = found
        found[cell] = measure(parts[cell], draws)
    return found


def step_of(
    label: str,
    effects: Mapping[str, Estimate],
    unit: str,
    frames: Sequence[pd.DataFrame],
    level: float = 0.95,
) -> ClaimStep:
    """The step whose effects in the cells are `effects`, combined by `eval.common.stats.over_cells`."""
    effect = over_cells(effects, level=level)
    runs = runs_of([frame[frame["cell"].isin(list(effects))] for frame in frames])
    values = {cell: one.value for cell, one in effects.items()}
    return ClaimStep(label, effect, unit, runs, values, level=level)


def contrast(
    parts: Sequence[WeightedRows],
    value: str,
    *,
    label: str,
    unit: str,
    on: Sequence[str] = ("key",),
    draws: int = 2000,
    level: float = 0.95,
) -> ClaimStep:
    """Weighted sum of the groups' means of `value`, such as one minus another, in each cell by itself.

    Within a cell all groups are resampled with the same draws of posts (``id``), which pairs what is about
    the same posts.

    Args:
        parts: rows with ``id``, ``run``, ``cell``, `value` and `on`; rows without a value are left out.
        on: columns that name one unit (post, pair) of a cell; only units in every group count. Empty: the
            groups hold different units on purpose, such as bins.

    Raises:
        Missing: no common cell or unit. NonFiniteError: an infinite value.
    """
    frames = [frame[frame[value].notna()] for _, frame in parts]
    if any(frame.empty for frame in frames):
        raise Missing(f"no {value} of {label}")
    weights = np.array([weight for weight, _ in parts])

    def effect_in(frames: list[pd.DataFrame], number: int) -> Estimate:
        if on:
            frames = matched(frames, on)
        count = len(frames[0][list(on)].drop_duplicates()) if on else sum(map(len, frames))
        return replace(_estimate(frames, weights, value, number, level), n=count)

    return step_of(label, in_each_cell(frames, effect_in, draws), unit, frames, level)


def _estimate(
    frames: list[pd.DataFrame], weights: npt.NDArray[np.float64], value: str, draws: int, level: float
) -> Estimate:
    """The contrast with a percentile interval over posts."""
    sums = [frame.groupby("id")[value].agg(["sum", "count"]).astype(float) for frame in frames]
    table = pd.concat(sums, axis=1).fillna(0.0)
    columns = table.to_numpy()
    if not np.isfinite(columns).all():
        raise NonFiniteError(f"{value} is not finite", where=", ".join(runs_of(frames)))
    totals = np.vstack([columns.sum(axis=0), bootstrap_totals(columns, draws=draws)])
    # A resample that lacks a group has no effect.
    totals = totals[(totals[:, 1::2] > 0).all(axis=1)]
    effects = (totals[:, ::2] / totals[:, 1::2]) @ weights
    return from_draws(float(effects[0]), effects[1:], int(columns[:, 1::2].sum()), len(table), level)
