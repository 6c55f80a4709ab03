"""Claims that are tested by a function of their own: their shapes are those of no other claim."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from eval.claims.contrast import ClaimStep, Missing, in_each_cell, matched, step_of
from eval.claims.evidence import Evidence, Selector, select
from eval.claims.predicates import ClaimSteps, in_each, paired, place_name, places, two_sides
from eval.common.logistic import fit_logistic
from eval.common.stats import Estimate, bootstrap_totals, from_draws
from tldr.errors import NonFiniteError
from tldr.measures import FloatArray

REFITS = 500
"""Most regressions refitted; their interval's error is a tenth of its width."""
LARGEST_RM: Selector = {"judge": "rm", "variant": "", "params": "highest"}
LEAST_RESTRAINED: Selector = {"swept": True, "beta": "lowest"}


def rm_like_another_labeler(evidence: Evidence, draws: int) -> ClaimSteps:
    """The largest reward model and another labeler agree with labelers alike, within 5 points either way."""
    source, value = "same-policy pairs", "hit"
    other: Selector = {"judge": "labeler"}
    parts = two_sides(evidence.rows(source, {}, value), LARGEST_RM, other)
    step = paired(parts, source, value, "", [*LARGEST_RM, *other], draws=draws)
    return [replace(step, margin=0.05, two_sided=True)], []


def rl_raises_coverage_most(evidence: Evidence, draws: int) -> ClaimSteps:
    """From supervised to RL policies the mean rating gains more on coverage than on each other axis."""
    rows = evidence.rows("ratings", {}, "rating")
    steps = []
    for other in ("coherence", "accuracy"):
        parts = [
            (side * sign, select(rows, {"method": method, "axis": axis}))
            for side, axis in ((1.0, "coverage"), (-1.0, other))
            for sign, method in ((1.0, "ppo"), (-1.0, "sft"))
        ]
        label = f"coverage over {other}"
        steps.append(paired(parts, "ratings", "rating", label, ["method", "axis"], draws=draws))
    return steps, []


def preference_peaks_in_kl(evidence: Evidence, draws: int) -> ClaimSteps:
    """In every KL sweep some policy between its ends is preferred more often than both ends."""
    rows = evidence.rows("sweep", {}, "preference")
    peaks = partial(peak_steps, source="sweep", value="preference", along="kl", each=["sweep"], draws=draws)
    return in_each(rows, ["sweep"], peaks)


def preference_peaks_along_training(evidence: Evidence, draws: int) -> ClaimSteps:
    """Along the least restrained run some iteration between the ends has a higher true score than both."""
    rows = evidence.rows("rollouts", LEAST_RESTRAINED, "gold")
    peaks = partial(
        peak_steps, source="rollouts", value="gold", along="iteration", each=["size"], draws=draws, on=()
    )
    return in_each(rows, ["size"], peaks)


def peak_steps(
    rows: pd.DataFrame,
    name: str,
    *,
    source: str,
    value: str,
    along: str,
    each: list[str],
    draws: int,
    **how: Any,
) -> list[ClaimStep]:
    """The two steps from the ends of a column up to the place between them that stands out most.

    The peak is not known beforehand: every inner place is tried, at a level divided by their number
    (Bonferroni), so that trying several wins nothing by chance. The place is the same in all cells: each
    tried step is the mean of the cells' own.
    """
    at = places(rows, value, along, 3)
    first, *inner, last = at
    how |= {"draws": max(draws, 2000), "level": 1 - 0.05 / len(inner)}
    tried = [
        [
            paired(
                [(1.0, at[peak]), (-1.0, at[end])],
                source,
                value,
                f"{name} {along} {place_name(along, peak)} over {place_name(along, end)}",
                [along, *each],
                **how,
            )
            for end in (first, last)
        ]
        for peak in inner
    ]
    best = max(tried, key=lambda pair: min(step.strength for step in pair))
    return [replace(step, chosen=True) for step in best]


