"""Answers in the order shown and in the item's, and how far two of them agree."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tldr.label.answers import (
    ComparisonAnswer,
    DemonstrationAnswer,
    RankingAnswer,
    RatingAnswer,
    agreement,
)
from tldr.measures.answers import alternates, longest_run, one_sided, repeated_value, suspicious_run


def test_a_swapped_comparison_is_mirrored() -> None:
    shown = ComparisonAnswer(confidence=2, notes=["left", "right"], interpretations=["l", "r"])
    same, swapped = shown.unshuffled([0, 1]), shown.unshuffled([1, 0])
    assert same == shown and same.choice == 0
    assert swapped == ComparisonAnswer(confidence=8, notes=["right", "left"], interpretations=["r", "l"])
    assert swapped.choice == 1


def test_a_ranking_by_hand() -> None:
    # shown: item's 2, 0, 1; ranked best, last, middle
    shown = RankingAnswer(rank=[1, 3, 2], notes=["c", "a", "b"])
    assert shown.unshuffled([2, 0, 1]) == RankingAnswer(rank=[3, 2, 1], notes=["a", "b", "c"])


@given(st.permutations(range(5)), st.lists(st.integers(0, 4), min_size=5, max_size=5))
def test_shuffling_and_unshuffling_are_inverse(order: list[int], values: list[int]) -> None:
    rank = [1 + sum(other < value for other in values) for value in values]
    answer = RankingAnswer(rank=rank, notes=[str(n) for n in range(5)])
    assert answer.shuffled(order).unshuffled(order) == answer == answer.unshuffled(order).shuffled(order)


@pytest.mark.parametrize("rank", [[1, 2, 2], [1, 1, 3], [1, 1, 1], [2, 1, 2]])
def test_tied_ranks(rank: list[int]) -> None:
    assert RankingAnswer(rank=rank).rank == rank


def test_agreement() -> None:
    yes, clearly, no = (ComparisonAnswer(confidence=value) for value in (6, 9, 4))
    assert (agreement(yes, clearly), agreement(yes, no)) == ((1, 1), (0, 1))
    one, two, tied = (RankingAnswer(rank=rank) for rank in ([1, 2, 3], [2, 1, 3], [1, 1, 3]))
    assert agreement(one, one) == (3, 3)
    assert agreement(one, two) == (2, 3)
    assert agreement(one, tied) == (2, 2), "a pair that one of them ties is left out"
    low = RatingAnswer(coverage=1, accuracy=1, coherence=1, overall=1)
    near = RatingAnswer(coverage=2, accuracy=1, coherence=3, overall=7)
    assert agreement(low, near) == (2, 4)
    assert agreement(DemonstrationAnswer(summary="a"), DemonstrationAnswer(summary="a")) == (0, 0)
    for order in permutations(range(3)):
        assert agreement(one.shuffled(order), two.shuffled(order)) == (2, 3)


def test_signs_of_not_reading() -> None:
    assert one_sided(40, 40) and one_sided(0, 40) and one_sided(90, 100)
    assert not one_sided(20, 40) and not one_sided(26, 40) and not one_sided(8, 8)
    assert longest_run([1, 2, 2, 2, 1]) == 3 and longest_run([]) == 0
    assert repeated_value([6] * 20) == (6, 1.0)
    assert repeated_value([6, 4] * 10) is None and repeated_value([6] * 5) is None
    assert suspicious_run([6] * 15 + [1, 2, 3, 4] * 10) == 15
    assert suspicious_run([6, 4, 3, 6, 6, 2, 8, 7, 1, 9, 4, 4, 3]) == 0
    assert alternates([1, 9] * 8) and not alternates([1, 9, 9] * 8) and not alternates([1, 1] * 8)
