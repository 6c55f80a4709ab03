"""Reading post and label files, and the guard that keeps evaluation posts out of training."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

from tldr.errors import UsageError
from tldr.records import (
    Article,
    Comparison,
    Info,
    OnError,
    Post,
    Ranking,
    ReadReport,
    Record,
    iter_records,
    read_records,
)

log = logging.getLogger(__name__)


def load_posts(
    path: str | Path, *, on_error: OnError = "stop", report: ReadReport | None = None
) -> list[Post]:
    """All posts of a JSON-lines file; `on_error` and `report` as of `records.iter_records`.

    Raises:
        UsageError: no file, no post in it, or two different posts under one id.
        RecordError: a bad line, named ``file:line``.
    """
    posts = read_records(path, Post, on_error=on_error, report=report)
    _refuse_empty(path, posts, "post")
    return check_posts(posts, path)


def check_posts(posts: list[Post], where: str | Path) -> list[Post]:
    """The posts, after a check that every id has one body up to white space.

    Raises:
        UsageError: two different posts under one id.
    """
    by_id: dict[str, Post] = {}
    for post in posts:
        first = by_id.setdefault(post.id, post)
        if first.post != post.post and body_hash(first) != body_hash(post):
            raise UsageError(
                f"two different posts have the id '{post.id}'", where=where, remedy="make ids unique"
            )
    return posts


def comparison_or_ranking(data: dict[str, Any]) -> Ranking:
    """A label of either kind as a ranking: `choice` marks a Comparison, `rank` a Ranking."""
    if "choice" in data:
        return Ranking.from_comparison(Comparison.model_validate(data))
    return Ranking.model_validate(data)


def load_comparisons(
    path: str | Path, *, on_error: OnError = "stop", report: ReadReport | None = None
) -> list[Ranking]:
    """All labels of a file of Comparisons, Rankings or both, as rankings; `on_error` as of `load_posts`.

    Rows without `info.id` (OpenAI's edit batch) get ``h_`` and the body's hash as id, with a warning.

    Raises:
        UsageError: no file, or no label in it.
        RecordError: a bad line, named ``file:line``.
    """
    rankings = []
    unnamed = 0
    for ranking in iter_records(path, comparison_or_ranking, on_error=on_error, report=report):
        if ranking.info.id is None:
            unnamed += 1
            named = ranking.info.model_copy(update={"id": f"h_{body_hash(ranking.info)[:16]}"})
            ranking = ranking.model_copy(update={"info": named})
        rankings.append(ranking)
    _refuse_empty(path, rankings, "comparison")
    if unnamed:
        log.warning(
            "%s: %d of %d rows have no info.id; their ids are made from the body",
            path,
            unnamed,
            len(rankings),
        )
    return rankings


def load_articles(path: str | Path) -> list[Article]:
    """All articles of a JSON-lines file, each with its reference.

    Raises:
        UsageError: no file, no article in it, one without a reference, or a repeated id.
        RecordError: a bad line, named ``file:line``.
    """
    articles = read_records(path, Article)
    _refuse_empty(path, articles, "article")
    return check_articles(articles, path)


def check_articles(articles: list[Article], where: str | Path) -> list[Article]:
    """The articles, after a check that each has a reference and an id of its own.

    Raises:
        UsageError: one has no reference, or an id comes twice; with its place.
    """
    seen: set[str] = set()
    for number, article in enumerate(articles, start=1):
        if not (article.summary or "").strip():
            raise UsageError(
                f"article {article.id} has no reference",
                where=f"{where}:{number}",
                remedy="give its highlights as summary",
            )
        if article.id in seen:
            raise UsageError(
                f"two articles have the id '{article.id}'",
                where=f"{where}:{number}",
                remedy="make ids unique",
            )
        seen.add(article.id)
    return articles


def _refuse_empty(path: str | Path, records: list[Any], kind: str) -> None:
    if not records:
        raise UsageError(f"the file holds no {kind}", where=path, remedy="check that it is the right file")


def body_hash(record: Post | Article | Info) -> str:
    """SHA-256 of the text to summarize, with every run of white space replaced by one space.

    The public copies of the data differ only in white space (collapsed paragraph breaks, dropped leading
    spaces), so a post has the same hash in each.
    """
    body = getattr(record, "post", None) or getattr(record, "article", None) or ""
    return hashlib.sha256(" ".join(body.split()).encode()).hexdigest()


def post_keys(records: Iterable[Record]) -> frozenset[str]:
    """The ``id:`` and ``body:`` keys that identify the posts of posts, articles or labels."""
    keys = set()
    for record in records:
        source = getattr(record, "info", record)
        if not isinstance(source, Post | Article | Info):
            raise TypeError(f"{type(record).__name__} holds no post")
        keys.add(f"body:{body_hash(source)}")
        if source.id is not None:
            keys.add(f"id:{source.id}")
    return frozenset(keys)


def check_disjoint(training: Mapping[str, Set[str]], evaluation: Mapping[str, Set[str]]) -> None:
    """Refuse evaluation posts that are also trained on, by id or by body.

    Args:
        training, evaluation: name -> `post_keys` of the set.

    Raises:
        UsageError: naming every pair of overlapping sets, with one shared key each.
    """
    found = [
        f"{len(shared)} keys of '{test}' are in '{train}' (such as {min(shared)})"
        for train, trained in training.items()
        for test, tested in evaluation.items()
        if (shared := trained & tested)
    ]
    if found:
        raise UsageError(
            "evaluation posts are trained on: " + "; ".join(found),
            remedy="split by post: remove these posts from the training files",
        )
