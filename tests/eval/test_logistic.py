"""Logistic regression beside statsmodels'."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit

from eval.common.logistic import clustered_covariance, fit_logistic
from tldr.errors import NonFiniteError

DRAW = np.random.default_rng(0)
DESIGN = DRAW.normal(size=(300, 3))
RESPONSE = DRAW.binomial(2, expit(DESIGN @ np.array([1.0, -0.5, 0.2]))) / 2
POSTS = np.arange(300) % 60


def test_is_the_glm_of_statsmodels_with_its_clustered_covariance() -> None:
    model = sm.GLM(RESPONSE, DESIGN, family=sm.families.Binomial())
    theirs = model.fit(tol=1e-12, cov_type="cluster", cov_kwds={"groups": POSTS})
    ours = fit_logistic(DESIGN, RESPONSE, tolerance=1e-10)
    assert ours == pytest.approx(theirs.params, abs=1e-9)
    assert clustered_covariance(DESIGN, RESPONSE, ours, POSTS) == pytest.approx(theirs.cov_params(), rel=1e-8)


def test_a_weight_is_that_many_rows() -> None:
    times = DRAW.integers(0, 3, len(RESPONSE))
    repeated = np.repeat(np.arange(len(RESPONSE)), times)
    weighted = fit_logistic(DESIGN, RESPONSE, weights=times.astype(float))
    assert weighted == pytest.approx(fit_logistic(DESIGN[repeated], RESPONSE[repeated]), abs=1e-9)


def test_no_finite_coefficients_are_an_error() -> None:
    column = np.array([[1.0], [2.0], [-1.0], [-2.0]])
    with pytest.raises(NonFiniteError, match="no "):
        fit_logistic(column, np.array([1.0, 1.0, 0.0, 0.0]), steps=100, tolerance=1e-10)
    with pytest.raises(NonFiniteError, match="no finite logistic regression"):
        fit_logistic(np.zeros((4, 1)), np.array([1.0, 1.0, 0.0, 0.0]))
    with pytest.raises(NonFiniteError, match="within 1 Newton steps"):
        fit_logistic(DESIGN, RESPONSE, steps=1, tolerance=1e-10)
