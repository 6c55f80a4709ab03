"""The planted utility: what the simulated labelers value in any text about a toy post."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import pairwise, product
from types import MappingProxyType
from typing import NamedTuple

from tldr.records import Info, Post
from tldr.toy import phrases
from tldr.toy.world import MEANING, SLOT_OF, Facts, facts_of, pieces

WEIGHTS: dict[str, float] = {
    "rel": 0.8, "verb": 0.8, "obj": 0.8, "con": 1.1, "act": 1.2,
}  # fmt: skip
"""Mean utility of stating a slot's fact."""
FACTORS = (0.3, 1.0, 1.7)
"""How much the values of a slot matter: the weight times one of these, a third of the values each."""
WRONG = 0.25
"""Cost of a wrong value, as a share of the slot's weight; the fact that it hides is lost besides."""
MAX_WRONG = 2
"""Most wrong values that count in a slot."""
ILLEGAL, RESTATED, REPEATED, NO_EOS = 0.4, 0.4, 0.3, 1.0
"""Cost of a trigram outside the language, a repeated value, a repeated 4-gram, a missing EOS."""
PADDING = 0.4
"""Cost of a phrase that says nothing (`tldr.toy.phrases.FLUFF`)."""
DISORDER = 0.7
"""Cost of a fact that comes after one of a later sentence; the order is event, obstacle, question."""
PLACE: dict[str, int] = {"rel": 0, "verb": 0, "obj": 0, "con": 1, "act": 2}
"""Slot -> the place of its sentence in a summary."""
TAU = 0.65
"""Scale of the labelers' noise: P(prefers a) = sigmoid((u_a - u_b) / TAU)."""

_VAGUE_SLOT = {word: f"{{{slot}}}" for slot, word in phrases.VAGUE.items()}


def _worth() -> dict[str, float]:
    worth: dict[str, float] = {}
    for slot, values in phrases.SLOTS.items():
        order = random.Random(f"worth of {slot}").sample(values, len(values))
        factors = [FACTORS[place % len(FACTORS)] for place in range(len(order))]
        mean = sum(factors) / len(factors)
        worth |= {value: WEIGHTS[slot] * factor / mean for value, factor in zip(order, factors, strict=True)}
    return worth


WORTH: MappingProxyType[str, float] = MappingProxyType(_worth())
"""Value -> utility of stating it where it is true. Only the labels tell it."""

Trigram = tuple[str, str, str]


class Utility(NamedTuple):
    """Utility by axis; `overall` is their sum, in units of one fact of weight 1."""

    coverage: float
    accuracy: float
    coherence: float
    overall: float


class SummaryContent(NamedTuple):
    """The content of a summary: stated slots, wrong values, faults of order and language, padding, length."""

    covered: tuple[str, ...]
    wrong: dict[str, int]
    disorder: int
    illegal: int
    restated: int
    repeated: int
    padding: int
    words: int


def _collapse(piece: str) -> str:
    meaning = MEANING.get(piece)
    if meaning is not None:
        return f"{{{meaning.slot}}}"
    return _VAGUE_SLOT.get(piece, piece)


def _sentences() -> Iterable[str]:
    for opener, event in product(phrases.EVENT_OPENERS, phrases.EVENT):
        yield opener + event
    for group in (
        phrases.POST_EVENT, phrases.POST_CON,
        phrases.POST_ACT, phrases.POST_DISTRACTOR, phrases.POST_FILLER,
        phrases.EVENT_VAGUE, phrases.CON, phrases.ACT, phrases.FLUFF, phrases.RAW_TLDR,
    ):  # fmt: skip
        yield from group


@cache
def legal_trigrams() -> frozenset[Trigram]:
    """Every trigram of the language of posts and summaries, values collapsed to their slot.

    Within a sentence they come from its template. Any sentence may follow any other. "^" starts a text.
    """
    example = {slot: values[0] for slot, values in phrases.SLOTS.items()}

    def read(templates: Iterable[str]) -> list[list[str]]:
        return [[_collapse(piece) for piece in pieces(t.format_map(example))] for t in templates]

    lines, titles = read(_sentences()), read(phrases.TITLES)
    starts = {(line[0], line[1]) for line in lines + titles}
    ends = {(line[-2], line[-1]) for line in lines}
    legal = {t for line in lines + titles for t in zip(line, line[1:], line[2:], strict=False)}
    legal |= {(*end, first) for end in ends for first, _ in starts}
    legal |= {(mark, *start) for _, mark in ends for start in starts}
    legal |= {("^", *start) for start in starts}
    return frozenset(legal)


@cache
def padding_openings() -> frozenset[tuple[str, ...]]:
    """The first four pieces of every phrase that says nothing."""
    return frozenset(tuple(pieces(phrase)[:4]) for phrase in phrases.FLUFF)


def count(facts: Facts, text: str) -> SummaryContent:
    """The content of a summary: facts by word look-up, language by the trigram table."""
    said = pieces(text)
    mentions = Counter(piece for piece in said if piece in SLOT_OF)
    wrong = Counter(SLOT_OF[value] for value in mentions if facts[SLOT_OF[value]] != value)
    places = [PLACE[SLOT_OF[piece]] for piece in said if piece in SLOT_OF]
    collapsed = ["^", *map(_collapse, said)]
    legal = legal_trigrams()
    illegal = sum(t not in legal for t in zip(collapsed, collapsed[1:], collapsed[2:], strict=False))
    fourgrams = list(zip(said, said[1:], said[2:], said[3:], strict=False))
    openings = padding_openings()
    return SummaryContent(
        covered=tuple(slot for slot, value in facts.items() if value in mentions),
        wrong={slot: min(n, MAX_WRONG) for slot, n in wrong.items()},
        disorder=sum(later < place for place, later in pairwise(places)),
        illegal=illegal,
        restated=sum(mentions.values()) - len(mentions),
        repeated=len(fourgrams) - len(set(fourgrams)),
        padding=sum(fourgram in openings for fourgram in fourgrams),
        words=sum(piece[0].isalnum() for piece in said),
    )


def utility_of(facts: Facts, text: str, stopped: bool = True) -> Utility:
    """`utility`, given the facts."""
    seen = count(facts, text)
    coverage = sum(WORTH[facts[slot]] for slot in seen.covered)
    accuracy = -WRONG * sum(WEIGHTS[slot] * n for slot, n in seen.wrong.items())
    faults = ILLEGAL * seen.illegal + RESTATED * seen.restated + REPEATED * seen.repeated
    faults += PADDING * seen.padding + DISORDER * seen.disorder + NO_EOS * (not stopped)
    coherence = -faults
    return Utility(coverage, accuracy, coherence, coverage + accuracy + coherence)


def utility(post: Post | Info, text: str, stopped: bool = True) -> Utility:
    """The true utility of `text` as a summary of a toy post.

    Args:
        stopped: whether the policy ended it with EOS.

    Raises:
        RecordError: the post carries no toy facts.
    """
    return utility_of(facts_of(post), text, stopped)


def preference_probability(u_a: float, u_b: float) -> float:
    """P(a labeler prefers a to b) = sigmoid((u_a - u_b) / TAU); overall utilities."""
    return 0.5 * (1.0 + math.tanh((u_a - u_b) / (2.0 * TAU)))
