"""The white-space convention of a data set, and whether two sets have the same one.

OpenAI's posts keep the blank lines between paragraphs (in 95 % of the posts of several lines); some copies
collapse them. Summaries of OpenAI's labels begin with a space and references of its posts do not; some copies
differ in that too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tldr.errors import UsageError
from tldr.records import Record

ENOUGH = 20
"""Number of texts of several lines below which the convention of blank lines is unknown."""
KEPT, COLLAPSED = 0.5, 0.05
"""Shares of texts with blank lines at or above which they are kept, and below which they are collapsed."""

Style = Literal["kept", "collapsed", "mixed"]


@dataclass(frozen=True)
class Convention:
    """White-space statistics of a set.

    Attributes:
        kind: the record's name.
        texts, paragraphs: number of posts (or articles) of several lines, and of those with a blank line.
        summaries, leading_space: number of summaries, and of those that begin with a space.
    """

    kind: str = ""
    texts: int = 0
    paragraphs: int = 0
    summaries: int = 0
    leading_space: int = 0

    @property
    def paragraph_style(self) -> Style | None:
        """What happened to blank lines; None if there are too few texts to tell."""
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
    """Counts the white space of a stream of records."""

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
    """The white-space statistics of records."""
    tally = Tally()
    for record in records:
        tally.add(record)
    return tally.convention()


def same_convention(conventions: Mapping[str, Convention]) -> list[str]:
    """Refuse to mix sets whose blank lines differ: training and evaluation queries would differ in format.

    Leading spaces that differ among sets of one kind are reported and not refused. A response always starts
    with one space, whatever its text starts with, so the tokens are the same.

    Args:
        conventions: name of the set -> its convention.

    Returns:
        The differences to report.

    Raises:
        UsageError: naming the sets and their statistics.
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
