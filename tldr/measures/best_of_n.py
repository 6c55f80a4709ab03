"""Best of n: its KL from the policy it samples, and what it is worth, from one pool of samples a post."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from tldr.errors import NonFiniteError, UsageError
from tldr.measures import FloatArray


def best_of_n_kl(n: npt.ArrayLike) -> FloatArray:
    """KL(best-of-n || base) = ln n - (n - 1) / n, nats a response (P Table 10, natural log).

    Exact when no two samples tie, else an upper bound.

    Raises:
        UsageError: n < 1.
    """
    count = np.asarray(n, dtype=np.float64)
    if (count < 1).any():
        raise UsageError(f"best of {count.min():g}", where="n", remedy="use n >= 1")
    return np.log(count) - (count - 1) / count


def best_of_n_weights(n: int, total: int) -> FloatArray:
    """Chance that the sample of rank i (from the bottom) is the best of `n` drawn from `total`.

    C(i - 1, n - 1) / C(total, n): the other n - 1 must come from the i - 1 below it (Nakano et al.
    2021, App. I).

    Returns:
        (total,) at i - 1; they sum to 1.
    """
    rank = np.arange(1, total + 1)
    logs = gammaln(rank) - gammaln(np.maximum(rank - n + 1, 1)) - gammaln(n)
    whole = gammaln(total + 1) - gammaln(n + 1) - gammaln(total - n + 1)
    return np.where(rank >= n, np.exp(logs - whole), 0.0)


def best_of_n_worth(choice: FloatArray, worth: FloatArray, counts: Sequence[int]) -> FloatArray:
    """Expected `worth` of the sample with the highest `choice` among n, for each n of `counts`.

    The unbiased estimate from a pool of N samples a post: the average over all ways to draw n of the
    N. Samples of equal choice are equally likely to be taken.

    Args:
        choice, worth: (posts, N) the score that chooses and the score that counts.

    Returns:
        (posts, len(counts)).

    Raises:
        UsageError: the shapes differ, the pool is empty, or an n is outside 1..N.
        NonFiniteError: a NaN or an infinity among the scores that choose.
    """
    if choice.ndim != 2 or choice.shape != worth.shape or not choice.shape[1]:
        raise UsageError(
            f"scores to choose by {choice.shape}, scores that count {worth.shape}",
            remedy="pass both scores of every sample, (posts, N) with N >= 1",
        )
    total = choice.shape[1]
    if not counts or min(counts) < 1 or max(counts) > total:
        raise UsageError(f"n must lie between 1 and the pool's {total}")
    weights = np.column_stack([best_of_n_weights(n, total) for n in counts])
    return _ranked(choice, worth) @ weights


def _ranked(choice: FloatArray, worth: FloatArray) -> FloatArray:
    """(posts, N) `worth` from the lowest `choice` to the highest; equal choices share their mean worth."""
    if not np.isfinite(choice).all():
        raise NonFiniteError("a pool's samples lack finite scores to choose by")
    rows = np.argsort(choice, axis=1, kind="stable")
    choice, worth = np.take_along_axis(choice, rows, axis=1), np.take_along_axis(worth, rows, axis=1)
    fresh = np.ones(choice.shape, dtype=bool)
    fresh[:, 1:] = choice[:, 1:] != choice[:, :-1]
    tied = np.cumsum(fresh) - 1
    shared: FloatArray = (np.bincount(tied, worth.ravel()) / np.bincount(tied))[tied]
    return shared.reshape(worth.shape)
