"""The pretraining corpus: posts with raw TL;DRs and posts with comments.

Raw TL;DRs are short and carry little, so zero-shot summaries are poor. Comments restate the facts of the
post, so a model learns to read posts before it sees a good summary.
"""

from __future__ import annotations

import random

from tldr.measures.sentences import sentences
from tldr.queries.formats import format_query
from tldr.records import Post
from tldr.toy import phrases
from tldr.toy.world import Facts, facts_of

RAW_SHARE = 0.2
"""Share of documents that end in a raw TL;DR; the others end in comments."""
RAW_COPIED_SHARE = 0.5
"""Share of the raw TL;DRs that repeat a sentence of the post, as base models do."""
QUERY_END = "\n\nTL;DR:"


def raw_tldr(rng: random.Random, post: Post) -> str:
    """A sentence of the post again, or one with at most one fact; half of the time a generic one."""
    if rng.random() < RAW_COPIED_SHARE:
        said = [rng.choice(sentences(post.post))]
    else:
        said = [rng.choice(phrases.RAW_TLDR).format_map(facts_of(post))]
    if rng.random() < 0.5:
        said.append(rng.choice(phrases.RAW_CLOSING))
    return " ".join(said)


def comment(rng: random.Random, facts: Facts) -> str:
    """A reply that restates the facts in any order."""
    parts = [
        rng.choice(choices).format_map(facts)
        for choices in (phrases.COMMENT_EVENT, phrases.COMMENT_CON, phrases.COMMENT_ACT)
    ]
    rng.shuffle(parts)
    return " ".join(parts)


def document(rng: random.Random, post: Post) -> tuple[str, int]:
    """One document (EOS is appended when it is tokenised).

    Returns:
        The text, and the number of its leading characters that belong to the post.
    """
    query = format_query(post)
    facts = facts_of(post)
    if rng.random() < RAW_SHARE:
        return f"{query} {raw_tldr(rng, post)}", len(query)
    body = query.removesuffix(QUERY_END)
    comments = "".join(f"\n\nCOMMENT: {comment(rng, facts)}" for _ in range(2))
    return body + comments, len(body)
