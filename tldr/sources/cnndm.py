"""CNN/DM articles cleaned as the paper's (P App. A; openai/summarize-from-feedback `datasets/cnndm.py`).

Sources are the raw stories of Hermann et al. (2015) and See et al. (2017), or the hub's rows, which are made
from them. The hub joins an article's lines by spaces. Its paragraphs cannot be recovered, so truncation cuts
those articles by character and not at newlines. The rules follow the release to the letter, including its
oddities, so that the tokens equal the paper's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

from transformers import PreTrainedTokenizerBase

from tldr.errors import UsageError
from tldr.files import files_below
from tldr.queries.encode import encode_texts
from tldr.records import Article, NonEmpty, ReadReport, Record, make_records
from tldr.sources.hub.layout import is_data, iter_rows, parse_fields

HIGHLIGHT = "@highlight"
SENTENCE_ENDS = ".!?'`\"\u2019\u201d)"
"""Characters after which a highlight needs no full stop."""
CUT_AT = (
    "CLICK HERE ",
    "Click HERE ",
    "Click here ",
    "For confidential support call the Samaritans in the UK",
)
"""Markers after which a highlight is no longer a summary."""
DROPPED = ("READ: ", "for all the latest ")
"""Prefixes of highlights that are links."""
NEWS = "NEW: "

_DASHED = re.compile(r"\(CNN\) +--")
_UPDATED = re.compile(r"UPDATED:\s+[0-9]{2}:[0-9]{2}.*[0-5|]")
_SITES = ("cnn", "dailymail")


class HubRow(Record):
    """A row of abisee/cnn_dailymail."""

    id: NonEmpty
    article: str
    highlights: str


class Subset(NamedTuple):
    """Articles by the GPT-2 tokens of their reference, both ends included, and the reference's form."""

    low: int
    high: int
    bullets: bool


SUBSETS = {"filtered48to64": Subset(48, 64, True), "filtered24to48": Subset(24, 48, False)}
"""Subsets by the names of the release's URL lists. The lists do not say how tokens were counted; here the
reference is counted as it is, without EOS."""


def repair(text: str) -> str:
    """The text with broken encodings, HTML entities and curly quotes fixed by ftfy, and plain spaces.

    Raises:
        UsageError: ftfy is not installed.
    """
    if find_spec("ftfy") is None:
        raise UsageError(
            "ftfy is not installed; the paper's articles were cleaned with it",
            remedy="install the extra: cnndm; or leave the text as it is (--no-ftfy)",
        )
    fixed: str = import_module("ftfy").fix_text(text)
    return fixed.replace("\xa0", " ")


def strip_start(text: str) -> str:
    """The article without leading agency marks and the Daily Mail's date lines.

    Text before the last ``(CNN) --`` is removed wherever that is, text before ``(CNN)`` only within the
    first 100 characters, and text up to the end of the last ``UPDATED: 10:15 EST, 6 April 2012``.
    """
    text = _DASHED.split(text)[-1]
    text = text[:100].split("(CNN)")[-1] + text[100:]
    text = _UPDATED.split(text)[-1]
    return text.strip()


def straight_apostrophes(text: str) -> str:
    """Curly single quotes made straight."""
    return text.replace("\u2019", "'").replace("\u2018", "'")


def clean_article(text: str) -> str:
    """An article, its paragraphs already joined, as the paper's policies read it."""
    return straight_apostrophes(strip_start(text))


def clean_highlight(line: str) -> str:
    """A highlight without a leading ``NEW:`` or a trailing advertisement; a link becomes empty."""
    if line.startswith(NEWS):
        return line.split(NEWS)[1].strip()
    if line.startswith(DROPPED):
        return ""
    for mark in CUT_AT:
        if mark in line:
            line = line.split(mark)[0].strip()
    return line


def end_sentence(line: str) -> str:
    """The line with a full stop if it does not end in punctuation; an empty line stays empty."""
    return line + "." if line and line[-1] not in SENTENCE_ENDS else line


