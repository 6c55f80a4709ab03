"""Direct ways to the same numbers, which the tests compare the measures with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from eval.common.stats import Estimate, bootstrap_means
from tldr.errors import UsageError


def bootstrap_mean(
    values: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    draws: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Mean of (n,) values with a percentile interval from the cluster bootstrap; arguments as `mean`."""
    array = np.asarray(values, dtype=np.float64)
    return bootstrap_means(array[:, None], clusters, draws=draws, seed=seed, level=level)[0]


def paired_difference(
    first: pd.DataFrame,
    second: pd.DataFrame,
    column: str,
    *,
    draws: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Mean of `column` in `first` minus in `second`, post by post (bootstrap over posts).

    Both tables hold a column ``id``; several rows of a post are averaged first, so every post
    weighs the same. Pairing removes the spread between easy and hard posts from the interval.

    Raises:
        UsageError: the two tables are not about the same posts.
    """
    for table in (first, second):
        bootstrap_mean(table[column], table["id"], draws=1)  # or a missing value would be averaged away
    left, right = (table.groupby("id")[column].mean() for table in (first, second))
    unshared = left.index.symmetric_difference(right.index)
    if len(unshared):
        raise UsageError(
            f"{len(unshared)} posts occur in only one of the two tables, such as {unshared[0]}",
            remedy="compare policies on the same posts",
        )
    return bootstrap_mean(left - right.loc[left.index], draws=draws, seed=seed, level=level)
