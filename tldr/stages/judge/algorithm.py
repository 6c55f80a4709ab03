"""What is judged: the samples of some posts against their references, and whose labels a judge knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from math import floor

import numpy as np

from tldr.judge.pairs import SummaryPair, first_by_hash
from tldr.label.batch import Wanted
from tldr.measures.best_of_n import doublings, first_best, pool_choosers
from tldr.records import Post, Sample
from tldr.stages.judge.settings import JudgeSettings

REFERENCE = "reference"


def judged_posts(posts: Sequence[Post], count: int) -> list[Post]:
    """The `count` posts with the smallest hash of their id, so that more posts only add to fewer.

    The same order as ``tldr-lab judge --limit`` has.
    """
    by_id = {post.id: post for post in posts}
    return [by_id[id] for id in first_by_hash(by_id, count)]


def wanted_of(items: int, settings: JudgeSettings) -> Wanted:
    """The answers of people to wait for, of so many questions."""
    return Wanted(
        {"valid2": max(1, floor(items * (1 - settings.unanswered)))}, settings.page.labelers_per_item
    )


def pairs_against_reference(
    samples: Mapping[str, Iterable[Sample]], posts: Sequence[Post]
) -> list[SummaryPair]:
    """Every run's samples of the posts, each against the reference of its post.

    Equal texts of one post, policy and way of sampling in several runs are one pair that names all of
    them: a policy that several reward models scored has one run of samples for each.

    Args:
        samples: name of a run -> its samples. Those of other posts are left out.
    """
    by_id = {post.id: post for post in posts}
    found: dict[tuple[str, str, str], list[str]] = {}
    for run, rows in samples.items():
        for row in rows:
            if row.id in by_id:
                runs = found.setdefault((row.id, way_of(row), row.text), [])
                runs += [run] if run not in runs else []
    return [
        SummaryPair(by_id[post], (policy, REFERENCE), (text, by_id[post].summary or ""), tuple(runs))
        for (post, policy, text), runs in found.items()
    ]


def way_of(sample: Sample) -> str:
    """The policy and its way of sampling, ``sft-m-t0.7-p1``, which means no other in a study."""
    return f"{sample.policy}-t{sample.temperature:g}-p{sample.top_p:g}"


def best_texts(pool: Iterable[Sample]) -> dict[str, list[str]]:
    """By post the different texts that are the best of the first n samples, for each n and chooser of a pool.

    Texts that differ in white space at their ends alone are one.

    Args:
        pool: the samples of a post one after another, in the order in which they were drawn.
    """
    return {post: _best_of_post(list(rows)) for post, rows in groupby(pool, key=lambda row: row.id)}


def _best_of_post(rows: list[Sample]) -> list[str]:
    scores = [row.scores | ({} if row.tokens is None else {"length": float(row.tokens)}) for row in rows]
    choice = np.array([[row[name] for row in scores] for name in pool_choosers(scores[0])], dtype=np.float64)
    places = first_best(choice, doublings(len(rows))).ravel()
    texts: dict[str, str] = {}
    for place in places.tolist():
        texts.setdefault(rows[place].text.strip(), rows[place].text)
    return list(texts.values())


def pool_pairs(
    name: str, run: str, texts: Mapping[str, list[str]], posts: Sequence[Post]
) -> list[SummaryPair]:
    """Each of a pool's best texts of the posts against the reference.

    Args:
        name: of the pool, which the verdicts name as the policy ``pool-<name>``. run: that drew it.
        texts: as `best_texts` gives them.
    """
    return [
        SummaryPair(post, (f"pool-{name}", REFERENCE), (text, post.summary or ""), (run,))
        for post in posts
        for text in texts[post.id]
    ]