def reference(highlights: Iterable[str], *, bullets: bool = False) -> str:
    """Highlights as one summary: consecutive sentences, or a bullet list (``filtered48to64``)."""
    lines = [line for line in map(clean_highlight, highlights) if line]
    return "- " + "\n- ".join(lines) if bullets else " ".join(map(end_sentence, lines))


def split_story(text: str) -> tuple[list[str], list[str]]:
    """Paragraphs and highlights of a raw story.

    Raises:
        ValueError: a line begins with ``@highlight`` and has more text.
    """
    paragraphs: list[str] = []
    highlights: list[str] = []
    into = paragraphs
    for line in text.split("\n"):
        if line.startswith(HIGHLIGHT):
            if line != HIGHLIGHT:
                raise ValueError(f"a line that begins with {HIGHLIGHT} and goes on: {line[:60]!r}")
            into = highlights
        elif line.strip():
            into.append(line)
    return paragraphs, highlights


def article_of_story(path: Path, *, bullets: bool = False, ftfy: bool = True) -> Article:
    """The article of a ``.story`` file; its id is the file's name, which is the url's SHA-1.

    Raises:
        ValueError: invalid UTF-8, a malformed story, or nothing in it.
    """
    text = path.read_text(encoding="utf-8-sig")
    paragraphs, highlights = split_story(repair(text) if ftfy else text)
    return Article(
        id=path.stem,
        site=next((site for site in _SITES if site in path.parts), None),
        article=clean_article("\n\n".join(paragraphs)),
        summary=reference(highlights, bullets=bullets),
    )


def article_of_row(row: Mapping[str, Any], *, bullets: bool = False, ftfy: bool = True) -> Article:
    """The article of a hub row (article, highlights, id), or of a row that is an `Article` already.

    The hub's script adds `` .`` to lines without a full stop; it is removed here.
    """
    if "highlights" not in row:
        return Article.model_validate(row)
    known = HubRow.model_validate(row)
    article, highlights = (repair(text) if ftfy else text for text in (known.article, known.highlights))
    lines = [line.removesuffix(" .").strip() for line in highlights.split("\n")]
    return Article(id=known.id, article=clean_article(article), summary=reference(lines, bullets=bullets))


def iter_articles(
    source: Path,
    *,
    bullets: bool = False,
    ftfy: bool = True,
    on_error: Literal["stop", "skip"] = "stop",
    report: ReadReport | None = None,
) -> Iterator[Article]:
    """The articles of a folder of ``.story`` files, or of a file of rows (JSON lines or Parquet).

    Args:
        bullets: references as lists. ftfy: fix the text (`repair`), as the paper did.
        on_error, report: as of `tldr.records.iter_records`; a story counts as a line.

    Raises:
        UsageError: nothing there, or ftfy is missing. RecordError: a bad story or row, named by its place.
    """
    report = report if report is not None else ReadReport(source)
    if ftfy:
        repair("")  # report a missing package before any line counts as bad
    if source.is_dir():
        stories = files_below(source, "*.story")
        if not stories:
            raise UsageError("no .story file in this folder", where=source, remedy="name a file of rows")
        yield from make_records(
            ((str(path), path) for path in stories),
            lambda path: article_of_story(path, bullets=bullets, ftfy=ftfy),
            "story",
            on_error=on_error,
            report=report,
        )
        return
    if not source.is_file() or not is_data(source.name):
        raise UsageError(
            "no file of articles", where=source, remedy="give stories in a folder, JSON lines or Parquet"
        )
    yield from make_records(
        iter_rows(source),
        lambda row: article_of_row(parse_fields(row), bullets=bullets, ftfy=ftfy),
        "article",
        on_error=on_error,
        report=report,
    )


def in_subset(tokenizer: PreTrainedTokenizerBase, article: Article, subset: Subset) -> bool:
    """Whether the reference's length in tokens (the paper counts GPT-2's) lies in the subset's range."""
    tokens = len(encode_texts(tokenizer, [article.summary or ""])[0])
    return subset.low <= tokens <= subset.high