def best_of_n_spends_less_kl(evidence: Evidence, draws: int) -> ClaimSteps:
    """Best-of-N is as good as a PPO policy with less KL from the SFT policy (P App. G.3).

    For every policy of a sweep, in the cells in which its mean preference lies within the curve of a pool of
    its size, the KL of best-of-N at equal preference (interpolated over N) is set against the policy's own;
    in a single cell both are resampled by post. ln N - (N-1)/N counts from the policy that the pool
    was drawn from, which may be cooler than the T = 1 of the sweep.
    """
    value = "preference"
    policies = evidence.rows("sweep", {}, value)
    policies = policies[np.isfinite(policies["beta"].astype(float)) & (policies["kl"] > 0)]
    pool = evidence.rows("pool", {"pool": "highest"}, value)
    steps = []
    for (size, optimised, beta), rows in policies.groupby(["size", "optimised", "beta"]):
        curve = pool[pool["size"] == size]
        # The policy's own reward model chooses, where the pool has its scores.
        chooser = optimised if (curve["chooser"] == optimised).any() else "rm"
        curve = curve[curve["chooser"] == chooser]
        if len(curve):
            step = _kl_saved(rows, curve, value, f"{size} beta {beta:g}", draws)
            steps += [] if step is None else [step]
    if not steps:
        raise Missing("no PPO policy of a KL sweep lies within the curve of a pool of its size")
    return steps, []


def _kl_saved(
    rows: pd.DataFrame, curve: pd.DataFrame, value: str, label: str, draws: int
) -> ClaimStep | None:
    """KL of the policy minus that of best-of-N at equal value, in the cells in which the curve holds it."""
    try:
        effects = in_each_cell([rows, curve], partial(_kl_saved_in, value), draws)
    except Missing:
        return None
    return step_of(label, effects, "nats a sequence", [rows, curve])


def _kl_saved_in(value: str, frames: list[pd.DataFrame], draws: int) -> Estimate:
    """The same within one cell.

    Raises:
        Missing: the policy lies outside the curve, or they share no post.
    """
    rows, curve = matched(frames, ["key"])
    drift = rows.assign(drift=rows["logprob"] - rows["logprob_sft"]).groupby("id")
    own = drift.agg(value=(value, "sum"), drift=("drift", "sum"), count=(value, "count"))
    best = curve.pivot_table(index="id", columns="n", values=value, aggfunc="sum")
    table = pd.concat([own, best], axis=1).to_numpy(dtype=float)
    kl = curve.groupby("n")["kl"].first().to_numpy()
    posts = np.ones((len(table), 1))
    table = np.hstack([table, posts])
    totals = np.vstack([table.sum(axis=0), bootstrap_totals(table, draws=draws)])
    level, spent = totals[:, 0] / totals[:, 2], totals[:, 1] / totals[:, 2]
    # A curve that dips has several N of equal value: the running maximum takes the smallest.
    reached = np.maximum.accumulate(totals[:, 3:-1] / totals[:, -1:], axis=1)
    if not reached[0, 0] <= level[0] <= reached[0, -1]:
        raise Missing("outside the curve")
    needed = np.array(
        [np.interp(at, line, kl, right=np.inf) for at, line in zip(level, reached, strict=True)]
    )
    saved = spent - needed
    return from_draws(float(saved[0]), saved[1:], len(rows), len(table))


def length_shrinks_lead(evidence: Evidence, draws: int, *, worse: Selector | None) -> ClaimSteps:
    """At equal length (P App. F) the lead of PPO over `worse` is smaller than it was, yet still there.

    One logistic regression a cell of preference over the reference on policy and log length ratio; without
    `worse` the lead is over the reference itself. In a single cell policies and lengths are resampled by
    post and the regression is refitted each time, so raw and controlled lead are compared on the same
    resamples.
    """
    source, value = "samples", "preference"
    better: Selector = {"method": "ppo"}
    rows = evidence.rows(source, {"variant": "", "top_p": 1.0, "temperature": "lowest"}, value)
    rows = evidence.valued(source, rows, "log_length_ratio").dropna(subset="log_length_ratio")
    rows = rows.assign(policy=rows["method"] + "-" + rows["size"])
    sides = [side for side in (better, worse) if side]
    found = in_each_cell([rows], lambda part, number: _leads(part[0], value, sides, number), draws)
    labels = dict.fromkeys(label for effects in found.values() for label in effects)
    if not labels:
        raise Missing("no size with both policies")
    steps = []
    for label in labels:
        having = {cell: effects[label] for cell, effects in found.items() if label in effects}
        if len(having) == 1 < len(found):
            (cell,) = having
            having[cell] = _leads(rows[rows["cell"] == cell], value, sides, draws)[label]
        steps.append(step_of(label, having, "difference in share preferred to the reference", [rows]))
    return steps, []


