"""The paper's query formats: the text that a model sees before it writes a summary.

Source: openai/summarize-from-feedback `utils/experiment_helpers.py`. `tldr.queries.encode` turns queries and
responses into tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from tldr.errors import RecordError
from tldr.records import Article, Info, Post

Summarizable = Post | Article | Info
"""A record that holds a text to summarize."""


@dataclass(frozen=True)
class QueryFormat:
    """How a record becomes a query.

    Attributes:
        template: filled from the record's fields; the text after the last field is never cut.
        truncate: the one field that is cut when the query is too long.
    """

    name: str
    template: str
    truncate: str


TLDR = QueryFormat("tldr", "SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: {post}\n\nTL;DR:", "post")
TLDR_ZERO_SHOT = QueryFormat(
    "tldr_zero_shot", "Subreddit: r/{subreddit}\n\nTitle: {title}\n\n{post}\n\nTL;DR:", "post"
)
CNNDM_TRANSFER = QueryFormat("cnndm_transfer", "{article}\n\nTL;DR:", "article")


def format_fields(record: Summarizable, fmt: QueryFormat | None) -> tuple[QueryFormat, dict[str, str]]:
    """The format, and the record's fields that fill its template.

    Args:
        fmt: None for the format of the TL;DR policies: `TLDR` for a post, `CNNDM_TRANSFER` for an article.

    Raises:
        RecordError: the record lacks a field of the format.
    """
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


def format_query(record: Summarizable, fmt: QueryFormat | None = None) -> str:
    """The whole query text, which ends in ``TL;DR:`` without a space: the response starts with one.

    Args and errors: as of `format_fields`.
    """
    fmt, fields = format_fields(record, fmt)
    return fmt.template.format(**fields)
