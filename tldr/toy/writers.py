"""Scripted writers: summaries of known, mixed quality without a model.

They give the reward model comparisons that policies alone do not: planted wrong facts, distractors taken for
facts, repetition, and the paper's extractive baselines (title, lead-2).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from tldr.measures.sentences import lead, sentences
from tldr.records import Post
from tldr.toy import authors, phrases
from tldr.toy.world import Facts, facts_of, mentioned_elsewhere, other_value

Writer = Callable[[random.Random, Post], str]


def complete(rng: random.Random, facts: Facts) -> str:
    """All five facts, event first."""
    head = rng.choice(phrases.EVENT_OPENERS) + rng.choice(phrases.EVENT)
    body = [rng.choice(choices) for choices in (phrases.CON, phrases.ACT)]
    rng.shuffle(body)
    return " ".join(part.format_map(facts) for part in [head, *body])


def _careful(rng: random.Random, post: Post) -> str:
    return authors.careful(rng, facts_of(post))


def _lazy(rng: random.Random, post: Post) -> str:
    return authors.lazy(rng, facts_of(post))


def _complete(rng: random.Random, post: Post) -> str:
    return complete(rng, facts_of(post))


def _wrong(rng: random.Random, post: Post) -> str:
    facts = dict(facts_of(post))
    for slot in rng.sample(sorted(facts), rng.choice((1, 1, 2, 3))):
        facts[slot] = other_value(rng, slot, facts[slot])
    return rng.choice((complete, authors.careful, authors.lazy))(rng, facts)


def _misreader(rng: random.Random, post: Post) -> str:
    return complete(rng, mentioned_elsewhere(facts_of(post), post.post))


def _repetitive(rng: random.Random, post: Post) -> str:
    parts = sentences(authors.careful(rng, facts_of(post)))
    again = rng.choice(parts)
    return " ".join([*parts[:3], again])


def _rambling(rng: random.Random, post: Post) -> str:
    """A long, repetitive text that is cut off, as of a policy that exploits a reward model's length bias."""
    said = complete(rng, facts_of(post)).split()
    while len(said) < 32:
        start = rng.randrange(len(said) - 1)
        said += said[start : start + rng.randint(1, 5)]
    return " ".join(said[: rng.randint(24, 32)])


def _title(rng: random.Random, post: Post) -> str:
    return post.title


def _lead_2(rng: random.Random, post: Post) -> str:
    return lead(post.post)


WRITERS: dict[str, tuple[Writer, float]] = {
    "complete": (_complete, 0.18),
    "careful": (_careful, 0.28),
    "lazy": (_lazy, 0.21),
    "wrong": (_wrong, 0.10),
    "misreader": (_misreader, 0.04),
    "repetitive": (_repetitive, 0.10),
    "rambling": (_rambling, 0.05),
    "title": (_title, 0.02),
    "lead_2": (_lead_2, 0.02),
}
"""Writer -> its function and its share of a mixed pool."""


def write(rng: random.Random, post: Post, name: str | None = None) -> tuple[str, str]:
    """A summary of a toy post.

    Args:
        name: a key of `WRITERS`; by default drawn by the shares.

    Returns:
        The writer's name and the text, which begins with no space.

    Raises:
        RecordError: the post carries no toy facts.
    """
    if name is None:
        shares = [share for _, share in WRITERS.values()]
        name = rng.choices(list(WRITERS), shares)[0]
    return name, WRITERS[name][0](rng, post)
