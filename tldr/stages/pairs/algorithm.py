"""Pairs of summaries to be scored: probes made by rule, and two samples of one policy labelled by workers."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tldr.records import Comparison, Info, Post
from tldr.stages.pairs.probes import Prober, as_comparison
from tldr.stages.shared.gold import gold_scores, has_gold
from tldr.stages.shared.sampling import Draw
from tldr.toy import edits, labelers
from tldr.toy.labelers import Candidate
from tldr.train.rng import derive


def probes(posts: list[Post], seed: int) -> Iterable[Comparison]:
    """Every probe of every post; in the toy world the planted edits too."""
    prober, rng = Prober(posts, seed), random.Random(derive(seed, "edits"))
    for post in posts:
        for name, pair in prober.pairs(post):
            yield as_comparison(post, name, pair)
        if has_gold([post]):
            for name, edit in edits.EDITS.items():
                yield as_comparison(post, name, edit(rng, post))


def label_same_policy(
    posts: Sequence[Post], drawn: Sequence[Sequence[Draw]], label: str, workers: int, rng: random.Random
) -> list[Comparison]:
    """The two samples of each post, labelled by several workers; equal texts make no pair.

    Args:
        label: name of the policy and its temperature.
    """
    rows: list[Comparison] = []
    for post, (a, b) in zip(posts, drawn, strict=True):
        if a.text.strip() == b.text.strip():
            continue
        first, second = (Candidate(draw.text, label, draw.stopped) for draw in (a, b))
        for worker in rng.sample(labelers.WORKERS, workers):
            row = labelers.compare(post, first, second, rng, worker=worker, batch=label, split="valid2")
            rows.append(row)
    return rows


SummaryKey = tuple[str, str]
"""A post's id and a summary of it."""
SummaryScores = dict[SummaryKey, dict[str, float]]
"""Scores by their names."""


@dataclass(frozen=True)
class DifferentSummaries:
    """Every different summary of each post, once.

    Attributes:
        infos: by the post's id.
        texts: by the post's id.
    """

    infos: dict[str, Info]
    texts: dict[str, list[str]]

    @classmethod
    def of(cls, pairs: Iterable[Comparison]) -> DifferentSummaries:
        """Those of some pairs, in the order in which they come."""
        infos, texts = {}, dict[str, dict[str, None]]()
        for pair in pairs:
            post = pair.info.id or ""
            infos[post] = pair.info
            texts.setdefault(post, {}).update((summary.text, None) for summary in pair.summaries)
        return cls(infos, {post: list(options) for post, options in texts.items()})

    @property
    def keys(self) -> list[SummaryKey]:
        """All of them, post by post."""
        return [(post, text) for post, options in self.texts.items() for text in options]


def add_gold(scores: SummaryScores, infos: dict[str, Info]) -> None:
    """Add the planted truth of every summary, where its post carries facts."""
    for (post, text), row in scores.items():
        if "facts" in (infos[post].model_extra or {}):
            row["gold"] = gold_scores(infos[post], text, stopped=True)["gold"]


def with_scores(pair: Comparison, scores: SummaryScores) -> Comparison:
    """The comparison with each summary's scores."""
    summaries = [
        summary.model_copy(update={"scores": scores[pair.info.id or "", summary.text]})
        for summary in pair.summaries
    ]
    return pair.model_copy(update={"summaries": summaries})
