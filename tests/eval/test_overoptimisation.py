from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import curve_fit

from eval.overoptimisation.measure import fit_overoptimisation
from tldr.errors import UsageError

KL = np.array([0.0, 0.5, 1, 2, 4, 8, 16, 32, 64])


def curve(form: str, alpha: float, beta: float, kl: np.ndarray = KL) -> np.ndarray:
    d = np.sqrt(kl)
    return (
        d * (alpha - beta * d) if form == "best_of_n" else d * (alpha - beta * np.log(np.maximum(d, 1e-300)))
    )


@pytest.mark.parametrize(
    ("form", "alpha", "beta", "peak"), [("best_of_n", 1.0, 0.1, 5.0), ("rl", 0.9, 0.45, np.e)]
)
def test_exact_curves_are_found_with_their_peaks(form: str, alpha: float, beta: float, peak: float) -> None:
    fit = fit_overoptimisation(KL, curve(form, alpha, beta), form)  # type: ignore[arg-type]
    assert (fit.alpha.value, fit.beta.value) == pytest.approx((alpha, beta))
    assert fit.peak.value == pytest.approx(peak) and fit.peak_inside
    height = alpha**2 / (4 * beta) if form == "best_of_n" else beta * peak
    assert fit.height == pytest.approx(height) == pytest.approx(fit.predict(peak**2))
    assert fit.residual == pytest.approx(0, abs=1e-9) and fit.predict(0.0) == 0


def test_equals_scipy_and_covers_the_truth() -> None:
    inside = []
    for seed in range(60):
        draw = np.random.default_rng(seed)
        gain = curve("rl", 0.9, 0.45) + draw.normal(scale=0.05, size=len(KL))
        fit = fit_overoptimisation(KL, gain, "rl")
        inside += [fit.alpha.low <= 0.9 <= fit.alpha.high, fit.beta.low <= 0.45 <= fit.beta.high]
        inside.append(fit.peak.low <= np.e <= fit.peak.high)
    assert 0.88 <= np.mean(inside) <= 1.0
    found, covariance = curve_fit(lambda kl, a, b: curve("rl", a, b, kl), KL, gain)
    assert (fit.alpha.value, fit.beta.value) == pytest.approx(tuple(found), rel=1e-5)
    assert (fit.alpha.se, fit.beta.se) == pytest.approx(tuple(np.sqrt(np.diag(covariance))), rel=1e-4)


def test_certain_points_weigh_more() -> None:
    gain = curve("best_of_n", 1.0, 0.1) + np.where(np.arange(len(KL)) == 8, 5.0, 0.0)
    se = np.where(np.arange(len(KL)) == 8, 100.0, 0.01)
    assert fit_overoptimisation(KL, gain, "best_of_n", se=se).alpha.value == pytest.approx(1.0, abs=1e-4)


def test_a_curve_that_never_falls_has_no_peak() -> None:
    fit = fit_overoptimisation(KL, curve("best_of_n", 1.0, -0.05), "best_of_n")
    assert np.isinf(fit.peak.value) and not fit.peak_inside and np.isinf(fit.height)
    late = fit_overoptimisation(KL, curve("best_of_n", 1.0, 0.01), "best_of_n")
    assert late.peak.value == pytest.approx(50) and not late.peak_inside, "beyond the data: an extrapolation"


def test_bad_requests() -> None:
    with pytest.raises(UsageError, match="fewer than three"):
        fit_overoptimisation([0, 1, 2], [0, 1, 1], "rl")
    with pytest.raises(UsageError, match="negative KL"):
        fit_overoptimisation([-1, 1, 2, 3], [0, 1, 1, 1], "rl")
    with pytest.raises(UsageError, match="not finite"):
        fit_overoptimisation([1, 2, 3], [0, np.nan, 1], "rl")
