"""CNN/DM articles cleaned as the paper's (P App. A; openai/summarize-from-feedback `datasets/cnndm.py`).

Sources are the raw stories of Hermann et al. (2015) and See et al. (2017), or the hub's rows made of
them. The hub joins an article's lines by spaces: its paragraphs cannot be had back, so truncation, which
cuts at newlines, falls back to characters there. The rules are the release's to the letter, odd corners
included, that the tokens be the paper's.
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
"""What a highlight says from here on is no summary."""
DROPPED = ("READ: ", "for all the latest ")
"""Highlights that begin so are links."""
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
"""By the names of the release's lists of urls, which say what they hold and not how it was counted: here
the reference is counted as it stands, without EOS."""


def repair(text: str) -> str:
    """Broken encodings, HTML entities and curly quotes mended by ftfy, and no-break spaces made plain.

    Raises:
        UsageError: ftfy is not installed.
    """
    if find_spec("ftfy") is None:
        raise UsageError(
            "ftfy is not installed, with which the paper's articles were cleaned",
            remedy="install the extra: cnndm; or leave the text as it is (--no-ftfy)",
        )
    fixed: str = import_module("ftfy").fix_text(text)
    return fixed.replace("\xa0", " ")


def strip_start(text: str) -> str:
    """The article from where it begins: without agency marks and the Daily Mail's date lines.

    What comes before the last ``(CNN) --`` goes, wherever that is; before ``(CNN)`` only within the
    first 100 characters; and before the end of the last ``UPDATED: 10:15 EST, 6 April 2012``.
    """
    text = _DASHED.split(text)[-1]
    text = text[:100].split("(CNN)")[-1] + text[100:]
    text = _UPDATED.split(text)[-1]
    return text.strip()


def straight_apostrophes(text: str) -> str:
    """Curly single quotes made straight."""
    return text.replace("\u2019", "'").replace("\u2018", "'")


def clean_article(text: str) -> str:
    """An article whose paragraphs are joined already, as the paper's policies read it."""
    return straight_apostrophes(strip_start(text))


def clean_highlight(line: str) -> str:
    """A highlight without ``NEW:`` before it or an advertisement after it; a mere link is empty."""
    if line.startswith(NEWS):
        return line.split(NEWS)[1].strip()
    if line.startswith(DROPPED):
        return ""
    for mark in CUT_AT:
        if mark in line:
            line = line.split(mark)[0].strip()
    return line


def end_sentence(line: str) -> str:
    """The line with a full stop where it ends in nothing like one; an empty line stays empty."""
    return line + "." if line and line[-1] not in SENTENCE_ENDS else line


def reference(highlights: Iterable[str], *, bullets: bool = False) -> str:
    """Highlights as one summary: sentences in a row, or a list as they are (``filtered48to64``)."""
    lines = [line for line in map(clean_highlight, highlights) if line]
    return "- " + "\n- ".join(lines) if bullets else " ".join(map(end_sentence, lines))


def split_story(text: str) -> tuple[list[str], list[str]]:
    """Paragraphs and highlights of a raw story.

    Raises:
        ValueError: a line begins with ``@highlight`` and goes on.
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
    text = path.read_text(encoding="utf-8")
    paragraphs, highlights = split_story(repair(text) if ftfy else text)
    return Article(
        id=path.stem,
        site=next((site for site in _SITES if site in path.parts), None),
        article=clean_article("\n\n".join(paragraphs)),
        summary=reference(highlights, bullets=bullets),
    )


def article_of_row(row: Mapping[str, Any], *, bullets: bool = False, ftfy: bool = True) -> Article:
    """The article of a hub row (article, highlights, id); a row that is an `Article` already stays one.

    The hub's script ends lines without a full stop in `` .``, with a space: that is taken back.
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
        bullets: references as lists. ftfy: mend the text (`repair`), as the paper did.
        on_error, report: as of `tldr.records.iter_records`; a story counts as a line.

    Raises:
        UsageError: nothing there, or ftfy is missing. RecordError: a bad story or row, named by its place.
    """
    report = report if report is not None else ReadReport(source)
    if ftfy:
        repair("")  # a missing package is no bad line
    if source.is_dir():
        stories = sorted(source.rglob("*.story"))
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
    """Whether the reference's length in the tokenizer's tokens (the paper's: GPT-2's) is the subset's."""
    tokens = len(encode_texts(tokenizer, [article.summary or ""])[0])
    return subset.low <= tokens <= subset.high
