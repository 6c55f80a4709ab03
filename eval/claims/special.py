"""Predicates with a statistic of their own: length control, and best-of-N against PPO at equal quality."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field
from scipy.special import expit

from eval.claims.contrast import Missing, Step, matched, runs_of
from eval.claims.evidence import Evidence, Selector, select
from eval.claims.predicates import Predicate, Steps
from eval.common.stats import bootstrap_totals, from_draws

FloatArray = npt.NDArray[np.float64]

REFITS = 500
"""Most regressions refitted; their interval's error is a tenth of its width."""


class SpendsLess(Predicate):
    """Best-of-N is as good as a PPO policy with less KL from the SFT policy (P App. G.3).

    For every policy of the sweep whose mean `value` lies within the curve of a pool of its size, the
    KL of best-of-N at equal value (interpolated over N) is set against the policy's own; both are
    resampled by post. ln N - (N-1)/N counts from the policy that the pool was drawn from, which may
    be cooler than the T = 1 of the sweep.
    """

    predicate: Literal["spends less"]
    pool: Selector

    def steps(self, evidence: Evidence, draws: int) -> Steps:
        policies = evidence.rows(self.source, self.among, self.value)
        policies = policies[np.isfinite(policies["beta"].astype(float)) & (policies["kl"] > 0)]
        pool = evidence.rows("pool", self.pool, self.value)
        steps = []
        for (size, optimised, beta), rows in policies.groupby(["size", "optimised", "beta"]):
            curve = pool[pool["size"] == size]
            # The reward model that the policy learned from chooses, where the pool has its scores.
            chooser = optimised if (curve["chooser"] == optimised).any() else "rm"
            curve = curve[curve["chooser"] == chooser]
            if len(curve):
                step = _kl_saved(rows, curve, self.value, f"{size} beta {beta:g}", draws)
                steps += [] if step is None else [step]
        if not steps:
            raise Missing("no PPO policy of a KL sweep within the reach of a pool of its size")
        return steps, []


def _kl_saved(rows: pd.DataFrame, curve: pd.DataFrame, value: str, label: str, draws: int) -> Step | None:
    """KL of the policy minus that of best-of-N at equal value; None outside the curve."""
    rows, curve = matched([rows, curve], ["key", "seed"])
    drift = rows.assign(drift=rows["logprob"] - rows["logprob_sft"]).groupby("id")
    own = drift.agg(value=(value, "sum"), drift=("drift", "sum"), count=(value, "count"))
    best = curve.pivot_table(index="id", columns="n", values=value, aggfunc="sum")
    seeds = curve.groupby("id")["seed"].nunique().rename("seeds")
    table = pd.concat([own, best, seeds], axis=1).to_numpy(dtype=float)
    kl = curve.groupby("n")["kl"].first().to_numpy()
    totals = np.vstack([table.sum(axis=0), bootstrap_totals(table, draws=draws)])
    level, spent = totals[:, 0] / totals[:, 2], totals[:, 1] / totals[:, 2]
    # A curve that dips has several N of equal value: the running maximum takes the smallest.
    reached = np.maximum.accumulate(totals[:, 3:-1] / totals[:, -1:], axis=1)
    if not reached[0, 0] <= level[0] <= reached[0, -1]:
        return None
    needed = np.array(
        [np.interp(at, line, kl, right=np.inf) for at, line in zip(level, reached, strict=True)]
    )
    saved = spent - needed
    effect = from_draws(float(saved[0]), saved[1:], len(rows), len(table))
    return Step(label, effect, "nats a sequence", runs_of([rows, curve]))


class LengthShrinks(Predicate):
    """At equal length (P App. F) the lead of `better` over `worse` is smaller than it was, yet still there.

    One logistic regression of preference over the reference on policy and log length ratio; `worse`
    empty means the reference itself. Policies and lengths are resampled by post and the regression is
    refitted each time, so raw and controlled lead are compared on the same resamples.
    """

    predicate: Literal["length shrinks"]
    better: Selector
    worse: Selector = Field(default={})

    def steps(self, evidence: Evidence, draws: int) -> Steps:
        rows = evidence.rows(self.source, self.among, "log_length_ratio")
        if self.value not in rows:
            raise Missing(f"{self.source} carry no {self.value}")
        rows = rows.dropna(subset=[self.value, "log_length_ratio"])
        rows = rows.assign(policy=rows["method"] + "-" + rows["size"])
        shares = _Shares(rows, self.value, draws)
        steps = []
        sizes = rows.sort_values("params")["size"].unique()
        for size in sizes:
            part = rows[rows["size"] == size]
            try:
                sides = [select(part, side) for side in (self.better, self.worse) if side]
            except Missing:
                continue
            raw, controlled = shares.lead([side["policy"].iloc[0] for side in sides])
            count, posts = len(sides[0]), sides[0]["id"].nunique()
            for what, lead in (("lead lost", raw - controlled), ("lead left", controlled)):
                effect = from_draws(float(lead[0]), lead[1:], count, posts)
                unit = "difference in share preferred to the reference"
                steps.append(Step(f"{size} {what}", effect, unit, runs_of([rows])))
        if not steps:
            raise Missing("no size with both policies")
        return steps, []


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
        start = np.zeros(self.x.shape[1])
        for _ in range(25):
            start = self._newton(start, np.ones(len(self.y)))
        raw, controlled = [self._means(np.ones(len(self.y)))], [expit(start[:-1])]
        for _ in range(min(draws, REFITS)):
            drawn = generator.integers(0, len(posts), len(posts))
            weight = np.bincount(drawn, minlength=len(posts)).astype(np.float64)[codes]
            # From the whole sample's fit a resample's is two or three Newton steps away.
            fitted = start
            for _ in range(3):
                fitted = self._newton(fitted, weight)
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

    def _newton(self, at: FloatArray, weight: FloatArray) -> FloatArray:
        p = expit(self.x @ at)
        slope = self.x.T @ (weight * (self.y - p))
        curvature = (self.x.T * (weight * p * (1 - p))) @ self.x
        try:
            moved: FloatArray = at + np.linalg.solve(curvature, slope)
        except np.linalg.LinAlgError:
            moved = np.full_like(at, np.nan)
        if not np.isfinite(moved).all():
            raise Missing("no finite regression on length: a policy wins or loses every pair, or few posts")
        return moved
