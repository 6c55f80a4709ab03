"""Preference and ratings at equal length (P App. F; CNN/DM: App. E, Table 14).

Comparisons: logistic regression on policy identity (one per side) and the log ratio of the two
lengths; the length-controlled preference of A over B is the predicted probability at ratio 1.
Ratings (1-7): linear regression on length, a slope for each policy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy.special import expit

from eval.common.pairs import log_length_ratio, reference_pairs
from eval.common.stats import Estimate, cells_of, cellwise, mean, share
from eval.common.tables import POOLED, Measure, MeasuredResult, group_result, policy_groups
from eval.elo.measure import Strengths, fit_strengths
from tldr.errors import UsageError

_FEATURE = "ln(length ratio)"


@dataclass(frozen=True)
class LengthControl:
    """A fitted regression of preference on policies and length.

    Attributes:
        fit: strengths in logits; `unit`: what length was counted in.
    """

    fit: Strengths
    unit: str

    @property
    def slope(self) -> Estimate:
        """Logits of preference gained by one more in the log length ratio."""
        return self.fit.contrast({_FEATURE: 1.0})

    def preference(self, policy: str, over: str | None = None) -> Estimate:
        """Predicted share of pairs in which `policy` is preferred over another at equal length.

        Args:
            over: the other policy; None: the base.

        Raises:
            UsageError: a policy that is not in the fit.
        """
        other = over or self.fit.base
        for name in (policy, other):
            if name != self.fit.base and name not in self.fit.names:
                raise UsageError(f"no policy {name!r} in the length regression")
        logit = self.fit.contrast({policy: 1.0, other: -1.0})
        value = float(expit(logit.value))
        # Bounds are carried over from the logits, so they stay within 0..1; se by the delta method.
        se = value * (1 - value) * logit.se
        return Estimate(value, float(expit(logit.low)), float(expit(logit.high)), se, logit.n, logit.clusters)


def length_control(pairs: pd.DataFrame, *, base: str = "reference", unit: str = "words") -> LengthControl:
    """Fit the paper's regression.

    Args:
        pairs: as in `eval.common.pairs`; the paper uses all human comparisons at once.
        base: the policy whose strength is 0 (the choice changes no prediction).
        unit: "words" or "characters" (the paper names none for TL;DR).

    Raises:
        UsageError, NonFiniteError: as `eval.elo.measure.fit_strengths`.
    """
    features = pd.DataFrame({_FEATURE: log_length_ratio(pairs, unit)})
    return LengthControl(fit_strengths(pairs, base=base, features=features), unit)


def length_controlled(
    samples: pd.DataFrame,
    posts: pd.DataFrame,
    preferred: pd.Series[float],
    *,
    scorer: str,
    unit: str = "words",
) -> tuple[list[MeasuredResult], Estimate]:
    """Preference of every policy to the reference at equal length; in each cell one slope for all.

    Args:
        preferred: of each sample, 0..1 (`eval.preference.measure.wins`); samples without one are left out.

    Returns:
        Results ``length_controlled_preference`` and the slope (`LengthControl.slope`). Policies that win
        or lose every pair in some cell have no finite estimate there, and no result.

    Raises:
        UsageError: no policy has both won and lost. Else as `eval.elo.measure.fit_strengths`.
    """
    table = samples.assign(preferred=preferred.to_numpy()).dropna(subset="preferred").reset_index(drop=True)
    groups = [
        (f"policy {number}", names, group)
        for number, (names, group) in enumerate(policy_groups(table, POOLED))
        if all(0 < part["preferred"].mean() < 1 for part in cells_of(group).values())
    ]
    if not groups:
        raise UsageError("no policy has both won and lost against the reference")
    pairs = pd.concat(
        [
            reference_pairs(group, posts, group["preferred"], pd.Series(name, index=group.index)).assign(
                cell=group["cell"].to_numpy()
            )
            for name, _, group in groups
        ],
        ignore_index=True,
    )
    estimates = cellwise(pairs, partial(_controlled, unit))
    measure = Measure("preferred", "length_controlled_preference", "share preferred at equal length")
    results = [
        group_result(group, names, measure, estimates[name], scorer=scorer) for name, names, group in groups
    ]
    return results, estimates[_FEATURE]


def _controlled(unit: str, pairs: pd.DataFrame, _: int) -> dict[str, Estimate]:
    """The regression of one cell: each policy's preference at equal length, and the slope."""
    control = length_control(pairs, unit=unit)
    found = {
        str(name): replace(control.preference(str(name)), n=len(group), clusters=int(group["id"].nunique()))
        for name, group in pairs.groupby("first", sort=False)
    }
    return found | {_FEATURE: control.slope}


