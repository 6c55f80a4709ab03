"""Logistic regression by Newton's method, for choices, ties (halves) and probabilities alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from eval.common.stats import cluster_sums
from tldr.errors import NonFiniteError
from tldr.measures import FloatArray


def fit_logistic(
    design: FloatArray,
    response: FloatArray,
    *,
    weights: FloatArray | None = None,
    start: FloatArray | None = None,
    steps: int = 25,
    tolerance: float | None = None,
) -> FloatArray:
    """Coefficients of largest likelihood, by Newton steps.

    Args:
        design: (n, p). response: (n,) 0..1. weights: (n,) how often each row counts; None: once.
        start: (p,) where to begin; None: at zero.
        steps: taken at most.
        tolerance: a step that moves no coefficient by more is the last; None: all steps are taken.

    Raises:
        NonFiniteError: the columns of `design` depend on one another, the coefficients diverge, or no
            step was within the tolerance.
    """
    at = np.zeros(design.shape[1]) if start is None else start
    weight = np.ones(len(response)) if weights is None else weights
    for _ in range(steps):
        p = expit(design @ at)
        slope = design.T @ (weight * (response - p))
        curvature = (design.T * (weight * p * (1 - p))) @ design
        try:
            moved: FloatArray = at + np.linalg.solve(curvature, slope)
        except np.linalg.LinAlgError:
            moved = np.full_like(at, np.nan)
        if not np.isfinite(moved).all():
            raise NonFiniteError("no finite logistic regression")
        close = tolerance is not None and np.abs(moved - at).max() <= tolerance
        at = moved
        if close:
            return at
    if tolerance is not None:
        raise NonFiniteError(f"no convergence within {steps} Newton steps")
    return at


def clustered_covariance(
    design: FloatArray, response: FloatArray, at: FloatArray, clusters: npt.NDArray[np.intp]
) -> FloatArray:
    """Covariance (p, p) of the fit `at`, robust to dependence within clusters (Liang and Zeger 1986).

    Args:
        clusters: (n,) codes 0..G-1; the small-sample factor is G / (G - 1) (n - 1) / (n - p).
    """
    p = expit(design @ at)
    bread = np.linalg.inv((design.T * (p * (1 - p))) @ design)
    scores = cluster_sums(design * (response - p)[:, None], clusters)
    groups, (n, columns) = len(scores), design.shape
    factor = groups / (groups - 1) * (n - 1) / (n - columns)
    covariance: FloatArray = factor * bread @ (scores.T @ scores) @ bread
    return covariance
