"""Reward-model over-optimisation: gold score against KL, and the forms of Gao et al. (2022).

With d = sqrt(KL(policy || start)) in sqrt(nats) and R measured from the start (R(0) = 0):

* best of N: R = d (alpha - beta d), highest at d = alpha / (2 beta);
* RL:        R = d (alpha - beta ln d), highest at d = exp(alpha / beta - 1).

Both are linear in alpha and beta, so they are fitted by weighted least squares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import statsmodels.api as sm

from eval.common.stats import Estimate, over_cells
from tldr.errors import UsageError
from tldr.measures import FloatArray

Form = Literal["best_of_n", "rl"]

_PEAK_DRAWS = 20_000


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


def mean_fit(fits: Mapping[str, OveroptimisationFit]) -> OveroptimisationFit:
    """The fits of several cells (cell -> fit) as one: the mean curve, as curves are linear in alpha and beta.

    The peak is the mean of the cells' d; infinite, without an interval, where the curve of any cell never
    falls.

    Raises:
        UsageError: no fit.
    """
    if len(fits) == 1:
        return next(iter(fits.values()))
    ones = list(fits.values())
    alpha, beta = (
        over_cells({cell: getattr(fit, name) for cell, fit in fits.items()}) for name in ("alpha", "beta")
    )
    peaks = {cell: fit.peak for cell, fit in fits.items()}
    falls = all(np.isfinite(peak.value) for peak in peaks.values())
    never = replace(alpha, value=np.inf, low=np.nan, high=np.nan, se=np.nan, cell_sd=None, cell_values=())
    return OveroptimisationFit(
        form=ones[0].form,
        alpha=alpha,
        beta=beta,
        peak=over_cells(peaks) if falls else never,
        height=float(np.mean([fit.height for fit in ones])),
        peak_inside=all(fit.peak_inside for fit in ones),
        residual=float(np.mean([fit.residual for fit in ones])),
    )
