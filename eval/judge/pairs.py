"""The pairs to judge of samples and posts in files."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from eval.common.cells import one_world
from eval.common.io import join_by_post
from eval.common.pairs import REFERENCE
from tldr.errors import UsageError
from tldr.judge.pairs import SummaryPair, first_by_hash
from tldr.judge.prompt import JudgedText
from tldr.records import Article, Post


def pairs_to_judge(
    samples: pd.DataFrame, posts: pd.DataFrame, *, against: str = REFERENCE, limit: int | None = None
) -> list[SummaryPair]:
    """Every policy's samples against the post's reference, or another policy's sample of it.

    A policy sampled in several ways gives one policy each, named like ``sft-m-t0.7``.

    Args:
        samples, posts: as `eval.common.io.load_samples` and `eval.common.io.load_posts` give them.
        against: "reference", or one of the policies.
        limit: judge this many posts, the same for every policy, chosen by a hash of their ids;
            a higher limit only adds posts.

    Raises:
        UsageError: posts, references or samples of `against` are missing or ambiguous, or the samples are
            of several data seeds.
    """
    one_world(samples)
    named = samples.assign(policy=_names(samples)).drop_duplicates(["id", "policy", "cell", "text"])
    if limit is not None:
        named = named[named["id"].isin(first_by_hash(named["id"].unique(), limit))]
    others = _others(named, posts, against)
    rows = join_by_post(named[named["policy"] != against], posts, what="posts")
    rows = join_by_post(rows, others, what=f"samples of {against}" if against != REFERENCE else "references")
    if rows.empty:
        raise UsageError(f"no samples to set against {against}")
    return [
        SummaryPair(
            _source(row),
            (row["policy"], against),
            (row["text"], row["other_text"]),
            tuple(dict.fromkeys(run for run in (row["run"], row["other_run"]) if run)),
        )
        for row in rows.to_dict("records")
    ]


def _source(row: Mapping[Hashable, Any]) -> JudgedText:
    """The post, or the article: that has no subreddit (`eval.common.io.load_posts`)."""
    if pd.isna(row["subreddit"]):
        return Article(id=row["id"], article=row["post"])
    return Post(id=row["id"], subreddit=row["subreddit"], title=row["title"], post=row["post"])


def _others(samples: pd.DataFrame, posts: pd.DataFrame, against: str) -> pd.DataFrame:
    """By post id: ``other_text`` and ``other_run`` of what everything is set against."""
    if against == REFERENCE:
        references = posts["summary"].dropna()
        return pd.DataFrame({"other_text": references, "other_run": ""})
    chosen = samples[samples["policy"] == against]
    if chosen.empty:
        names = ", ".join(sorted(samples["policy"].unique()))
        raise UsageError(f"no samples of {against!r}", where="--against", remedy=f"choose from {names}")
    if chosen["id"].duplicated().any():
        raise UsageError(
            f"{against} has several samples of one post, from {', '.join(sorted(set(chosen['run'])))}",
            where="--against",
            remedy="give the samples of one of its runs",
        )
    return chosen.set_index("id")[["text", "run"]].add_prefix("other_")


def _names(samples: pd.DataFrame) -> pd.Series[str]:
    """The policies' names, with what tells several ways of sampling apart."""
    names = samples["policy"].copy()
    for column, letter in (("temperature", "t"), ("top_p", "p")):
        several = samples.groupby("policy")[column].transform("nunique") > 1
        names = names.where(
            ~several,
            names + "-" + letter + samples[column].map(lambda one: "?" if pd.isna(one) else f"{one:g}"),
        )
    return names
