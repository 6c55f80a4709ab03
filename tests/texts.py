"""Posts that several tests encode, and the tokens of a single one."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from tldr.queries.encode import encode_queries, encode_responses
from tldr.queries.formats import QueryFormat, Summarizable

TEXTS = [
    "SUBREDDIT: r/dogs\n\nTITLE: My dog ate the sofa\n\nPOST: We went out for an hour.\nThe sofa is gone."
    "\n\nTL;DR: dog ate sofa, what now?",
    "SUBREDDIT: r/jobs\n\nTITLE: New boss\n\nPOST: My boss wants me to work on Sundays.\n\nI said no."
    "\n\nTL;DR: boss wants Sundays, I said no.",
] * 3


def encode_query(
    tokenizer: PreTrainedTokenizerBase, record: Summarizable, max_tokens: int, fmt: QueryFormat | None = None
) -> list[int]:
    """The query of one record."""
    return encode_queries(tokenizer, [record], max_tokens, fmt)[0]


def encode_response(tokenizer: PreTrainedTokenizerBase, text: str, max_tokens: int) -> list[int]:
    """The response of one text."""
    return encode_responses(tokenizer, [text], max_tokens)[0]
