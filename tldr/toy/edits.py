"""Edits that improve a summary of a toy post, as the paper's labelers made them (P 4.3, Table 17)."""

from __future__ import annotations

import random
import re

from tldr.records import Post
from tldr.toy import authors, phrases
from tldr.toy.world import Facts, facts_of, other_value


def _without_one(rng: random.Random, parts: list[str], facts: Facts) -> list[str]:
    """The obstacle or the question is missing."""
    return [parts[0], rng.choice(parts[1:])]


def _out_of_order(rng: random.Random, parts: list[str], facts: Facts) -> list[str]:
    """The question comes first."""
    return [parts[2], *parts[:2]]


def _with_a_wrong_fact(rng: random.Random, parts: list[str], facts: Facts) -> list[str]:
    """One stated value is another one of its slot."""
    slot = rng.choice(list(facts))
    wrong = other_value(rng, slot, facts[slot])
    return [re.sub(rf"\b{facts[slot]}\b", wrong, part) for part in parts]


def _said_again(rng: random.Random, parts: list[str], facts: Facts) -> list[str]:
    """The obstacle or the question is said a second time."""
    place = rng.choice((1, 2))
    choices = (phrases.CON, phrases.ACT)[place - 1]
    return [*parts[: place + 1], rng.choice(choices).format_map(facts), *parts[place + 1 :]]


def _with_a_false_sentence(rng: random.Random, parts: list[str], facts: Facts) -> list[str]:
    """A second obstacle or question that the post does not have."""
    slot, choices = rng.choice((("con", phrases.CON), ("act", phrases.ACT)))
    false = {**facts, slot: other_value(rng, slot, facts[slot])}
    return [*parts, rng.choice(choices).format_map(false)]


def improved(rng: random.Random, post: Post) -> tuple[str, str]:
    """A good summary, and the same with one fault that a labeler would edit away."""
    facts = facts_of(post)
    parts = authors.everything(rng, facts)
    fault = rng.choice((_without_one, _out_of_order, _with_a_wrong_fact, _said_again))
    return " ".join(parts), " ".join(fault(rng, parts, facts))


def shortened(rng: random.Random, post: Post) -> tuple[str, str]:
    """A good summary, and the same with one more sentence, which is false or was said before."""
    facts = facts_of(post)
    parts = authors.everything(rng, facts)
    fault = rng.choice((_said_again, _with_a_false_sentence))
    return " ".join(parts), " ".join(fault(rng, parts, facts))


EDITS = {"human-improved edit": improved, "improving edits that shorten": shortened}
"""Probe -> the function that makes its pair (better, worse); the names are those of the published probes."""
