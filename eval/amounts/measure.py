"""How far one policy leads another on the same posts, and what a doubling of a policy's data gains."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from eval.common.stats import Estimate, bootstrap_means, cellwise


def lead(values: pd.DataFrame, first: str, second: str, draws: int) -> Estimate | None:
    """Preference of `first` minus that of `second`, post by post; above 0 where `first` is preferred more
    often.

    Args:
        values: ``cell``, ``id`` (the post), and of each policy a column of values 0..1; missing where it has
            none for that post.

    Returns:
        The mean over the posts that have both; None without such a post.
    """
    rows = values.dropna(subset=[first, second])
    return _mean_of(rows, (rows[first] - rows[second]).to_numpy(), draws)


def gain_by_doubling(values: pd.DataFrame, amounts: Mapping[str, int], draws: int) -> Estimate | None:
    """Preference gained by a doubling of the data: least squares of it on their log2.

    The slope is a weighted sum of the policies' values on the same posts, so its interval is that of a mean.

    Args:
        values: as `lead`. amounts: policy -> its demonstrations or prompts.

    Returns:
        Over the posts that have all of the policies; None without such a post, or with a single amount.
    """
    logs = np.log2(np.array(list(amounts.values()), dtype=np.float64))
    rows = values.dropna(subset=list(amounts))
    if len(set(amounts.values())) < 2:
        return None
    weights = np.linalg.pinv(np.column_stack([np.ones(len(logs)), logs]))[1]
    return _mean_of(rows, rows[list(amounts)].to_numpy(dtype=np.float64) @ weights, draws)


def _mean_of(
    rows: pd.DataFrame, values: np.ndarray[tuple[int], np.dtype[np.float64]], draws: int
) -> Estimate | None:
    if rows.empty:
        return None

    def mean_of(part: pd.DataFrame, number: int) -> dict[str, Estimate]:
        return {"mean": bootstrap_means(part[["value"]], part["id"], draws=number)[0]}

    return cellwise(rows[["cell", "id"]].assign(value=values), mean_of, draws)["mean"]
