"""Means with honest intervals: one rule for all of the report (`over_cells`).

A study that was repeated, over draws of the data or training seeds, has several cells
(`eval.common.cells`). An estimate is then the mean of the cells' own estimates, with a t interval over the
cells, and nothing else. Within a single cell the posts are the independent units, not the judgements
about them: several samples, labels or judges of one post are correlated, so every interval within a cell
can be clustered. It says nothing about another draw. The bootstrap resamples whole clusters and is
vectorised: 10,000 draws on 20,000 judgements take seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar

from eval.common.cells import cell_order, listed_values, world_of
from tldr.errors import NonFiniteError, UsageError
from tldr.measures import FloatArray
from tldr.measures.wilson import wilson_interval

_CHUNK_CELLS = 4_000_000
"""Bootstrap weights held at once (32 MB), whatever the number of draws."""


@dataclass(frozen=True)
class Estimate:
    """A number with its uncertainty.

    Attributes:
        value: the estimate.
        low, high: confidence bounds (NaN where one cluster allows none).
        se: standard error (NaN likewise).
        n: observations; `clusters`: different posts among them.
        cells: repetitions that were averaged. With one, "one draw", the interval is over posts.
        cell_sd: standard deviation between the cells' values, None with one.
        cell_values: the cells with their own values; empty with one.
    """

    value: float
    low: float
    high: float
    se: float
    n: int
    clusters: int
    cells: int = 1
    cell_sd: float | None = None
    cell_values: tuple[tuple[str, float], ...] = ()


K = TypeVar("K", bound=Hashable)


def over_cells(estimates: Mapping[str, Estimate], *, level: float = 0.95) -> Estimate:
    """The one rule of intervals: the mean over cells with a t interval on (cells - 1) degrees of freedom.

    Every cell counts the same, however many posts it has and however many cells share its data seed.
    With one cell the estimate is that cell's own.

    Args:
        estimates: cell (`eval.common.cells`) -> its own estimate, of which the value alone is used.

    Returns:
        ``n`` is the sum over cells; cells of one world share their posts, so ``clusters`` counts the most
        of any cell of a world.

    Raises:
        UsageError: no cell.
    """
    if not estimates:
        raise UsageError("no cell to estimate from")
    if len(estimates) == 1:
        return next(iter(estimates.values()))
    cells = sorted(estimates, key=cell_order)
    values = np.array([estimates[cell].value for cell in cells])
    center, spread = float(values.mean()), float(values.std(ddof=1))
    se = spread / float(np.sqrt(len(cells)))
    half = float(scipy_stats.t.ppf((1 + level) / 2, len(cells) - 1)) * se
    posts: Counter[str] = Counter()
    for cell in cells:
        posts[world_of(cell)] = max(posts[world_of(cell)], estimates[cell].clusters)
    return Estimate(
        center,
        center - half,
        center + half,
        se,
        sum(estimates[cell].n for cell in cells),
        posts.total(),
        len(cells),
        spread,
        tuple(zip(cells, values.tolist(), strict=True)),
    )


def cells_of(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Cell -> its rows, in order; rows without a column ``cell`` are one cell, "0"."""
    names = sorted(rows["cell"].unique(), key=cell_order) if "cell" in rows else []
    if len(names) < 2:
        return {names[0] if names else "0": rows}
    return {cell: rows[rows["cell"] == cell] for cell in names}


def cellwise(
    rows: pd.DataFrame,
    measure: Callable[[pd.DataFrame, int], Mapping[K, Estimate]],
    draws: int = 0,
    *,
    level: float = 0.95,
) -> dict[K, Estimate]:
    """What `measure` finds in each cell, combined by `over_cells`.

    Args:
        rows: with a column ``cell``, unless they are one cell.
        measure: rows of one cell and bootstrap draws -> named estimates. The draws are 0 where other
            cells give the interval.
        draws: for what one cell alone has.
    """
    parts = cells_of(rows)
    if len(parts) == 1:
        return dict(measure(rows, draws))
    found = {cell: measure(part, 0) for cell, part in parts.items()}
    names = dict.fromkeys(name for one in found.values() for name in one)
    having = {name: [cell for cell, one in found.items() if name in one] for name in names}
    if draws:
        for cell in {cells[0] for cells in having.values() if len(cells) == 1}:
            found[cell] = measure(parts[cell], draws)
    return {
        name: over_cells({cell: found[cell][name] for cell in cells}, level=level)
        for name, cells in having.items()
    }


