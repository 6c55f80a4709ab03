"""From records to token ids and back: the paper's query formats, truncation and response rules.

Source: openai/summarize-from-feedback `utils/experiment_helpers.py` (formats), `tasks.py`
(truncation, responses). All lengths are in tokens of the tokenizer given; the paper's own
(512, 48, 128, ...) are GPT-2 tokens. Queries are encoded with the tokenizer's start token where its
models were trained with one (OPT, Llama), never with an end token, and text that spells a special
token, such as ``<|endoftext|>`` in a post, stays text.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from tldr.errors import RecordError, UsageError
from tldr.records import Article, Info, Post

Source = Post | Article | Info
"""Whatever holds a text to summarize."""


@dataclass(frozen=True)
class QueryFormat:
    """How a record becomes a query, and what the response to it looks like.

    Attributes:
        template: filled from the record's fields; the text after the last field is never cut.
        truncate: the one field that is cut when the query is too long.
        query_tokens, response_tokens: the paper's limits in GPT-2 tokens (EOS included).
        lead: what a response begins with; the query ends without it.
        stop: None: EOS ends a response; else this text's one token does (base models, no fine-tuning).
    """

    name: str
    template: str
    truncate: str
    query_tokens: int
    response_tokens: int
    lead: str = " "
    stop: str | None = None


_TLDR = "SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: {post}\n\nTL;DR:"
TLDR = QueryFormat("tldr", _TLDR, "post", 512, 48)
TLDR_RM = QueryFormat("tldr_rm", _TLDR, "post", 512, 128)
TLDR_ZERO_SHOT = QueryFormat(
    "tldr_zero_shot",
    "Subreddit: r/{subreddit}\n\nTitle: {title}\n\n{post}\n\nTL;DR:",
    "post",
    2047 - 48,
    48,
    stop="\n",
)
CNNDM_TRANSFER = QueryFormat("cnndm_transfer", "{article}\n\nTL;DR:", "article", 512, 48)
CNNDM = QueryFormat("cnndm", "Article:\n{article}\n\nTL;DR:\n", "article", 2047 - 128, 128, lead="")
CNNDM_ZERO_SHOT = QueryFormat(
    "cnndm_zero_shot", "Article:\n\n{article}\n\nTL;DR:", "article", 2047 - 128, 128, stop="\n"
)
FORMATS = {f.name: f for f in (TLDR, TLDR_RM, TLDR_ZERO_SHOT, CNNDM_TRANSFER, CNNDM, CNNDM_ZERO_SHOT)}

_WORD_END = re.compile(r"[!-~](?=[ \n])")

EXAMPLE_SEPARATOR = "\n\n=====\n\n"
"""Between the in-context examples of the zero-shot formats (experiment_helpers.py)."""


def _fields(record: Source, fmt: QueryFormat | None) -> tuple[QueryFormat, dict[str, str]]:
    """The format (by default the TL;DR policies' own for posts and for articles) and its fields."""
    if fmt is None:
        fmt = CNNDM_TRANSFER if getattr(record, "post", None) is None else TLDR
    fields = {}
    for name in ("subreddit", "title", "post", "article"):
        if f"{{{name}}}" not in fmt.template:
            continue
        value = getattr(record, name, None)
        if value is None or (name == fmt.truncate and not value):
            raise RecordError(
                f"no '{name}', which the format '{fmt.name}' needs",
                where=getattr(record, "id", None),
                remedy="give the record that field or choose another format",
            )
        fields[name] = value
    if "subreddit" in fields:
        # OpenAI's edit batch writes "r/relationships" where every other file writes "relationships"
        fields["subreddit"] = fields["subreddit"].removeprefix("r/")
    return fmt, fields


def format_query(record: Source, fmt: QueryFormat | None = None) -> str:
    """The whole query text, ending in ``TL;DR:`` with no space (the response starts with one).

    Args:
        fmt: by default `TLDR` for a post and `CNNDM_TRANSFER` for an article.

    Raises:
        RecordError: the record lacks a field of the format.
    """
    fmt, fields = _fields(record, fmt)
    return fmt.template.format(**fields)


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


def encode_query(
    tokenizer: PreTrainedTokenizerBase, record: Source, max_tokens: int, fmt: QueryFormat | None = None
) -> list[int]:
    """The query's token ids, at most `max_tokens`, truncated by the paper's rule.

    While the whole formatted query is too long, the truncate field is cut at its last newline and
    all is encoded again; once it has no newline left it loses one character at a time. Subreddit
    and title are never cut (OAI tasks.process_query; there an emptied field that fits is let pass,
    here it is refused: a query without its text asks for nothing).

    Raises:
        RecordError: a field is missing, or nothing of the truncate field can be kept.
    """
    return encode_queries(tokenizer, [record], max_tokens, fmt)[0]


def encode_queries(
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Source],
    max_tokens: int,
    fmt: QueryFormat | None = None,
) -> list[list[int]]:
    """`encode_query` of every record, encoded in one batch."""
    start = start_tokens(tokenizer)
    room = max_tokens - len(start)
    encoded = encode_texts(tokenizer, [format_query(record, fmt) for record in records])
    return [
        start + (ids if len(ids) <= room else _truncate(tokenizer, record, room, fmt))
        for ids, record in zip(encoded, records, strict=True)
    ]


