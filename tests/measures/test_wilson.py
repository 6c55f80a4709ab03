"""Wilson's interval."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest
from statsmodels.stats.proportion import proportion_confint

from tldr.measures.wilson import wilson_interval


def test_by_hand() -> None:
    # 8 of 10 at z = 1.96: center (0.8 + 0.19208) / 1.38416 = 0.71674,
    # half width 1.96 sqrt(0.016 + 0.009604) / 1.38416 = 0.22658
    assert wilson_interval(8, 10) == pytest.approx((0.49016, 0.94332), abs=2e-5)


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (7, 7), (3.5, 12), (1, 1), (2.25, 10.5), (470, 1000)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_is_statsmodels_to_the_bit(successes: float, n: float, level: float) -> None:
    expected = proportion_confint(successes, n, alpha=1 - level, method="wilson")
    assert wilson_interval(successes, n, level) == expected


def test_is_scipys() -> None:
    found = binomtest(13, 40).proportion_ci(0.95, method="wilson")
    assert wilson_interval(13, 40) == pytest.approx((found.low, found.high))