def table_over_cells(
    rows: pd.DataFrame,
    measure: Callable[[pd.DataFrame, int], pd.DataFrame],
    keys: Sequence[str],
    draws: int = 0,
    *,
    averaged: Sequence[str] = (),
    summed: Sequence[str] = (),
) -> pd.DataFrame:
    """`cellwise` for measures that give a table with ``value``, ``low``, ``high``, ``se``, ``n``, ``posts``.

    Args:
        keys: columns that name a row. averaged, summed: further columns to carry over so; any other column
            is the first cell's.

    Returns:
        The table with the columns ``cells``, ``cell_sd`` and ``cell_values`` (`listed_values`), in the order
        in which the cells have the rows.
    """
    tables: dict[str, pd.DataFrame] = {}

    def estimates(part: pd.DataFrame, number: int) -> dict[tuple[object, ...], Estimate]:
        table = tables[next(iter(cells_of(part)))] = measure(part, number)
        return {
            tuple(row[key] for key in keys): Estimate(
                row["value"], row["low"], row["high"], row["se"], int(row["n"]), int(row["posts"])
            )
            for row in table.to_dict("records")
        }

    made = cellwise(rows, estimates, draws)
    whole = pd.concat(list(tables.values()), ignore_index=True)
    if whole.empty:
        return whole.assign(cells=[], cell_sd=[], cell_values=[])
    of_row = whole.groupby(list(keys), sort=False, dropna=False)
    first = of_row.nth(0)
    for name in averaged:
        first[name] = of_row[name].transform("mean").loc[first.index]
    for name in summed:
        first[name] = of_row[name].transform("sum").loc[first.index]
    ordered = [made[tuple(row)] for row in first[list(keys)].itertuples(index=False, name=None)]
    names = ("value", "low", "high", "se", "n", "cells", "cell_sd")
    columns = {name: [getattr(one, name) for one in ordered] for name in names}
    columns["posts"] = [one.clusters for one in ordered]
    columns["cell_values"] = [listed_values(one.cell_values) for one in ordered]
    return first.assign(**columns).reset_index(drop=True)


def _checked(
    values: npt.ArrayLike, clusters: npt.ArrayLike | None
) -> tuple[FloatArray, npt.NDArray[np.intp]]:
    """Finite float values (n,) or (n, m) and cluster codes 0..G-1 (n,)."""
    array = np.asarray(values, dtype=np.float64)
    if not len(array):
        raise UsageError("no observations to estimate from")
    if not np.isfinite(array).all():
        raise NonFiniteError(f"{int((~np.isfinite(array)).sum())} of {array.size} values are not finite")
    if clusters is None:
        return array, np.arange(len(array))
    codes, _ = pd.factorize(np.asarray(clusters))
    if len(codes) != len(array):
        raise UsageError(f"{len(array)} values but {len(codes)} cluster labels")
    if (codes < 0).any():
        raise UsageError(f"{int((codes < 0).sum())} observations have no cluster label")
    return array, codes


def cluster_sums(columns: FloatArray, codes: npt.NDArray[np.intp]) -> FloatArray:
    """(n, m) observations -> (G, m) sums per cluster."""
    sums = np.zeros((codes.max() + 1, columns.shape[1]))
    np.add.at(sums, codes, columns)
    return sums


def mean(values: npt.ArrayLike, clusters: npt.ArrayLike | None = None, *, level: float = 0.95) -> Estimate:
    """Mean with the cluster-robust standard error and a t interval on G - 1 degrees of freedom.

    Equals statsmodels' intercept-only OLS with ``cov_type="cluster"``; without clusters the usual
    s / sqrt(n).

    Args:
        values: (n,) finite numbers. clusters: (n,) labels, such as post ids.

    Raises:
        NonFiniteError: a NaN or infinity. UsageError: nothing to average.
    """
    array, codes = _checked(values, clusters)
    center = float(array.mean())
    residuals = cluster_sums((array - center)[:, None], codes)[:, 0]
    groups = len(residuals)
    if groups < 2:
        return Estimate(center, np.nan, np.nan, np.nan, len(array), groups)
    se = float(np.sqrt(groups / (groups - 1) * np.square(residuals).sum()) / len(array))
    half = float(scipy_stats.t.ppf((1 + level) / 2, groups - 1)) * se
    return Estimate(center, center - half, center + half, se, len(array), groups)


