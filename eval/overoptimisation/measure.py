"""Reward-model over-optimisation: gold score against KL, and the forms of Gao et al. (2022).

With d = sqrt(KL(policy || start)) in sqrt(nats) and R measured from the start (R(0) = 0):

* best of N: R = d (alpha - beta d), highest at d = alpha / (2 beta);
* RL:        R = d (alpha - beta ln d), highest at d = exp(alpha / beta - 1).

Both are linear in alpha and beta, so they are fitted by weighted least squares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import statsmodels.api as sm
from scipy.special import gammaln

from eval.common.stats import Estimate, bootstrap_means
from tldr.errors import NonFiniteError, UsageError

FloatArray = npt.NDArray[np.float64]
Form = Literal["best_of_n", "rl"]

_PEAK_DRAWS = 20_000


def best_of_n_kl(n: npt.ArrayLike) -> FloatArray:
    """KL of best-of-n from the policy it samples, in nats: ln n - (n - 1) / n (an upper bound)."""
    count = np.asarray(n, dtype=np.float64)
    if (count < 1).any():
        raise UsageError("best of n needs n >= 1")
    return np.log(count) - (count - 1) / count


def _terms(d: FloatArray, form: Form) -> FloatArray:
    """(k,) -> (k, 2): what alpha and beta are multiplied with."""
    if form == "best_of_n":
        return np.column_stack([d, -np.square(d)])
    safe = np.where(d > 0, d, 1.0)  # d ln d -> 0 at 0
    return np.column_stack([d, -d * np.log(safe)])


def _peak(alpha: FloatArray, beta: FloatArray, form: Form) -> FloatArray:
    """d of the highest R; infinite where beta is not positive, 0 where R falls from the start."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        d = alpha / (2 * beta) if form == "best_of_n" else np.exp(alpha / beta - 1)
    return np.where(beta > 0, np.maximum(d, 0), np.inf)


@dataclass(frozen=True)
class OveroptimisationFit:
    """A fitted curve.

    Attributes:
        form: which of the two. alpha, beta: with 95 % t intervals.
        peak: d = sqrt(KL) of the highest R, with a simulated 95 % interval; infinite if R never falls.
        height: R there.
        peak_inside: whether the peak lies within the d that were measured.
        residual: root mean square of what the curve misses.
    """

    form: Form
    alpha: Estimate
    beta: Estimate
    peak: Estimate
    height: float
    peak_inside: bool
    residual: float

    def predict(self, kl: npt.ArrayLike) -> FloatArray:
        """R at each KL (nats)."""
        d = np.sqrt(np.asarray(kl, dtype=np.float64))
        curve: FloatArray = _terms(d, self.form) @ np.array([self.alpha.value, self.beta.value])
        return curve


def fit_overoptimisation(
    kl: npt.ArrayLike, gain: npt.ArrayLike, form: Form, *, se: npt.ArrayLike | None = None, seed: int = 0
) -> OveroptimisationFit:
    """Fit one curve.

    Args:
        kl: (k,) nats a sequence, not negative. gain: (k,) R, the gold score minus the start's.
        se: (k,) standard errors of `gain`, used as weights.

    Raises:
        UsageError: fewer than three points off the start, a negative KL, or shapes that differ.
    """
    distance, reward = np.asarray(kl, dtype=np.float64), np.asarray(gain, dtype=np.float64)
    if distance.shape != reward.shape or not np.isfinite(distance).all() or not np.isfinite(reward).all():
        raise UsageError("KL and gain are not finite numbers of the same count")
    if (distance < 0).any():
        raise UsageError("a negative KL: use the mean over enough samples, or the k3 estimator")
    if len(np.unique(distance[distance > 0])) < 3:
        raise UsageError("fewer than three points with KL > 0: the curve has two parameters")
    d = np.sqrt(distance)
    weights = 1.0 if se is None else 1 / np.square(np.asarray(se, dtype=np.float64))
    fit = sm.WLS(reward, _terms(d, form), weights=weights).fit()
    bounds, points = np.asarray(fit.conf_int()), len(reward)
    alpha, beta = (
        Estimate(float(fit.params[i]), bounds[i, 0], bounds[i, 1], float(fit.bse[i]), points, points)
        for i in (0, 1)
    )
    generator = np.random.default_rng(seed)
    drawn = generator.multivariate_normal(fit.params, fit.cov_params(), size=_PEAK_DRAWS)
    low, high = np.quantile(_peak(drawn[:, 0], drawn[:, 1], form), [0.025, 0.975], method="nearest")
    at = float(_peak(fit.params[:1], fit.params[1:], form)[0])
    top = float(_terms(np.array([at]), form)[0] @ fit.params) if np.isfinite(at) else np.inf
    return OveroptimisationFit(
        form=form,
        alpha=alpha,
        beta=beta,
        peak=Estimate(at, min(float(low), at), max(float(high), at), float("nan"), points, points),
        height=top,
        peak_inside=bool(0 < at <= d.max()),
        residual=float(np.sqrt(np.mean(np.square(fit.resid)))),
    )


