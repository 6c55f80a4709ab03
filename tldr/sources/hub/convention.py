"""White space tells the copies of the data apart: what a set's convention is, and whether two agree.

OpenAI's posts keep the blank lines between paragraphs (in 95 % of the posts of several lines) and
some copies collapsed them; their labels' summaries begin with a space and the posts' references do
not, and some copies changed that too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tldr.errors import UsageError
from tldr.records import Record

ENOUGH = 20
"""Texts of several lines below which nothing is said about their blank lines."""
KEPT, COLLAPSED = 0.5, 0.05
"""Shares of texts with blank lines from which on, and below which, a set has one convention."""

Style = Literal["kept", "collapsed", "mixed"]


@dataclass(frozen=True)
class Convention:
    """What a set's white space is like.

    Attributes:
        kind: the record's name.
        texts, paragraphs: posts (or articles) of several lines, and how many of them have a blank line.
        summaries, leading_space: summaries, and how many of them begin with a space.
    """

    kind: str = ""
    texts: int = 0
    paragraphs: int = 0
    summaries: int = 0
    leading_space: int = 0

    @property
    def paragraph_style(self) -> Style | None:
        """What became of blank lines; None where there are too few texts to tell."""
        if self.texts < ENOUGH:
            return None
        share = self.paragraphs / self.texts
        return "kept" if share >= KEPT else "collapsed" if share < COLLAPSED else "mixed"

    @property
    def leading_share(self) -> float | None:
        """Share of summaries that begin with a space."""
        return self.leading_space / self.summaries if self.summaries else None

    def to_json(self) -> dict[str, Any]:
        """Counts, shares and style."""
        share = self.paragraphs / self.texts if self.texts else None
        style = {"paragraph_style": self.paragraph_style, "paragraph_share": share}
        return {**asdict(self), **style, "leading_space_share": self.leading_share}

    def __str__(self) -> str:
        lines = (
            f"blank lines {self.paragraph_style or 'unknown'} ({self.paragraphs:,} of {self.texts:,} texts)"
        )
        share = self.leading_share
        return lines + ("" if share is None else f", leading space in {share:.1%} of the summaries")


class Tally:
    """Counts a set's white space while it streams by."""

    def __init__(self) -> None:
        self._kind = ""
        self._counts = [0, 0, 0, 0]

    def add(self, record: Record) -> None:
        """Count one record of any kind."""
        self._kind = self._kind or type(record).__name__
        text = getattr(
            getattr(record, "info", record), "article" if self._kind == "Article" else "post", None
        )
        if text and "\n" in text.strip():
            self._counts[0] += 1
            self._counts[1] += "\n\n" in text
        for summary in _summaries(record):
            self._counts[2] += 1
            self._counts[3] += summary.startswith(" ")

    def convention(self) -> Convention:
        """What was counted so far."""
        return Convention(self._kind, *self._counts)


def _summaries(record: Record) -> Iterable[str]:
    if (several := getattr(record, "summaries", None)) is not None:
        return [summary.text for summary in several]
    summary = getattr(record, "summary", None)
    return [] if summary is None else [getattr(summary, "text", summary)]


def convention(records: Iterable[Record]) -> Convention:
    """The white space of some records."""
    tally = Tally()
    for record in records:
        tally.add(record)
    return tally.convention()


def same_convention(conventions: Mapping[str, Convention]) -> list[str]:
    """Refuse to mix sets whose blank lines differ: a model would read one kind of query and meet another.

    Leading spaces that differ among sets of one kind are told, not refused: a response always begins
    with one space, whatever its text does, so tokens are the same.

    Args:
        conventions: name of the set -> its convention.

    Returns:
        What is to be told.

    Raises:
        UsageError: naming the sets and what they are like.
    """
    for articles in (False, True):
        styles = {
            name: found
            for name, found in conventions.items()
            if (found.kind == "Article") == articles and found.texts
        }
        known = {found.paragraph_style for found in styles.values()} - {None}
        if {"kept", "collapsed"} <= known:
            raise UsageError(
                "sets whose blank lines differ cannot be mixed: "
                + "; ".join(f"{name}: {found}" for name, found in styles.items()),
                where="data",
                remedy="take all sets from copies that keep the blank lines",
            )
    notes = [
        f"{name}: some texts keep their blank lines, others do not ({found})"
        for name, found in conventions.items()
        if found.paragraph_style == "mixed"
    ]
    for kind in dict.fromkeys(found.kind for found in conventions.values()):
        shares = {
            name: found.leading_share
            for name, found in conventions.items()
            if found.kind == kind and found.leading_share is not None
        }
        if shares and max(shares.values()) - min(shares.values()) > 0.5:
            told = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
            notes.append(f"summaries begin with a space in some sets and not in others: {told}")
    return notes
