"""Scripted writers: summaries of mixed quality without any model.

They plant what a reward model must learn to price and what a good SFT model seldom shows: wrong
facts, distractors taken for facts, repetition.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from types import MappingProxyType

from tldr.records import CandidateSummary, Post
from tldr.toy import authors
from tldr.toy.world import facts_of, mentioned_elsewhere

Writer = Callable[[random.Random, Post], str]


def careful(rng: random.Random, post: Post) -> str:
    """Most facts, all right."""
    return authors.careful(rng, facts_of(post))


def lazy(rng: random.Random, post: Post) -> str:
    """Thin and fluffy, but true."""
    return authors.lazy(rng, facts_of(post))


def wrong(rng: random.Random, post: Post) -> str:
    """As many facts as a careful author, several of them wrong."""
    return authors.careful(rng, authors.with_errors(rng, facts_of(post), rng.choice((0.15, 0.3, 0.5)), post.post))


def distracted(rng: random.Random, post: Post) -> str:
    """Takes the post's distractors for its facts."""
    return authors.careful(rng, mentioned_elsewhere(facts_of(post), post.post))


def repetitive(rng: random.Random, post: Post) -> str:
    """Says one sentence two or three times."""
    sentences = sentences_of(authors.careful(rng, facts_of(post)))
    sentences[1:1] = [rng.choice(sentences)] * rng.choice((1, 2))
    return " ".join(sentences)


def title(rng: random.Random, post: Post) -> str:
    """The title."""
    return post.title


def lead(rng: random.Random, post: Post) -> str:
    """The post's first two sentences."""
    return " ".join(sentences_of(post.post)[:2])


def sentences_of(text: str) -> list[str]:
    """Sentences with their marks."""
    return re.findall(r"[^.?!]+[.?!]?", text.strip()) and [part.strip() for part in re.findall(r"[^.?!]+[.?!]?", text.strip())]


WRITERS: MappingProxyType[str, tuple[Writer, float]] = MappingProxyType(
    {
        "writer_careful": (careful, 0.2),
        "writer_lazy": (lazy, 0.1),
        "writer_wrong": (wrong, 0.35),
        "writer_distracted": (distracted, 0.15),
        "writer_repetitive": (repetitive, 0.1),
        "title": (title, 0.05),
        "lead2": (lead, 0.05),
    }
)
"""Policy name -> the writer, and its share of the summaries."""


def write(rng: random.Random, post: Post) -> CandidateSummary:
    """A summary by a random writer; its text begins with a space, as OpenAI's comparisons do."""
    names = list(WRITERS)
    name = rng.choices(names, [WRITERS[name][1] for name in names])[0]
    return CandidateSummary(text=f" {WRITERS[name][0](rng, post)}", policy=name, note=None)
