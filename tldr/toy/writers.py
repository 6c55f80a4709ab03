"""Scripted writers: summaries of known, mixed quality without a model.

They give the reward model comparisons that policies alone do not: planted wrong facts, distractors taken for
facts, disorder, repetition, and the paper's extractive baselines (title, lead-2).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from tldr.measures.sentences import lead, sentences
from tldr.records import Post
from tldr.toy import authors
from tldr.toy.world import Facts, facts_of, mentioned_elsewhere, other_value

Writer = Callable[[random.Random, Post], str]


def complete(rng: random.Random, facts: Facts) -> str:
    """All five facts: event, obstacle, question."""
    return " ".join(authors.everything(rng, facts))


def _some(rng: random.Random, post: Post) -> str:
    return authors.written(rng, facts_of(post), con=0.5, act=0.5)


def _disordered(rng: random.Random, post: Post) -> str:
    parts = authors.everything(rng, facts_of(post))
    rng.shuffle(parts)
    return " ".join(parts)


def _complete(rng: random.Random, post: Post) -> str:
    return complete(rng, facts_of(post))


def _wrong(rng: random.Random, post: Post) -> str:
    facts = dict(facts_of(post))
    for slot in rng.sample(sorted(facts), rng.choice((1, 1, 2, 3))):
        facts[slot] = other_value(rng, slot, facts[slot])
    return rng.choice((complete, authors.written))(rng, facts)


def _misreader(rng: random.Random, post: Post) -> str:
    return complete(rng, mentioned_elsewhere(facts_of(post), post.post))


def _repetitive(rng: random.Random, post: Post) -> str:
    parts = sentences(authors.written(rng, facts_of(post)))
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
    "complete": (_complete, 0.20),
    "some": (_some, 0.38),
    "disordered": (_disordered, 0.10),
    "wrong": (_wrong, 0.08),
    "misreader": (_misreader, 0.04),
    "repetitive": (_repetitive, 0.10),
    "rambling": (_rambling, 0.06),
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
