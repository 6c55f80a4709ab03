"""The filter's rules, one small function each, in the paper's order (P 3.2, App. A).

The paper names the steps but released neither patterns nor word lists; the ones here, in `rules/*.txt`, are
this project's. Where the released posts show what the paper's code did, the rules follow them. Of 1,994
released posts, none has a query above 512 GPT-2 tokens and 512 occurs, so the limit is on the whole query and
not on the body. References with leading space and EOS have 24 to 48 tokens (except one of 1,514). Posts hold
no URL, no "tl;dr", no HTML entity and no paragraph "Edit: ...".
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt, field_validator

from tldr.settings.base import NonNegative, Settings, Unit
from tldr.sources.split import place_of

RULES_FOLDER = Path(__file__).parent / "rules"

RULES = (
    "duplicate",
    "no_tldr",
    "comment",
    "subreddit",
    "title_update",
    "suicide",
    "sexual",
    "query_tokens",
    "summary_update",
    "profanity",
    "summary_tokens",
)
"""All rules in order. Rows that pass up to `query_tokens` are PPO queries; rows that pass all, SFT posts."""

FilterSplit = Literal["train", "valid", "test"]


class FilterOptions(Settings):
    """Switches and limits of the filter."""

    off: tuple[str, ...] = ()
    """Rules switched off. Without `no_tldr`, the dump's own content and summary fields are used."""
    query_tokens: PositiveInt = 512
    """Longest formatted query."""
    summary_tokens: tuple[PositiveInt, PositiveInt] = (24, 48)
    """Smallest and largest reference, leading space and EOS included."""
    sexual_terms: PositiveInt = 4
    """Different matches of sexual.txt that make a post explicit."""
    profanity: NonNegative = 0.08
    """Largest share of a summary's words that may match profanity.txt."""
    valid: Unit = 0.05
    """Share of the posts in the validation split."""
    test: Unit = 0.05
    """Share of the posts in the test split."""
    whitelist: tuple[str, ...] | None = None
    """Subreddits to keep; None: the paper's 29."""

    @field_validator("off")
    @classmethod
    def _known(cls, off: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(off) - set(RULES):
            raise ValueError(f"no rule {sorted(unknown)}; the rules are {', '.join(RULES)}")
        return off


@dataclass
class FilterCandidate:
    """A row of the dump on its way through the rules; `post` and `summary` are set by `no_tldr`."""

    id: str
    subreddit: str
    title: str
    body: str
    post: str = ""
    summary: str = ""


def read_candidate(row: dict[str, Any]) -> FilterCandidate:
    """The fields the filter needs of a Webis-TLDR-17 row; comments have no title.

    Raises:
        ValueError: a field is missing or of another type.
    """
    values = {name: row.get(name) for name in ("id", "subreddit", "title", "body", "content", "summary")}
    for name, value in values.items():
        if (value is None and name in ("id", "subreddit", "body")) or (value == "" and name == "id"):
            raise ValueError(f"no field '{name}', or an empty one")
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{name}: expected text, found {type(value).__name__}")
    return FilterCandidate(
        id=values["id"] or "",
        subreddit=values["subreddit"] or "",
        title=values["title"] or "",
        body=values["body"] or "",
        post=values["content"] or "",
        summary=values["summary"] or "",
    )


def lines_of(name: str) -> list[str]:
    """The entries of a rules file, comments and blank lines left out."""
    lines = (RULES_FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


@cache
def pattern(name: str, form: str = r"\b(?:{})\b") -> re.Pattern[str]:
    """All patterns of a rules file as one, for lower-case text: a pattern that ignores case is slower."""
    return re.compile(form.format("|".join(lines_of(name))))


@cache
def table2() -> dict[str, int]:
    """The whitelist with the paper's training counts."""
    return {name: int(count) for name, count in (line.split() for line in lines_of("subreddits"))}


_URL = re.compile(r"[Hh][Tt][Tt][Pp][Ss]?://\S*")
_BLANK_LINES = re.compile(r"\n{3,}")
_AFTER_MARKER = " \t\n:;,.-\u2013\u2014=>*_~#|)]"
_MARKUP = " \t\n*_~#>-\u2013\u2014"
SHORT_LINE = 80
"""Length up to which a line that mentions a TL;DR elsewhere ("TL;DR at the bottom") is dropped."""


def clean(text: str) -> str:
    """Unescape HTML, drop URLs, and keep at most one blank line in a row."""
    text = html.unescape(text)
    if "://" in text:  # the pattern costs more than the rest of parsing, and few texts need it
        text = _URL.sub("", text)
    return _narrow(text.replace("\r\n", "\n").replace("\u200b", "")).strip()


def _narrow(text: str) -> str:
    """At most one blank line in a row."""
    return _BLANK_LINES.sub("\n\n", text) if "\n\n\n" in text else text


def without_follow_ups(text: str) -> str:
    """Drop the paragraphs after the first that begin with "Edit", "Update" or the like."""
    first, *others = text.split("\n\n")
    added = pattern("follow_up_text", r"\W*(?:{})")
    return "\n\n".join([first, *(part for part in others if not added.match(part.lower()))])


def split_tldr(body: str) -> tuple[str, str] | None:
    """Post and summary, parsed from a body.

    The summary is the paragraph after the last TL;DR marker that has one, its lines joined. The post is
    the rest. None if there is no marker, if a part is empty, or if the post still mentions a TL;DR in a
    long line, since the summary is then ambiguous.
    """
    marker = pattern("marker", "{}")
    text = clean(body)
    for found in reversed(list(marker.finditer(text))):
        after = text[found.end() :].lstrip(_AFTER_MARKER)
        if after:
            break
    else:
        return None
    summary, _, rest = after.partition("\n\n")
    before = text[: found.start()].rstrip(_MARKUP)
    if before.endswith((" (", "\n(", " [", "\n[")):
        before = before[:-2].rstrip(_MARKUP)
    post = before + "\n\n" + rest if before else rest
    if marker.search(post):
        post = "\n".join(x for x in post.split("\n") if len(x) > SHORT_LINE or not marker.search(x))
    post = _narrow(without_follow_ups(post.strip())).strip()
    summary = " ".join(line.strip() for line in summary.split("\n")).rstrip(" *_~")
    if not post or not summary or marker.search(post):
        return None
    return post, summary


def no_tldr(row: FilterCandidate, options: FilterOptions) -> bool:
    """No summary can be parsed from the body (step 3). Otherwise `post` and `summary` are set."""
    parts = split_tldr(row.body)
    if parts:
        row.post, row.summary = parts
    return parts is None


def comment(row: FilterCandidate, options: FilterOptions) -> bool:
    """Not a top-level post: comments have no title (step 4)."""
    return not row.title.strip() or row.id.startswith("t1_")


def subreddit(row: FilterCandidate, options: FilterOptions) -> bool:
    """Not in the whitelist (step 5)."""
    return row.subreddit not in (table2() if options.whitelist is None else options.whitelist)


def title_update(row: FilterCandidate, options: FilterOptions) -> bool:
    """The title announces a follow-up (step 6)."""
    return bool(pattern("follow_up_title", r"\W*(?:{})").match(row.title.lower()))


def suicide(row: FilterCandidate, options: FilterOptions) -> bool:
    """Speaks of suicide (step 7)."""
    return any(pattern("suicide").search(text.lower()) for text in (row.title, row.post))


def sexual(row: FilterCandidate, options: FilterOptions) -> bool:
    """Graphic: at least `sexual_terms` different explicit terms (step 7)."""
    return len(set(pattern("sexual").findall(f"{row.title}\n{row.post}".lower()))) >= options.sexual_terms


def summary_update(row: FilterCandidate, options: FilterOptions) -> bool:
    """The summary begins with "Edit", "Update" or "P.S." (step 9)."""
    return bool(pattern("follow_up_text", r"\W*(?:{})").match(row.summary.lower()))


def profanity(row: FilterCandidate, options: FilterOptions) -> bool:
    """Too large a share of the summary's words is profane (step 9)."""
    found = len(pattern("profanity").findall(row.summary.lower()))
    return found > options.profanity * len(row.summary.split())


Rule = Callable[[FilterCandidate, FilterOptions], bool]
"""True when the rule removes the row."""
POST_RULES: tuple[Rule, ...] = (no_tldr, comment, subreddit, title_update, suicide, sexual)
"""Rules applied before the body is tokenized."""
SUMMARY_RULES: tuple[Rule, ...] = (summary_update, profanity)
"""Rules applied before the summary is tokenized."""


def first_broken(rules: tuple[Rule, ...], row: FilterCandidate, options: FilterOptions) -> str | None:
    """The name of the first rule that removes the row."""
    for rule in rules:
        if rule.__name__ not in options.off and rule(row, options):
            return rule.__name__
    return None


def full_id(id: str) -> str:
    """The post's id as in OpenAI's files: Reddit's full name, ``t3_...``."""
    return id if id.startswith("t3_") else f"t3_{id}"


def split_of(id: str, options: FilterOptions) -> FilterSplit:
    """The split of a post, by a hash of its id: more data never moves a post to another split."""
    place = place_of(id)
    if place < options.valid:
        return "valid"
    return "test" if place < options.valid + options.test else "train"
