"""What is known of each epoch, and which one is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import mean

from tldr.records import Post, Sample
from tldr.stages.shared.epochs import Epoch
from tldr.stages.shared.gold import gold_scores, has_gold
from tldr.stages.shared.rouge import rouge_scores

MEASURES = ("rm", "rouge", "gold")
"""Scores of a summary whose means are told: the reward model's, ROUGE, and the toy world's planted truth."""


def with_scores(
    drawn: Sequence[Sequence[Sample]], rewards: Sequence[Sequence[float]], posts: Sequence[Post]
) -> list[list[Sample]]:
    """The summaries with their scores.

    Args:
        drawn: of each epoch, a summary of every post. rewards: of each post, the reward of every epoch's.
    """
    gold, found = has_gold(posts), []
    for place, rows in enumerate(drawn):
        rouge = rouge_scores(posts, [row.text for row in rows])
        scored = []
        for row, post, by_epoch, overlap in zip(rows, posts, rewards, rouge, strict=True):
            scores = {"rm": by_epoch[place], "rouge": overlap}
            if gold:
                scores |= gold_scores(post, row.text, row.stopped is not False)
            scored.append(row.model_copy(update={"scores": scores}))
        found.append(scored)
    return found


def means(epoch: Epoch, samples: Sequence[Sample]) -> dict[str, float | str]:
    """An epoch, and the mean scores of its summaries."""
    there = [name for name in MEASURES if name in samples[0].scores]
    return asdict(epoch) | {name: mean(row.scores[name] for row in samples) for name in there}


def chosen(rows: Sequence[Mapping[str, float | str]]) -> int:
    """The place of the epoch with the highest mean reward; the earliest one of a tie."""
    rewards = [float(row["rm"]) for row in rows]
    return rewards.index(max(rewards))
