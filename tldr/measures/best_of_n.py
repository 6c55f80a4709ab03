"""Best of n: its KL from the policy it samples, what it is worth, and which sample it is, from one pool of
samples a post."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from tldr.errors import NonFiniteError, UsageError
from tldr.measures import FloatArray

CHOOSERS = ("rm", "rouge", "length", "gold")
"""Scores of a pool's samples that the best is chosen by; further ones are reward models, ``rm_<name>``."""


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


def pool_choosers(names: Iterable[str]) -> list[str]:
    """The choosers among the names of a pool's scores, those of `CHOOSERS` first."""
    known = list(names)
    models = [name for name in known if name.startswith("rm_") and not name.endswith("_reference")]
    return [name for name in CHOOSERS if name in known] + models


def doublings(total: int) -> list[int]:
    """The n that a pool of `total` samples is read at: powers of two up to it, and it itself."""
    powers = [2**power for power in range(total.bit_length())]
    return powers if powers[-1] == total else [*powers, total]


def first_best(choice: FloatArray, counts: Sequence[int]) -> npt.NDArray[np.intp]:
    """Place of the highest of the first n samples, for each n of `counts`; the first wins a tie.

    It is one draw of the best of n, where `best_of_n_worth` is the mean over all draws: a judge that is paid
    for each text sees a few texts of a pool, as the best of a larger n is often that of a smaller one.

    Args:
        choice: (posts, N) the score that chooses, in the order in which the samples were drawn.

    Returns:
        (posts, len(counts)) places below N.

    Raises:
        UsageError: an n is outside 1..N. NonFiniteError: a NaN or an infinity among the scores.
    """
    if not counts or min(counts) < 1 or max(counts) > choice.shape[1]:
        raise UsageError(f"n must lie between 1 and the pool's {choice.shape[1]}")
    if not np.isfinite(choice).all():
        raise NonFiniteError("a pool's samples lack finite scores to choose by")
    return np.column_stack([choice[:, :n].argmax(axis=1) for n in counts])
