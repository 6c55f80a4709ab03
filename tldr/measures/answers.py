"""Signs that a labeler does not read: a side, a value or a pattern that comes too often. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import groupby, pairwise

from scipy.stats import binomtest

FEWEST = 12
"""Answers below which nothing is said."""
RARE = 1e-4
"""What is this improbable for an attentive labeler is told: of 100 labelers, 1 in 100 projects."""
MOST_COMMON_SHARE = 0.8
"""Share of one and the same value that is told."""


def one_sided(firsts: int, total: int) -> bool:
    """Whether a labeler prefers one place (first or second) more than the random order explains."""
    return total >= FEWEST and bool(binomtest(firsts, total, 0.5).pvalue < RARE)


def longest_run(values: Sequence[Hashable]) -> int:
    """The most equal values in a row."""
    return max((sum(1 for _ in group) for _, group in groupby(values)), default=0)


def repeated_value(values: Sequence[Hashable]) -> tuple[Hashable, float] | None:
    """The value that makes up most of the answers, and its share; None if no value does."""
    if len(values) < FEWEST:
        return None
    value, count = Counter(values).most_common(1)[0]
    share = count / len(values)
    return (value, share) if share >= MOST_COMMON_SHARE else None


def suspicious_run(values: Sequence[Hashable]) -> int:
    """The longest run if it is too long for independent answers with these frequencies, else 0.

    A run of length r of a value with share p is expected about n p^r times.
    """
    run = longest_run(values)
    if len(values) < FEWEST or run < 2:
        return 0
    shares = [count / len(values) for count in Counter(values).values()]
    expected = len(values) * max(shares) ** run
    # a labeler who gives one value alone is told by `repeated_value`
    return run if len(shares) > 1 and expected < RARE * len(values) else 0


def alternates(values: Sequence[Hashable]) -> bool:
    """Whether the last answers alternate between two values only, as nobody who reads would."""
    last = list(values[-FEWEST:])
    return len(last) == FEWEST and len(set(last)) == 2 and all(a != b for a, b in pairwise(last))
