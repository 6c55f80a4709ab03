"""Authors of the toy references: they know their posts, say little, and hardly ever the obstacle.

A reader would like to know it, so a policy that learns from readers has something to gain. One that imitates
authors leaves it out when it is decoded greedily, and guesses what the words of the post mean as well as it
can.
"""

from __future__ import annotations

import random

from tldr.toy import phrases
from tldr.toy.world import Facts, mentioned_elsewhere, other_value, pieces

EVENT_SHARE, CON_SHARE, ACT_SHARE = 0.97, 0.15, 0.9
"""Shares of authors who state the event in full (others vaguely), the obstacle, and the question."""
PLAIN_OPENINGS = 5
"""Authors who open with the event itself, for each who says one of the other openers before it."""
ERRORS = 0.01
"""Share of an author's facts that are wrong."""
DISORDERED_SHARE = 0.1
"""Share of authors who write their sentences in any order."""
PADDED_SHARE = 0.3
"""Share of authors who close with a generic phrase, so that a long summary need not say much."""
VAGUE_SHARE = 0.2
"""Share of the aliases of a post for which its author writes a vague word (`tldr.toy.phrases.VAGUE`)."""
MIN_PIECES, MAX_PIECES = 9, 31
"""Words and marks of a reference."""


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


def event(rng: random.Random, facts: Facts) -> str:
    """The event in full, often with an opener."""
    shares = [PLAIN_OPENINGS, *(1 for _ in phrases.EVENT_OPENERS[1:])]
    (opener,) = rng.choices(phrases.EVENT_OPENERS, shares)
    return opener + rng.choice(phrases.EVENT).format_map(facts)


def everything(rng: random.Random, facts: Facts) -> list[str]:
    """The sentences of a summary of all facts: event, obstacle, question."""
    return [event(rng, facts), *(rng.choice(c).format_map(facts) for c in (phrases.CON, phrases.ACT))]


def written(rng: random.Random, facts: Facts, con: float = CON_SHARE, act: float = ACT_SHARE) -> str:
    """A summary that states the obstacle and the question with these probabilities."""
    parts = [event(rng, facts) if rng.random() < EVENT_SHARE else rng.choice(phrases.EVENT_VAGUE)]
    parts += [
        rng.choice(choices)
        for choices, share in ((phrases.CON, con), (phrases.ACT, act))
        if rng.random() < share
    ]
    if rng.random() < DISORDERED_SHARE:
        rng.shuffle(parts)
    said = [part.format_map(facts) for part in parts]
    if rng.random() < PADDED_SHARE:
        return " ".join([*said, rng.choice(phrases.FLUFF)])
    return pad_with_fluff(rng, said, MIN_PIECES)


def reference(rng: random.Random, facts: Facts, text: str) -> str:
    """A summary by a random author of the post `text`."""
    while True:
        summary = written(rng, as_known(rng, facts, text, ERRORS))
        if MIN_PIECES <= len(pieces(summary)) <= MAX_PIECES:
            return summary
