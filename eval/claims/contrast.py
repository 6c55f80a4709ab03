"""One step of a claim: a difference between groups of the same posts, with the interval that decides it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from eval.common.stats import Estimate, bootstrap_totals, from_draws
from tldr.errors import NonFiniteError

WeightedRows = tuple[float, pd.DataFrame]
"""A group's rows with the sign (or weight) that its mean has in the contrast."""

SPREAD = ("seed", "size")
"""Columns that rows are matched on besides the unit, unless the claim varies them."""


class Missing(Exception):
    """The study lacks what a claim needs; the message names it."""


@dataclass(frozen=True)
class ClaimStep:
    """A required part of a claim, turned so that above 0 is the claimed side.

    Attributes:
        label: where it was taken ("m", "T 1 -> 0.7"). unit: of the effect.
        margin: the whole interval must lie above -margin (0: a strict claim).
        two_sided: it must lie below +margin as well (a claim of equality).
        seed_sd: standard deviation of the effect between seeds, None with fewer than two.
    """

    label: str
    effect: Estimate
    unit: str
    runs: tuple[str, ...]
    margin: float = 0.0
    two_sided: bool = False
    seed_sd: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the whole interval lies on the claimed side; false without an interval."""
        return self.effect.low > -self.margin and (not self.two_sided or self.effect.high < self.margin)

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
    """Weighted sum of the groups' means of `value`, such as one minus another.

    All groups are resampled with the same draws of posts (``id``), which pairs what is about the same
    posts; seeds are pooled within a post.

    Args:
        parts: rows with ``id``, ``run``, ``seed``, `value` and `on`; rows without a value are left out.
        on: columns that name one unit (post, pair); only units in every group count. Empty: the groups
            hold different units on purpose, such as bins.

    Raises:
        Missing: no common unit. NonFiniteError: an infinite value.
    """
    frames = [frame[frame[value].notna()] for _, frame in parts]
    if any(frame.empty for frame in frames):
        raise Missing(f"no {value} of {label}")
    if on:
        frames = matched(frames, on)
    weights = np.array([weight for weight, _ in parts])
    effect = _estimate(frames, weights, value, draws, level)
    count = len(frames[0][list(on)].drop_duplicates()) if on else sum(map(len, frames))
    seeds = set.intersection(*(set(frame["seed"]) for frame in frames))
    by_seed = [
        sum(
            w * frame.loc[frame["seed"] == seed, value].mean()
            for w, frame in zip(weights, frames, strict=True)
        )
        for seed in seeds
    ]
    spread = float(np.std(by_seed, ddof=1)) if len(seeds) > 1 else None
    return ClaimStep(label, replace(effect, n=count), unit, runs_of(frames), seed_sd=spread)


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
