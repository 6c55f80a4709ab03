"""The figures that checks compare with their limits, worked out by hand."""

from __future__ import annotations

import math

import pytest

from tldr.doctor.data import ngram_losses
from tldr.doctor.limits import Limit
from tldr.doctor.reward import interval
from tldr.doctor.samples import repeated


def test_ngram_losses_by_hand() -> None:
    """Tokens a, b, 0: train is "a b 0" and "a 0"; held out is "a 0"."""
    unigram, bigram = ngram_losses([[1, 2, 0], [1, 0]], [[1, 0]])
    alone = 3 / 9  # of a and of 0 alike: two of five, one added to each of three types and to one unseen
    assert unigram == pytest.approx(-math.log(alone))
    after_start, after_a = (2 + alone) / 3, (1 + alone) / 3
    assert bigram == pytest.approx(-(math.log(after_start) + math.log(after_a)) / 2)


def test_wilson_interval_is_the_textbook_one() -> None:
    low, high = interval(0.5, 100)
    assert (low, high) == pytest.approx((0.4038, 0.5962), abs=1e-4)


def test_repeated_trigrams_by_hand() -> None:
    assert repeated([1, 2, 3, 1, 2, 3]) == pytest.approx(1 / 4)  # 123 231 312 123
    assert repeated([1, 2]) == 0


def test_a_limit_has_two_sides_and_takes_nan_for_a_fault() -> None:
    limit = Limit(0.9, 0.5)
    told = [limit.below(value) for value in (0.95, 0.9, 0.7, 0.4, math.nan)]
    assert told == [None, None, "warning", "fault", "fault"]
    assert [Limit(1, 2).above(value) for value in (1.0, 1.5, 3.0)] == [None, "warning", "fault"]
