"""A judge beside people: how often they agree, and its win share corrected for its bias.

A judge is cheap and may be biased; people are few. Prediction-powered inference (Angelopoulos et al. 2023,
arXiv 2301.09633; with the weight of arXiv 2311.01453) takes the judge's share over all posts and corrects
it by the difference from people's on the posts that both saw. The interval holds the uncertainty of both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import norm

from eval.common.stats import Estimate, cellwise, share
from eval.common.tables import POOLED, Measure, MeasuredResult, group_result, policy_groups
from tldr.measures import FloatArray

FEWEST = 20
"""Posts that both saw; with fewer the interval, which is a large-sample one, would be too narrow."""
_CORRECTED = Measure("corrected", "corrected_preference", "share preferred to the reference")
_PEOPLE = Measure("people", "people_preference", "share preferred to the reference")
_AGREES = Measure("agrees", "agreement_with_people", "share of pairs", counted=True)


def corrected_share(people: FloatArray, judge: FloatArray, judge_alone: FloatArray) -> Estimate:
    """People's mean share, estimated with the judge's help.

    With the labelled posts' shares Y (people) and f (judge) and the judge's shares g of n' other posts,

        value = w mean(g) + mean(Y - w f),   se^2 = w^2 var(g) / n' + var(Y - w f) / n

    where w = cov(Y, f) / ((1 + n / n') var(f)), within 0..1, minimises se. A judge that knows nothing has
    w = 0, and people's own mean stays.

    Args:
        people, judge: (n,) shares in 0..1 of the posts that both saw, n >= 2.
        judge_alone: (n',) the judge's shares of posts that people did not see; may be empty.

    Returns:
        With n + n' observations; bounds by the normal distribution, within 0..1.
    """
    n, others = len(people), len(judge_alone)
    weight = 0.0
    if others > 1 and (spread := float(np.var(judge, ddof=1))) > 0:
        covariance = float(np.cov(people, judge, ddof=1)[0, 1])
        weight = min(1.0, max(0.0, covariance / ((1 + n / others) * spread)))
    rest = people - weight * judge
    value, variance = float(rest.mean()), float(np.var(rest, ddof=1)) / n
    if weight:
        value += weight * float(judge_alone.mean())
        variance += weight**2 * float(np.var(judge_alone, ddof=1)) / others
    se = math.sqrt(variance)
    half = float(norm.ppf(0.975)) * se
    return Estimate(value, max(0.0, value - half), min(1.0, value + half), se, n + others, n + others)


def calibrated(samples: pd.DataFrame, people: str, judge: str) -> list[MeasuredResult]:
    """Each policy's share by people, the judge's corrected share, and how often the two agree, over cells.

    Args:
        samples: with the columns `people` and `judge`, shares in 0..1, missing where one did not look.

    Returns:
        Measures ``corrected_preference``, ``people_preference`` and ``agreement_with_people`` (over pairs;
        a tie of either counts half), of policies with `FEWEST` posts that both saw in each of their cells.
    """
    results = []
    for names, group in policy_groups(samples.dropna(subset=judge), POOLED):
        table = group.assign(people=group[people], judge=group[judge])
        if min(_both(part) for _, part in table.groupby("cell")) < FEWEST:
            continue
        found = cellwise(table, _of_cell)
        results += [
            group_result(group, names, measure, found[measure.name], scorer=judge.removeprefix("score."))
            for measure in (_CORRECTED, _PEOPLE, _AGREES)
        ]
    return results


def _both(rows: pd.DataFrame) -> int:
    return int(rows.loc[rows["people"].notna(), "id"].nunique())


def _of_cell(rows: pd.DataFrame, _: int) -> dict[str, Estimate]:
    """Of one cell; several samples of a post are averaged first."""
    seen = rows.dropna(subset="people")
    means = seen.groupby("id")[["people", "judge"]].mean()
    alone = rows[~rows["id"].isin(means.index)].groupby("id")["judge"].mean()
    columns: Sequence[FloatArray] = [means[name].to_numpy(float) for name in means]
    sides = np.sign(seen["people"] - 0.5) * np.sign(seen["judge"] - 0.5)
    return {
        _CORRECTED.name: corrected_share(columns[0], columns[1], alone.to_numpy(float)),
        _PEOPLE.name: share(seen["people"], seen["id"]),
        _AGREES.name: share((sides + 1) / 2, seen["id"]),
    }
