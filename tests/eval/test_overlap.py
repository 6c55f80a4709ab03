from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.texts.overlap import (
    copying,
    distinct_ngrams,
    lcs_length,
    ngrams,
    repeated_ngrams,
    words,
)
from tldr.measures.sentences import lead, sentences


def lcs_table(first: Sequence[int], second: Sequence[int]) -> int:
    """The textbook recurrence."""
    row = [0] * (len(second) + 1)
    for item in first:
        above = row[:]
        for place, other in enumerate(second, start=1):
            row[place] = above[place - 1] + 1 if item == other else max(above[place], row[place - 1])
    return row[-1]


@given(st.lists(st.integers(0, 4), max_size=80), st.lists(st.integers(0, 4), max_size=80))
def test_bit_parallel_lcs_equals_the_table(first: list[int], second: list[int]) -> None:
    assert lcs_length(first, second) == lcs_table(first, second) == lcs_length(second, first)


def test_copying_by_hand() -> None:
    # summary bigrams: (my cat) (cat ate) (ate my) (my shoe); in the post in order: the first two and the last
    assert copying("My cat ate. I lost my shoe", "my cat ate my shoe") == 0.75
    assert copying("a b c d", "a b c d") == 1
    assert copying("a b c d", "c d a b") == pytest.approx(1 / 3)  # order counts
    assert copying("a b", "") == copying("a b", "a") == 0


def test_repetition_by_hand() -> None:
    assert repeated_ngrams("a b c d a b c d") == pytest.approx(1 / 5)
    assert repeated_ngrams("a b c d e") == repeated_ngrams("a b") == repeated_ngrams("") == 0
    assert repeated_ngrams("no no no", 1) == pytest.approx(2 / 3)


def test_distinct_over_the_set() -> None:
    assert distinct_ngrams(["a b", "a c"], 1) == 0.75
    assert distinct_ngrams(["a b", "a b"], 2) == 0.5
    assert distinct_ngrams([""], 1) == 0


def test_words_and_ngrams() -> None:
    assert words("I'm 22, OK?") == ["i", "m", "22", "ok"]
    assert ngrams(["a", "b", "c"], 2) == [("a", "b"), ("b", "c")] and ngrams(["a"], 2) == []


def test_sentences_and_lead() -> None:
    text = "First one. Second (really!) one?\n\nThird... 3.5 is a number"
    assert sentences(text) == ["First one.", "Second (really!) one?", "Third...", "3.5 is a number"]
    assert lead(text) == "First one. Second (really!) one?"
    assert lead("") == "" and lead("only one") == "only one"
