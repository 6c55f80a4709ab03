"""Queries and responses as token ids, and back: the paper's truncation and response rules.

Source: openai/summarize-from-feedback `tasks.py`. Lengths are in tokens of the given tokenizer; the paper's
own (512, 48, 128, ...) are in GPT-2's. A query begins with the tokenizer's start token if its models were
trained with one (OPT, Llama). It never has an end token. Text that spells a special token, such as
``<|endoftext|>`` in a post, stays text. Inside `tldr.queries.tokenized.keep_tokens`, large sets are encoded
once and read from disk afterwards.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from tldr.errors import RecordError, UsageError
from tldr.queries.bounds import token_bounds
from tldr.queries.formats import QueryFormat, Summarizable, format_fields, format_query
from tldr.queries.tokenized import kept_or_encoded

_WORD_END = re.compile(r"[!-~](?=[ \n])")


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text: no special tokens added, none read from the text."""
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(
        list(texts),
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        verbose=False,
    )["input_ids"]
    return ids


def start_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """``[BOS]`` if the tokenizer puts one before every text (OPT, Llama), else ``[]``."""
    ids: list[int] = tokenizer("", add_special_tokens=True)["input_ids"]
    return ids[:1] if ids[:1] == [tokenizer.bos_token_id] else []


def encode_queries(
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Summarizable],
    max_tokens: int,
    fmt: QueryFormat | None = None,
) -> list[list[int]]:
    """Token ids of each record's query, at most `max_tokens`, truncated by the paper's rule.

    While the formatted query is too long, the truncate field is cut at its last newline and the whole is
    encoded again. A field without a newline loses one character at a time. Subreddit and title are never
    cut. OpenAI's ``tasks.process_query`` accepts a field that was cut to nothing; here that is an error,
    as such a query has no text to summarize.

    Args:
        fmt: as of `format_fields`.

    Raises:
        RecordError: a field is missing, or nothing of the truncate field can be kept.
    """
    names = ("subreddit", "title", "post", "article")

    def encode() -> list[list[int]]:
        start = start_tokens(tokenizer)
        room = max_tokens - len(start)
        encoded = encode_texts(tokenizer, [format_query(record, fmt) for record in records])
        return [
            start + (ids if len(ids) <= room else _truncate(tokenizer, record, room, fmt))
            for ids, record in zip(encoded, records, strict=True)
        ]

    return kept_or_encoded(
        tokenizer,
        ("queries", str(max_tokens), repr(fmt), repr(start_tokens(tokenizer))),
        [getattr(record, name, None) for record in records for name in names],
        len(records),
        encode,
    )


def encode_responses(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int
) -> list[list[int]]:
    """Token ids of each summary: one leading space, whatever spaces the text begins with, then EOS.

    A longer summary keeps its first ``max_tokens - 1`` tokens and EOS (OAI tasks.encode_response). A blank
    text is EOS alone, which is what a policy that stops at once writes.

    Args:
        max_tokens: at least 2: a token and EOS.

    Raises:
        UsageError: `max_tokens` leaves no room.
    """
    if max_tokens < 2:
        raise UsageError(
            f"a response of {max_tokens} tokens has no room for a word and EOS",
            where="lengths.response",
            remedy="allow at least 2 tokens",
        )

    def encode() -> list[list[int]]:
        spaced = [" " + text.lstrip(" ") if text.strip() else "" for text in texts]
        eos = tokenizer.eos_token_id
        return [[*ids[: max_tokens - 1], eos] for ids in encode_texts(tokenizer, spaced)]

    how = ("responses", str(max_tokens), str(tokenizer.eos_token_id))
    return kept_or_encoded(tokenizer, how, texts, len(texts), encode)


def decode_response(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> tuple[str, bool]:
    """The text up to the first EOS or pad (its leading space kept), and whether EOS was there."""
    kept: list[int] = []
    for token in map(int, ids):
        if token in (tokenizer.eos_token_id, tokenizer.pad_token_id):
            return _decode(tokenizer, kept), token == tokenizer.eos_token_id
        kept.append(token)
    return _decode(tokenizer, kept), False


def _decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def _truncate(
    tokenizer: PreTrainedTokenizerBase, record: Summarizable, max_tokens: int, fmt: QueryFormat | None
) -> list[int]:
    fmt, fields = format_fields(record, fmt)
    whole = fields[fmt.truncate]
    before, tail = fmt.template.split(f"{{{fmt.truncate}}}")
    head = before.format(**fields)
    for text in _cuts(whole, _hopeless_from(tokenizer, head, whole, tail, max_tokens)):
        ids = encode_texts(tokenizer, [head + text + tail])[0]
        if len(ids) <= max_tokens:
            return ids
    raise RecordError(
        f"the query does not fit into {max_tokens} tokens however much of its {fmt.truncate} is cut",
        where=record.id,
        remedy="raise the query length; subreddit and title are never cut",
    )


def _cuts(text: str, below: int) -> Iterator[str]:
    """The truncation rule's shorter texts in order, without those of `below` characters or more."""
    end = text.rfind("\n", 0, below)
    while end > 0:
        yield text[:end]
        end = text.rfind("\n", 0, end)
    if end < 0:
        first = text.find("\n")
        for end in range(min(below, first if first >= 0 else len(text)) - 1, 0, -1):
            yield text[:end]


def _hopeless_from(
    tokenizer: PreTrainedTokenizerBase, head: str, text: str, tail: str, max_tokens: int
) -> int:
    """A length from which every prefix of `text` is certainly too long (`tldr.queries.bounds`)."""
    if (bounds := token_bounds(tokenizer)) is None:
        return len(text)

    def count(part: str) -> int:
        return len(encode_texts(tokenizer, [part])[0])

    return bounds.hopeless_from(head, text, tail, max_tokens, count)


def surely_longer(tokenizer: PreTrainedTokenizerBase, text: str, tokens: int) -> bool:
    """Whether the number of words proves that the text has more than `tokens` tokens, without encoding it."""
    return len(_WORD_END.findall(text)) > tokens and _splits_before_blanks(tokenizer, text)


def _splits_before_blanks(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    """Whether a token never spans a printable ASCII character and a blank after it in `text`."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return False
    steps = backend.pre_tokenizer
    names = [type(step).__name__ for step in (steps if type(steps).__name__ == "Sequence" else [steps])]
    normalizer = type(backend.normalizer).__name__
    return (
        # GPT-2's pattern, alone or after a split into single digits (SmolLM2)
        names in (["ByteLevel"], ["Digits", "ByteLevel"])
        and "use_regex=False" not in repr(steps)
        and (normalizer == "NoneType" or (normalizer == "NFC" and unicodedata.is_normalized("NFC", text)))
        and not any(
            token.rstrip or re.search(r"\S\s", token.content)
            for token in tokenizer.added_tokens_decoder.values()
        )
    )
