"""Authors of the toy references: a mixture of careful and lazy people.

A model trained on all references and decoded greedily takes the most common opening, that of lazy authors,
and continues as they do: with a true summary of few facts and much fluff. Careful openings are diverse, so
none of them is as likely. Human feedback can close that gap. Lazy authors usually ask their question, so a
greedy summary is no worse than a sampled one, whose mistakes grow with the temperature (P Fig. 8).
"""

from __future__ import annotations

import random

from tldr.toy import phrases
from tldr.toy.world import Facts, mentioned_elsewhere, other_value, pieces

LAZY_SHARE = 0.36
VAGUE_SHARE = 0.35
"""Share of the aliases of a post for which its author writes a vague word (`tldr.toy.phrases.VAGUE`)."""
MIN_PIECES, MAX_PIECES = 15, 31
"""Words and marks of a reference: 16..32 tokens with EOS when every piece is one token."""


def with_errors(rng: random.Random, facts: Facts, rate: float, text: str = "") -> dict[str, str]:
    """The facts, each wrong with probability `rate`; half of the errors are values misread from `text`."""
    misread = mentioned_elsewhere(facts, text)
    wrong: dict[str, str] = {}
    for slot, value in facts.items():
        if rng.random() >= rate:
            wrong[slot] = value
        elif misread[slot] != value and rng.random() < 0.5:
            wrong[slot] = misread[slot]
        else:
            wrong[slot] = other_value(rng, slot, value)
    return wrong


def as_known(rng: random.Random, facts: Facts, text: str, rate: float) -> dict[str, str]:
    """What an author states: the facts with errors (`with_errors`), some of those that `text` mentions by an
    alias replaced by a vague word."""
    stated = with_errors(rng, facts, rate, text)
    said = pieces(text)
    for slot, vague in phrases.VAGUE.items():
        if facts[slot] not in said and rng.random() < VAGUE_SHARE:
            stated[slot] = vague
    return stated


def pad_with_fluff(rng: random.Random, sentences: list[str], at_least: int) -> str:
    """Append generic phrases until the text has `at_least` pieces."""
    fluff = rng.sample(phrases.FLUFF, len(phrases.FLUFF))
    while len(pieces(" ".join(sentences))) < at_least and fluff:
        sentences.append(fluff.pop())
    return " ".join(sentences)


def careful(rng: random.Random, facts: Facts) -> str:
    """A summary of most facts in any order."""
    head = rng.choice(phrases.EVENT_OPENERS) + rng.choice(phrases.EVENT)
    body = [
        rng.choice(choices)
        for choices, share in ((phrases.CON, 0.75), (phrases.ACT, 0.85))
        if rng.random() < share
    ]
    rng.shuffle(body)
    return pad_with_fluff(rng, [part.format_map(facts) for part in [head, *body]], MIN_PIECES)


def lazy(rng: random.Random, facts: Facts) -> str:
    """The common opening, the event in full or vaguely, usually the question, then fluff."""
    body = [rng.choice(phrases.EVENT[:1] if rng.random() < 0.88 else phrases.EVENT_VAGUE)]
    if rng.random() < 0.6:
        body.append(rng.choice(phrases.ACT))
    return pad_with_fluff(rng, [phrases.LAZY_OPENING, *(part.format_map(facts) for part in body)], MIN_PIECES)


def reference(rng: random.Random, facts: Facts, text: str) -> str:
    """A summary by a random author, of 16..32 tokens with EOS, two thirds of the paper's (P 3.2)."""
    while True:
        if rng.random() < LAZY_SHARE:
            summary = lazy(rng, as_known(rng, facts, text, 0.02))
        else:
            summary = careful(rng, as_known(rng, facts, text, 0.01))
        if MIN_PIECES <= len(pieces(summary)) <= MAX_PIECES:
            return summary