def _truncate(
    tokenizer: PreTrainedTokenizerBase, record: Source, max_tokens: int, fmt: QueryFormat | None
) -> list[int]:
    fmt, fields = _fields(record, fmt)
    whole = fields[fmt.truncate]
    before, tail = fmt.template.split(f"{{{fmt.truncate}}}")
    head = before.format(**fields)
    for text in _cuts(whole, _hopeless_from(tokenizer, head, whole, max_tokens)):
        ids = encode_texts(tokenizer, [head + text + tail])[0]
        if len(ids) <= max_tokens:
            return ids
    raise RecordError(
        f"the query does not fit into {max_tokens} tokens however much of its {fmt.truncate} is cut",
        where=record.id,
        remedy="raise the query length; subreddit and title are never cut",
    )


def _cuts(text: str, below: int) -> Iterator[str]:
    """The truncation rule's shorter texts in order, leaving out those of `below` characters or more."""
    end = text.rfind("\n", 0, below)
    while end > 0:
        yield text[:end]
        end = text.rfind("\n", 0, end)
    if end < 0:
        first = text.find("\n")
        for end in range(min(below, first if first >= 0 else len(text)) - 1, 0, -1):
            yield text[:end]


def _hopeless_from(tokenizer: PreTrainedTokenizerBase, head: str, text: str, max_tokens: int) -> int:
    """A length from which every cut of `text` is certain to be too long, found by bisection.

    Byte-level BPE always splits between a word's end and a blank, so up to there a query's tokens
    do not depend on what follows: cuts that keep a stretch of `max_tokens` tokens cannot fit, as
    the format's tail adds at least one. Other tokenizers promise no such thing: nothing is skipped.
    """
    if not _splits_before_blanks(tokenizer, head + text):
        return len(text)
    ends = [found.end() for found in _WORD_END.finditer(text)]

    def tokens_before(end: int) -> int:
        return len(encode_texts(tokenizer, [head + text[:end]])[0])

    first = bisect_left(ends, max_tokens, key=tokens_before)
    return ends[first] if first < len(ends) else len(text)


def surely_longer(tokenizer: PreTrainedTokenizerBase, text: str, tokens: int) -> bool:
    """Whether the text's words alone show it to have more than so many tokens (far cheaper than encoding)."""
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
        # GPT-2's pattern, alone or after single digits were set apart (SmolLM2)
        names in (["ByteLevel"], ["Digits", "ByteLevel"])
        and "use_regex=False" not in repr(steps)
        and (normalizer == "NoneType" or (normalizer == "NFC" and unicodedata.is_normalized("NFC", text)))
        and not any(
            token.rstrip or re.search(r"\S\s", token.content)
            for token in tokenizer.added_tokens_decoder.values()
        )
    )


def encode_response(
    tokenizer: PreTrainedTokenizerBase, text: str, max_tokens: int, lead: str = " "
) -> list[int]:
    """Token ids of a summary: one leading space, whatever spaces `text` begins with, then EOS.

    Too long, it keeps its first ``max_tokens - 1`` tokens and EOS (OAI tasks.encode_response). A
    blank text is EOS alone, as a policy that stops at once writes it.

    Args:
        max_tokens: at least 2: a token and EOS.
        lead: the format's `QueryFormat.lead`.

    Raises:
        UsageError: `max_tokens` leaves no room.
    """
    return encode_responses(tokenizer, [text], max_tokens, lead)[0]


def encode_responses(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int, lead: str = " "
) -> list[list[int]]:
    """`encode_response` of every text, encoded in one batch."""
    if max_tokens < 2:
        raise UsageError(
            f"a response of {max_tokens} tokens has no room for a word and EOS",
            where="lengths.response",
            remedy="allow at least 2 tokens",
        )
    spaced = [lead + text.lstrip(" ") if text.strip() else "" for text in texts]
    eos = tokenizer.eos_token_id
    return [[*ids[: max_tokens - 1], eos] for ids in encode_texts(tokenizer, spaced)]


def decode_response(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> tuple[str, bool]:
    """The text up to the first EOS or pad (its leading space kept), and whether EOS was there."""
    kept: list[int] = []
    for token in map(int, ids):
        if token in (tokenizer.eos_token_id, tokenizer.pad_token_id):
            return _decode(tokenizer, kept), token == tokenizer.eos_token_id
        kept.append(token)
    return _decode(tokenizer, kept), False


def decode_responses(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]]
) -> list[tuple[str, bool]]:
    """`decode_response` of every row."""
    return [decode_response(tokenizer, row) for row in rows]


def _decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def stop_token(tokenizer: PreTrainedTokenizerBase, fmt: QueryFormat) -> int:
    """The id that ends a response in this format: EOS, or the newline's token for zero-shot.

    Raises:
        UsageError: the stop text is not one token of this tokenizer.
    """
    if fmt.stop is None:
        eos: int = tokenizer.eos_token_id
        return eos
    ids = encode_texts(tokenizer, [fmt.stop])[0]
    if len(ids) != 1:
        raise UsageError(
            f"{fmt.stop!r} is {len(ids)} tokens in this tokenizer, so it cannot end a response",
            where=f"format {fmt.name}",
            remedy="use a byte-level tokenizer for the zero-shot baseline",
        )
    return ids[0]


def example_context(examples: Sequence[Post | Article], fmt: QueryFormat) -> str:
    """In-context examples as text, each followed by the separator (OAI experiment_helpers.py).

    Raises:
        RecordError: an example has no summary.
    """
    parts = []
    for example in examples:
        if not example.summary:
            raise RecordError("an in-context example needs a summary", where=example.id)
        parts.append(format_query(example, fmt) + " " + example.summary.lstrip(" ") + EXAMPLE_SEPARATOR)
    return "".join(parts)


def fill_left(query: list[int], context: list[int], max_tokens: int) -> list[int]:
    """The query with as much of the context's tail before it as fits: later examples survive."""
    room = max_tokens - len(query)
    return (context[-room:] if room > 0 else []) + query
