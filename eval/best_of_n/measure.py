"""The value of the best of N, from one pool of N samples per post."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from eval.common.cells import listed_values
from eval.common.stats import Estimate, bootstrap_means, cellwise
from tldr.errors import UsageError
from tldr.measures import FloatArray
from tldr.measures.best_of_n import best_of_n_kl, best_of_n_worth


def best_of_n_curve(
    pool: pd.DataFrame,
    chooser: str,
    value: str,
    counts: Sequence[int],
    *,
    gain: bool = False,
    draws: int = 2000,
) -> pd.DataFrame:
    """Mean of `value` of the best of n by `chooser`, for each n, from one pool of N samples per post.

    The unbiased estimator (Nakano et al. 2021, App. I): averaged over all ways to draw n of the N,
    so every sample of the pool counts at every n. Samples of equal choice share their mean value.

    Args:
        pool: columns ``id``, `chooser`, `value`; with several cells also ``cell``, each with a pool of
            its own. The same N for every post (and cell).
        counts: the n, 1 <= n <= N.
        gain: what is gained over n = 1, post by post, instead of the mean itself.

    Returns:
        Columns ``n``, ``kl`` (nats), ``value``, ``low``, ``high``, ``se``, ``posts`` and those of
        `eval.common.stats.Estimate`; within a single cell intervals by the bootstrap over posts.

    Raises:
        UsageError: posts with different N, or an n outside 1..N. NonFiniteError: a NaN.
    """
    check_equal(pool)

    def of_cell(part: pd.DataFrame, number: int) -> dict[int, Estimate]:
        per_post, post = best_of_n_values(part, chooser, value, [1, *counts] if gain else counts)
        if gain:
            per_post = per_post[:, 1:] - per_post[:, :1]
        return dict(zip(counts, bootstrap_means(per_post, post, draws=number), strict=True))

    rows = [
        {
            "n": n,
            "kl": float(best_of_n_kl(n)),
            "value": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "se": estimate.se,
            "posts": estimate.clusters,
            "cells": estimate.cells,
            "cell_sd": estimate.cell_sd,
            "cell_values": listed_values(estimate.cell_values),
        }
        for n, estimate in cellwise(pool, of_cell, draws).items()
    ]
    return pd.DataFrame(rows)


def best_of_n_values(
    pool: pd.DataFrame, chooser: str, value: str, counts: Sequence[int]
) -> tuple[FloatArray, npt.NDArray[np.object_]]:
    """Each post's expected `value` of the best of n: `best_of_n_curve` before averaging.

    Returns:
        (posts, len(counts)) values, and the (posts,) ids.
    """
    order, total = _by_post(pool)
    choice, worth = (
        pool[name].to_numpy(dtype=np.float64)[order].reshape(-1, total) for name in (chooser, value)
    )
    posts = pool["id"].to_numpy(dtype=object)[order[::total]]
    return best_of_n_worth(choice, worth, counts), posts


def check_equal(pool: pd.DataFrame) -> None:
    """Refuse a pool without the same N for every post (and cell).

    Raises:
        UsageError: posts with different N.
    """
    keys = ["cell", "id"] if "cell" in pool else ["id"]
    sizes = pool.groupby(keys, observed=True).size()
    if sizes.min() != sizes.max():
        raise UsageError(f"pools of {sizes.min()} to {sizes.max()} samples per post: they must be equal")


def _by_post(pool: pd.DataFrame) -> tuple[npt.NDArray[np.intp], int]:
    """An order that brings each post's samples together, and their number N."""
    check_equal(pool)
    posts, names = pd.factorize(pool["id"])
    return np.argsort(posts, kind="stable"), len(pool) // len(names)
