"""What is judged: the samples of some posts against their references, and whose labels a judge knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import floor

from tldr.judge.pairs import SummaryPair, first_by_hash
from tldr.label.batch import Wanted
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
