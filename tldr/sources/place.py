"""``NAME@SPLIT`` and ``FOLDER@SPLIT``: a source's split, wherever a study names a file.

A split that is a folder (``comparisons``) stands for all splits below it; ``train+valid1`` stands for both.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tldr.errors import UsageError
from tldr.inputs.posts import check_articles, check_posts, load_articles, load_comparisons, load_posts
from tldr.records import (
    Article,
    Comparison,
    OnError,
    Post,
    Ranking,
    ReadReport,
    Record,
    RecordParser,
    iter_records,
)
from tldr.sources.cnndm import article_of_row
from tldr.sources.hub.catalog import CATALOG
from tldr.sources.hub.load import open_source

log = logging.getLogger(__name__)
R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class SourceSplit:
    """``NAME@SPLIT`` or ``FOLDER@SPLIT``."""

    source: str
    split: str

    def records(self, *, on_error: OnError = "stop", report: ReadReport | None = None) -> Iterator[Record]:
        """The records of the split.

        Args:
            on_error, report: as of `tldr.records.iter_records`.

        Raises:
            UsageError: there is no such source or split, or it cannot be fetched.
            RecordError: a bad row.
        """
        source = open_source(self.source)
        report = report if report is not None else ReadReport(Path(str(self)))
        for split in source.select(self.split):
            before, subreddits = report.good + len(report.bad), Counter[str]()
            for record in source.records(split, on_error=on_error, report=report):
                if isinstance(record, Post):
                    subreddits[record.subreddit] += 1
                yield record
            if source.known is not None:
                rows = report.good + len(report.bad) - before
                for warning in source.known.differences(split, rows, subreddits):
                    log.warning("%s: %s", source.name, warning)

    def read(self, kind: type[R], *, on_error: OnError = "stop", report: ReadReport | None = None) -> list[R]:
        """All records of the split, which must be of one kind.

        Raises:
            UsageError: as of `records`; or the split holds records of another kind, or none.
            RecordError: a bad row.
        """
        records = list(self.records(on_error=on_error, report=report))
        wrong = next((type(record).__name__ for record in records if not isinstance(record, kind)), None)
        if wrong is not None or not records:
            raise UsageError(
                f"holds {wrong} records, not {kind.__name__}" if wrong else "holds no record",
                where=str(self),
                remedy="name a split of the right kind: `tldr-lab data sources` lists what each holds",
            )
        return [record for record in records if isinstance(record, kind)]

    def __str__(self) -> str:
        return f"{self.source}@{self.split}"

    def identity(self, hash_file: Callable[[Path], str]) -> str:
        """What identifies the data: a folder's content, or a known source's revision.

        Args:
            hash_file: sha256 of a file.

        Raises:
            UsageError: there is no such source or split.
        """
        source = open_source(self.source)
        splits = source.select(self.split)
        if source.revision is not None:
            return f"{source.name}@{'+'.join(splits)} {source.revision}"
        return " ".join(
            f"{split}:{hash_file(source.folder / path)}" for split in splits for path in source.splits[split]
        )


def parse_place(text: str) -> SourceSplit | None:
    """The source and split that a setting names, or None where it is a plain file's path."""
    source, at, split = text.rpartition("@")
    return SourceSplit(source, split) if at and source and split and not Path(text).is_file() else None


def records_at(
    text: str | Path,
    kind: RecordParser[R],
    *,
    on_error: OnError = "stop",
    report: ReadReport | None = None,
) -> Iterator[Record]:
    """Records of a JSON-lines file, each of the given kind, or of a source's split, of any kind."""
    place = parse_place(str(text))
    if place is None:
        return iter_records(text, kind, on_error=on_error, report=report)
    return place.records(on_error=on_error, report=report)


def posts_at(text: str, *, on_error: OnError = "stop", report: ReadReport | None = None) -> list[Post]:
    """Posts of a JSON-lines file or of a source's split; see `tldr.inputs.posts.load_posts`."""
    place = parse_place(text)
    if place is None:
        return load_posts(text, on_error=on_error, report=report)
    return check_posts(place.read(Post, on_error=on_error, report=report), text)


def articles_at(text: str) -> list[Article]:
    """Articles of a JSON-lines file or of a source's split; see `tldr.inputs.posts.load_articles`.

    A known source has CNN/DM as published, which is cleaned here as `tldr-lab data cnndm` does. Articles of a
    file or folder are taken as they are.

    Raises:
        UsageError: as of `load_articles` and `SourceSplit.read`; or ftfy is missing.
    """
    place = parse_place(text)
    if place is None:
        return load_articles(text)
    articles = place.read(Article)
    if place.source in CATALOG:
        rows = ({"id": one.id, "article": one.article, "highlights": one.summary} for one in articles)
        articles = [article_of_row(row) for row in rows]
    return check_articles(articles, text)


def rankings_at(text: str, *, on_error: OnError = "stop", report: ReadReport | None = None) -> list[Ranking]:
    """Labels of a JSON-lines file or of a source's splits; see `tldr.inputs.posts.load_comparisons`."""
    place = parse_place(text)
    if place is None:
        return load_comparisons(text, on_error=on_error, report=report)
    rankings = []
    for row in place.read(Record, on_error=on_error, report=report):
        if isinstance(row, Comparison):
            row = Ranking.from_comparison(row)
        if not isinstance(row, Ranking):
            raise UsageError(
                f"holds {type(row).__name__} records, not comparisons",
                where=text,
                remedy="name a split of comparisons",
            )
        rankings.append(row)
    return rankings


def identity_at(text: str, hash_file: Callable[[Path], str]) -> str:
    """What identifies a setting's data: a plain file's hash, or `SourceSplit.identity`."""
    place = parse_place(text)
    return hash_file(Path(text)) if place is None else place.identity(hash_file)
