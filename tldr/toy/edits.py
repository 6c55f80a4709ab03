"""Edits that improve a summary of a toy post, as the paper's labelers made them (P 4.3, Table 17)."""

from __future__ import annotations

import random

from tldr.records import Post
from tldr.toy import authors, phrases
from tldr.toy.world import facts_of, other_value, pieces


def corrected(rng: random.Random, post: Post) -> tuple[str, str]:
    """A careful summary, and the same with one stated fact wrong."""
    facts = facts_of(post)
    state = rng.getstate()
    better = authors.careful(rng, facts)
    said = pieces(better)
    slot = rng.choice([name for name, value in facts.items() if value in said])
    wrong = {**facts, slot: other_value(rng, slot, facts[slot])}
    rng.setstate(state)
    worse = authors.careful(rng, wrong)
    rng.random()  # so that the next draw does not repeat this one
    return better, worse


def shortened(rng: random.Random, post: Post) -> tuple[str, str]:
    """A careful summary, and the same with one more sentence that is false."""
    facts = facts_of(post)
    better = authors.careful(rng, facts)
    slot, choices = rng.choice((("con", phrases.CON), ("act", phrases.ACT)))
    false = {**facts, slot: other_value(rng, slot, facts[slot])}
    return better, f"{better} {rng.choice(choices).format_map(false)}"


EDITS = {"human-improved edit": corrected, "improving edits that shorten": shortened}
"""Probe -> the function that makes its pair (better, worse); the names are those of the published probes."""
