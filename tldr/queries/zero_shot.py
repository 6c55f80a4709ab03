"""The paper's zero-shot baseline: in-context examples before the query (P 3.2, Fig. 1).

Source: openai/summarize-from-feedback `utils/experiment_helpers.py` (``tldr_zero_shot_task``: 13 posts
chosen by hand, references of 24 to 47 tokens asserted) and `tasks.py` (the examples are the query's
left padding, whose tail is kept). Those posts cannot be redistributed, so SFT posts replace them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from tldr.errors import RecordError, UsageError
from tldr.queries.encode import encode_queries, encode_texts, start_tokens
from tldr.queries.formats import TLDR_ZERO_SHOT, Summarizable, format_query
from tldr.queries.tokenizer import text_ids
from tldr.records import Post

EXAMPLE_SEPARATOR = "\n\n=====\n\n"
"""Between the in-context examples (OAI experiment_helpers.py)."""
REFERENCE_TOKENS = range(24, 48)
"""Allowed lengths of an example's reference, in tokens without EOS and without the leading space."""


def choose_examples(tokenizer: PreTrainedTokenizerBase, posts: Sequence[Post], count: int) -> list[Post]:
    """Of the posts with a reference of an allowed length, the `count` with the smallest SHA-256 of the id.

    The choice depends on neither the order of the file nor a seed, so every run of a study has the same
    examples. Posts of any length are chosen. The shortest posts would fit more examples into the window,
    but their summaries are about as long as the posts.

    Raises:
        UsageError: fewer than `count` posts have such a reference.
    """
    chosen: list[Post] = []
    for post in sorted(posts, key=lambda post: hashlib.sha256(post.id.encode()).digest()):
        if len(encode_texts(tokenizer, [(post.summary or "").strip()])[0]) in REFERENCE_TOKENS:
            chosen.append(post)
            if len(chosen) == count:
                return chosen
    raise UsageError(
        f"{len(chosen)} SFT posts have a reference of {REFERENCE_TOKENS.start} to "
        f"{REFERENCE_TOKENS.stop - 1} tokens, but {count} in-context examples are needed",
        where="evaluation.zero_shot.examples",
        remedy="ask for fewer, or give more SFT posts",
    )


def zero_shot_queries(
    tokenizer: PreTrainedTokenizerBase,
    posts: Sequence[Summarizable],
    examples: Sequence[Post],
    max_tokens: int,
) -> list[list[int]]:
    """Queries in the paper's zero-shot format, each after the tail of the examples.

    A tokenizer's start token, where it has one, comes before the examples.

    Returns:
        token ids of each query: `max_tokens` of them, or fewer if the examples do not fill the window.
    """
    start = start_tokens(tokenizer)
    context = encode_texts(tokenizer, [example_context(examples)])[0]
    queries = encode_queries(tokenizer, posts, max_tokens, TLDR_ZERO_SHOT)
    return [start + fill_left(query[len(start) :], context, max_tokens - len(start)) for query in queries]


def example_context(examples: Sequence[Post]) -> str:
    """In-context examples as text, each followed by the separator (OAI experiment_helpers.py).

    Raises:
        RecordError: an example has no summary.
    """
    parts = []
    for example in examples:
        if not example.summary:
            raise RecordError("an in-context example needs a summary", where=example.id)
        query = format_query(example, TLDR_ZERO_SHOT)
        parts.append(query + " " + example.summary.lstrip(" ") + EXAMPLE_SEPARATOR)
    return "".join(parts)


def fill_left(query: list[int], context: list[int], max_tokens: int) -> list[int]:
    """The query with as much of the context's tail before it as fits: the last examples are kept."""
    room = max_tokens - len(query)
    return (context[-room:] if room > 0 else []) + query


def newline_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Tokens that begin with a newline: each of them ends a zero-shot summary (a BPE may merge several)."""
    return {index for index in text_ids(tokenizer) if str(tokenizer.decode([index])).startswith("\n")}