def bootstrap_totals(
    columns: npt.ArrayLike, clusters: npt.ArrayLike | None = None, *, draws: int = 10_000, seed: int = 0
) -> FloatArray:
    """Column totals of `draws` resamples of whole clusters, drawn with replacement.

    Any smooth statistic of sums follows: a mean is total / count total, a ratio two columns.

    Args:
        columns: (n, m) finite numbers. clusters: (n,) labels.

    Returns:
        (draws, m) float64; the same seed gives the same draws for the same clusters.
    """
    array, codes = _checked(columns, clusters)
    sums = cluster_sums(array, codes)
    step = max(1, _CHUNK_CELLS // len(sums))
    if not draws:
        return np.empty((0, sums.shape[1]))
    chunks = [
        _resamples(len(sums), min(step, draws - start), seed, number) @ sums
        for number, start in enumerate(range(0, draws, step))
    ]
    return np.concatenate(chunks)


@lru_cache(maxsize=2)
def _resamples(groups: int, rows: int, seed: int, chunk: int) -> FloatArray:
    """How often each of `groups` clusters is in each of `rows` resamples: (rows, groups).

    Kept, for a report asks for the same resamples of the same posts hundreds of times.
    """
    picks = np.random.default_rng([seed, chunk]).integers(0, groups, size=(rows, groups))
    picks += np.arange(rows)[:, None] * groups
    weights = np.bincount(picks.ravel(), minlength=rows * groups).reshape(rows, groups).astype(np.float64)
    weights.flags.writeable = False
    return weights


def from_draws(value: float, draws: FloatArray, n: int, clusters: int, level: float = 0.95) -> Estimate:
    """Interval and standard error of bootstrap draws (draws,) of a statistic.

    The bounds are expanded percentiles (Hesterberg 2015, "What teachers should know about the
    bootstrap", section 4.1): plain ones miss the factor sqrt(G / (G - 1)) and the t quantile, and
    with few clusters cover too little. Without draws there is no interval. Where draws are infinite (what is
    asked for is never reached in them) a bound is the next draw outwards, and there is no standard error.
    """
    if clusters < 2 or not len(draws):
        return Estimate(value, np.nan, np.nan, np.nan, n, clusters)
    reach = np.sqrt(clusters / (clusters - 1)) * scipy_stats.t.ppf((1 + level) / 2, clusters - 1)
    tail = float(scipy_stats.norm.sf(reach))
    if np.isinf(draws).any():  # between two equal infinities nothing can be interpolated
        low, high = np.quantile(draws, tail, method="lower"), np.quantile(draws, 1 - tail, method="higher")
        return Estimate(value, float(low), float(high), np.nan, n, clusters)
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), float(draws.std(ddof=1)), n, clusters)