def preference_bins(
    compared: pd.DataFrame, *, bins: int = 10, counted: bool = True
) -> list[tuple[float, Estimate]]:
    """Preference of one policy by how long its summaries are: the points of the paper's Fig. 10b.

    Args:
        compared: columns ``id`` (post), ``log_ratio`` (ln of length / length of the other text) and
            ``preferred`` (0..1).
        bins: of about equally many pairs of all cells; equal ratios stay together, so there may be fewer.
        counted: `preferred` are choices (within a single cell Wilson's interval, widened for posts) or
            probabilities (t interval).

    Returns:
        Of each bin the mean ``log_ratio`` and the estimate.
    """
    place = pd.qcut(compared["log_ratio"], bins, duplicates="drop")

    def in_bin(part: pd.DataFrame, _: int) -> dict[str, Estimate]:
        return {"preferred": (share if counted else mean)(part["preferred"], part["id"])}

    return [
        (float(part["log_ratio"].mean()), cellwise(part, in_bin)["preferred"])
        for _, part in compared.groupby(place, observed=True)
    ]


def rating_by_length(ratings: pd.DataFrame, *, at: float | None = None) -> pd.DataFrame:
    """Linear regression of a rating on length, separately for each policy.

    Args:
        ratings: columns ``id`` (post), ``policy``, ``length``, ``rating``.
        at: length at which ratings are predicted; None: the mean over all rows.

    Returns:
        A row per policy: ``policy``, ``n``, ``length`` (mean), ``length_sd``, ``rating`` (mean),
        ``per_100`` with ``per_100_low`` and ``per_100_high`` (rating gained by 100 more), and
        ``at_length``: the predicted rating there with ``low`` and ``high``, and ``cells``. Intervals are
        95 %: over cells, within a single one over posts.

    Raises:
        UsageError: a policy with fewer than three rows in a cell, or texts all of one length.
    """
    place = float(ratings["length"].mean()) if at is None else at
    rows = []
    for policy, group in ratings.groupby("policy"):
        found = cellwise(group, partial(_line, place))
        slope, level = found["per_100"], found["at_length"]
        rows.append(
            {
                "policy": policy,
                "n": len(group),
                **{name: found[name].value for name in ("length", "length_sd", "rating")},
                "per_100": slope.value,
                "per_100_low": slope.low,
                "per_100_high": slope.high,
                "at_length": level.value,
                "low": level.low,
                "high": level.high,
                "cells": level.cells,
            }
        )
    return pd.DataFrame(rows)


def _line(place: float, group: pd.DataFrame, _: int) -> dict[str, Estimate]:
    """The regression of `rating_by_length` for one policy in one cell."""
    if len(group) < 3 or group["length"].nunique() < 2:
        policy = group["policy"].iloc[0]
        raise UsageError(f"{policy}: no slope from {len(group)} ratings of texts of one length")
    design = np.column_stack([np.ones(len(group)), (group["length"] - place) / 100])
    codes, posts = pd.factorize(group["id"])
    fit = sm.OLS(group["rating"].to_numpy(dtype=float), design).fit(
        cov_type="cluster", cov_kwds={"groups": codes}, use_t=True
    )
    bounds, errors = np.asarray(fit.conf_int()), np.asarray(fit.bse)
    found = {
        name: Estimate(
            float(fit.params[i]), bounds[i, 0], bounds[i, 1], float(errors[i]), len(group), len(posts)
        )
        for i, name in enumerate(("at_length", "per_100"))
    }
    spread = mean(group["length"])
    spread = replace(spread, value=float(group["length"].std(ddof=1)))
    return found | {"length": mean(group["length"]), "length_sd": spread, "rating": mean(group["rating"])}