def _leads(rows: pd.DataFrame, value: str, sides: list[Selector], draws: int) -> dict[str, Estimate]:
    """At each size what is lost and left of the lead of the first side, within one cell."""
    shares = _Shares(rows, value, draws)
    found = {}
    for size in rows.sort_values("params")["size"].unique():
        part = rows[rows["size"] == size]
        try:
            compared = [select(part, side) for side in sides]
        except Missing:
            continue
        raw, controlled = shares.lead([side["policy"].iloc[0] for side in compared])
        count, posts = len(compared[0]), compared[0]["id"].nunique()
        for what, lead in (("lead lost", raw - controlled), ("lead left", controlled)):
            found[f"{size} {what}"] = from_draws(float(lead[0]), lead[1:], count, posts)
    return found


class _Shares:
    """Raw and length-controlled preference of every policy: row 0 the estimate, the rest resamples."""

    def __init__(self, rows: pd.DataFrame, value: str, draws: int):
        self.names = list(rows["policy"].unique())
        self.x = np.column_stack(
            [*((rows["policy"] == name).to_numpy(float) for name in self.names), rows["log_length_ratio"]]
        )
        self.y = rows[value].to_numpy(float)
        codes, posts = pd.factorize(rows["id"])
        generator = np.random.default_rng(0)
        start = self._fitted()
        raw, controlled = [self._means(np.ones(len(self.y)))], [expit(start[:-1])]
        for _ in range(min(draws, REFITS)):
            drawn = generator.integers(0, len(posts), len(posts))
            weight = np.bincount(drawn, minlength=len(posts)).astype(np.float64)[codes]
            # From the whole sample's fit a resample's is two or three Newton steps away.
            fitted = self._fitted(weights=weight, start=start, steps=3)
            raw.append(self._means(weight))
            controlled.append(expit(fitted[:-1]))
        self.raw, self.controlled = np.array(raw), np.array(controlled)

    def lead(self, names: list[str]) -> tuple[FloatArray, FloatArray]:
        """Share of the first minus that of the second; of one alone, minus one half (the reference)."""
        places = [self.names.index(name) for name in names]
        raw, controlled = (
            shares[:, places[0]] - (shares[:, places[1]] if len(places) > 1 else 0.5)
            for shares in (self.raw, self.controlled)
        )
        return raw, controlled

    def _means(self, weight: FloatArray) -> FloatArray:
        hot = self.x[:, :-1]
        means: FloatArray = (hot.T @ (weight * self.y)) / (hot.T @ weight)
        return means

    def _fitted(self, **how: Any) -> FloatArray:
        try:
            return fit_logistic(self.x, self.y, **how)
        except NonFiniteError:
            raise Missing(
                "no finite regression on length: a policy wins or loses every pair, or few posts"
            ) from None


LENGTH_CONTROL: dict[str, Callable[[Evidence, int], ClaimSteps]] = {
    "length_shrinks_lead_over_supervised": partial(length_shrinks_lead, worse={"method": "sft"}),
    "length_shrinks_lead_over_reference": partial(length_shrinks_lead, worse=None),
}
"""Those of preference at equal length."""
ON_PREFERENCE = frozenset({*LENGTH_CONTROL, "preference_peaks_in_kl", "best_of_n_spends_less_kl"})
"""Those of what is preferred to the reference, which every judge can be asked."""
FUNCTIONS: dict[str, Callable[[Evidence, int], ClaimSteps]] = {
    "rm_like_another_labeler": rm_like_another_labeler,
    "rl_raises_coverage_most": rl_raises_coverage_most,
    "preference_peaks_in_kl": preference_peaks_in_kl,
    "preference_peaks_along_training": preference_peaks_along_training,
    "best_of_n_spends_less_kl": best_of_n_spends_less_kl,
    **LENGTH_CONTROL,
}
"""By the name that `ShapeClaim.function` uses."""