def bootstrap_means(
    columns: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    draws: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> list[Estimate]:
    """Mean of each column (n, m) with a percentile interval; all columns share the resamples."""
    array, codes = _checked(columns, clusters)
    totals = bootstrap_totals(np.column_stack([array, np.ones(len(array))]), codes, draws=draws, seed=seed)
    means = totals[:, :-1] / totals[:, -1:]
    groups = int(codes.max()) + 1
    return [
        from_draws(float(value), column, len(array), groups, level)
        for value, column in zip(array.mean(axis=0), means.T, strict=True)
    ]


def jackknife(value: float, without: npt.ArrayLike, n: int, *, level: float = 0.95) -> Estimate:
    """Interval of a statistic from its values with each cluster left out (Tukey 1958), t on G - 1.

    For what a bootstrap distorts, such as counts of different things. Never too narrow on average
    (Efron and Stein 1981); for the mean it is the interval of `mean`.

    Args:
        value: of all observations. without: (G,). n: observations.
    """
    left = np.asarray(without, dtype=np.float64)
    groups = len(left)
    if groups < 2 or not np.isfinite(left).all():
        return Estimate(value, np.nan, np.nan, np.nan, n, groups)
    se = float(np.sqrt((groups - 1) / groups * np.square(left - left.mean()).sum()))
    half = float(scipy_stats.t.ppf((1 + level) / 2, groups - 1)) * se
    return Estimate(value, value - half, value + half, se, n, groups)


def sign_flip(differences: npt.ArrayLike, *, draws: int = 10_000, seed: int = 0) -> FloatArray:
    """Two-sided p values that the columns (n, m) of paired differences have mean 0.

    If the two sides of a pair may be exchanged, every sign pattern is as likely as the one seen
    (Fisher 1935); p is the share of `draws` random patterns, the observed one among them, whose
    mean is at least as far from 0. One set of patterns serves all columns.

    Returns:
        (m,) in 1 / (draws + 1) .. 1.
    """
    array, _ = _checked(differences, None)
    observed = np.abs(array.sum(axis=0)) * (1 - 1e-12)  # sums of the same numbers in another order are equal
    generator = np.random.default_rng(seed)
    extreme = np.ones(array.shape[1])
    step = max(1, _CHUNK_CELLS // len(array))
    for start in range(0, draws, step):
        signs = generator.integers(0, 2, size=(min(step, draws - start), len(array))) * 2.0 - 1.0
        extreme += (np.abs(signs @ array) >= observed).sum(axis=0)
    return extreme / (draws + 1)


def t_test(estimate: Estimate) -> float:
    """Two-sided p value that the mean over several cells (`over_cells`) is 0."""
    if estimate.se == 0:
        return float(estimate.value == 0)
    return float(2 * scipy_stats.t.sf(abs(estimate.value) / estimate.se, estimate.cells - 1))


def mcnemar_p(first: npt.ArrayLike, second: npt.ArrayLike) -> float | None:
    """McNemar's exact test of paired outcomes (n,) that are 1, 0 or, a tie, 0.5.

    Returns:
        The two-sided p value over pairs in which neither side tied; None where an outcome is
        something else.
    """
    left, right = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if not np.isin([left, right], [0, 0.5, 1]).all():
        return None
    decided = (left != 0.5) & (right != 0.5)
    table = [[int((decided & (left == a) & (right == b)).sum()) for b in (1, 0)] for a in (1, 0)]
    return float(mcnemar(table, exact=True).pvalue)


def wilson(successes: float, n: int, *, level: float = 0.95) -> Estimate:
    """Share with Wilson's score interval; `successes` may hold halves (ties)."""
    if not 0 <= successes <= n or n < 1:
        raise UsageError(f"{successes} successes of {n} is not a share")
    low, high = wilson_interval(successes, n, level)
    share = successes / n
    return Estimate(share, low, high, float(np.sqrt(share * (1 - share) / n)), n, n)


def share(hits: npt.ArrayLike, clusters: npt.ArrayLike | None = None, *, level: float = 0.95) -> Estimate:
    """Share of 0/1 (or half) outcomes (n,) with Wilson's interval, widened for clusters.

    Clustering divides n by the design effect (Kish 1965): the ratio of the cluster-robust variance
    to that of independent outcomes. Unlike a bootstrap it gives an interval where all outcomes are
    alike; there n is the number of clusters.

    Raises:
        NonFiniteError: a NaN. UsageError: nothing to count, or an outcome outside 0..1.
    """
    array, codes = _checked(hits, clusters)
    if ((array < 0) | (array > 1)).any():
        raise UsageError("a share needs outcomes between 0 and 1")
    center = mean(array, codes)
    plain = mean(array).se
    groups = center.clusters
    usable = groups > 1 and plain > 0
    size = len(array) / max((center.se / plain) ** 2, 1.0) if usable else float(groups)
    low, high = wilson_interval(center.value * size, size, level)
    se = center.se if usable else float("nan")
    return Estimate(center.value, low, high, se, len(array), groups)
