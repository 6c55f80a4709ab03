"""Overlap of a summary with its post and with itself: copying, repetition, extractive baselines.

Words are ROUGE's: lower-cased runs of ASCII letters and digits.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from functools import lru_cache

WORD = re.compile(r"[a-z0-9]+")


def words(text: str) -> list[str]:
    """Lower-cased words as ROUGE counts them."""
    return WORD.findall(text.lower())


def ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All n-grams in order; none if the text is shorter than n."""
    return list(zip(*(tokens[start:] for start in range(n)), strict=False))


def lcs_length(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence.

    Bit-parallel (Hyyro 2004, "Bit-parallel LCS-length computation revisited"): one big-integer
    step an item of `second` instead of a table row; zeros of the final vector are the matches.
    """
    where: dict[Hashable, int] = {}
    for position, item in enumerate(first):
        where[item] = where.get(item, 0) | 1 << position
    full = (1 << len(first)) - 1
    row = full
    for item in second:
        match = row & where.get(item, 0)
        row = (row + match | row - match) & full
    return len(first) - row.bit_count()


def copying(post: str, summary: str) -> float:
    """Copying as the paper measures it (footnote 9), 0..1.

    Longest common subsequence of the bigrams of post and summary, divided by the number of bigrams
    in the summary. A summary of fewer than two words copies 0.
    """
    of_summary = ngrams(words(summary), 2)
    return lcs_length(_bigrams(post), of_summary) / len(of_summary) if of_summary else 0.0


@lru_cache(maxsize=4096)
def _bigrams(post: str) -> list[tuple[str, ...]]:
    """Kept, for a post is compared with dozens of summaries."""
    return ngrams(words(post), 2)


def repeated_ngrams(text: str, n: int = 4) -> float:
    """Share of the text's n-grams that occurred before in it, 0..1 (0 if it has none)."""
    grams = ngrams(words(text), n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def distinct_ngrams(texts: Sequence[str], n: int) -> float:
    """distinct-n of a set of texts (Li et al. 2016): different n-grams / all n-grams, 0..1.

    Falls with the size of the set: compare sets of equal size only.
    """
    grams = [gram for text in texts for gram in ngrams(words(text), n)]
    return len(set(grams)) / len(grams) if grams else 0.0