def best_of_n_curve(
    pool: pd.DataFrame,
    chooser: str,
    value: str,
    counts: Sequence[int],
    *,
    gain: bool = False,
    draws: int = 2000,
) -> pd.DataFrame:
    """Mean of `value` of the best of n by `chooser`, for each n, from one pool of N samples a post.

    The unbiased estimator (Nakano et al. 2021, App. I): averaged over all ways to draw n of the N,
    so every sample of the pool counts at every n. Samples of equal choice share their mean value.

    Args:
        pool: columns ``id``, `chooser`, `value`; with several seeds also ``seed``, each with a pool of
            its own. The same N for every post (and seed).
        counts: the n, 1 <= n <= N.
        gain: what is gained over n = 1, post by post, instead of the mean itself.

    Returns:
        Columns ``n``, ``kl`` (nats), ``value``, ``low``, ``high``, ``se``, ``posts``; intervals by the
        bootstrap over posts.

    Raises:
        UsageError: posts with different N, or an n outside 1..N. NonFiniteError: a NaN.
    """
    per_post, post = best_of_n_values(pool, chooser, value, [1, *counts] if gain else counts)
    if gain:
        per_post = per_post[:, 1:] - per_post[:, :1]
    rows = [
        {
            "n": n,
            "kl": float(best_of_n_kl(n)),
            "value": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "se": estimate.se,
            "posts": estimate.clusters,
        }
        for n, estimate in zip(counts, bootstrap_means(per_post, post, draws=draws), strict=True)
    ]
    return pd.DataFrame(rows)


def best_of_n_values(
    pool: pd.DataFrame, chooser: str, value: str, counts: Sequence[int]
) -> tuple[FloatArray, npt.NDArray[np.object_]]:
    """What each post can expect of `value` from the best of n: `best_of_n_curve` before averaging.

    Returns:
        (posts, len(counts)) values, and the (posts,) ids, one row a post and seed.
    """
    order, total = _by_post(pool)
    if not counts or min(counts) < 1 or max(counts) > total:
        raise UsageError(f"n must lie between 1 and the pool's {total}")
    choice, worth = (
        pool[name].to_numpy(dtype=np.float64)[order].reshape(-1, total) for name in (chooser, value)
    )
    rank = np.arange(1, total + 1)
    weights = np.column_stack([_weights(rank, n, total) for n in counts])
    posts = pool["id"].to_numpy(dtype=object)[order[::total]]
    return _ranked(choice, worth) @ weights, posts


def _by_post(pool: pd.DataFrame) -> tuple[npt.NDArray[np.intp], int]:
    """An order that brings each post's (and seed's) samples together, and their number N."""
    posts, _ = pd.factorize(pool["id"])
    seeds = pd.factorize(pool["seed"])[0] if "seed" in pool else np.zeros(len(pool), dtype=np.intp)
    group = posts * (int(seeds.max()) + 1) + seeds
    _, sizes = np.unique(group, return_counts=True)
    if sizes.min() != sizes.max():
        raise UsageError(f"pools of {sizes.min()} to {sizes.max()} samples a post: they must be equal")
    order = np.argsort(group, kind="stable")
    return order, int(sizes[0])


def _ranked(choice: FloatArray, worth: FloatArray) -> FloatArray:
    """(posts, N) `worth` from the worst by `choice` to the best; equal choices share their mean."""
    if not np.isfinite(choice).all():
        raise NonFiniteError("a pool's samples lack finite scores to choose by")
    rows = np.argsort(choice, axis=1, kind="stable")
    choice, worth = np.take_along_axis(choice, rows, axis=1), np.take_along_axis(worth, rows, axis=1)
    fresh = np.ones(choice.shape, dtype=bool)
    fresh[:, 1:] = choice[:, 1:] != choice[:, :-1]
    tied = np.cumsum(fresh) - 1
    shared: FloatArray = (np.bincount(tied, worth.ravel()) / np.bincount(tied))[tied]
    return shared.reshape(worth.shape)


def _weights(rank: npt.NDArray[np.int_], n: int, total: int) -> FloatArray:
    """P(the sample of this rank from the bottom is the best of n drawn): C(rank-1, n-1) / C(total, n)."""
    logs = gammaln(rank) - gammaln(np.maximum(rank - n + 1, 1)) - gammaln(n)
    whole = gammaln(total + 1) - gammaln(n + 1) - gammaln(total - n + 1)
    return np.where(rank >= n, np.exp(logs - whole), 0.0)
