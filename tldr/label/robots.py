"""Simulated labelers of the toy world at the desk: the demo's colleagues, and the hands of tests.

A robot's answer depends on its worker, the item and a seed alone, not on the order shown or on when it
answers.
"""

from __future__ import annotations

import random

from tldr.label.answers import (
    ComparisonAnswer,
    DemonstrationAnswer,
    RankingAnswer,
    RatingAnswer,
    TaskAnswer,
)
from tldr.label.desk import Desk, Sent
from tldr.label.items import LabelItem
from tldr.label.labelers import Labeler
from tldr.records import Post
from tldr.toy import authors, labelers, world
from tldr.toy.labelers import Candidate


def robot_answer(item: LabelItem, worker: labelers.Worker, seed: int = 0) -> TaskAnswer:
    """What a simulated labeler answers, in the item's order.

    Raises:
        RecordError: the item's post carries no toy facts.
    """
    rng = random.Random(f"{seed}/{worker.name}/{item.id}")
    post = Post.model_validate({"subreddit": "", "title": "", **item.info.model_dump(exclude_unset=True)})
    candidates = [Candidate(summary.text, summary.policy) for summary in item.summaries]
    if item.kind == "comparison":
        compared = labelers.compare(post, candidates[0], candidates[1], rng, worker=worker)
        assert compared.extra.confidence is not None
        return ComparisonAnswer(confidence=compared.extra.confidence)
    if item.kind == "ranking":
        rank = labelers.rank(post, candidates, rng, worker=worker).rank
        return RankingAnswer(rank=[1 + sum(other < one for other in rank) for one in rank])
    if item.kind == "rating":
        axes = labelers.rate(post, candidates[0], rng, worker=worker).summary.axes
        return RatingAnswer.model_validate(
            {axis: int(value) for axis, value in axes.model_dump(exclude_none=True).items()}
        )
    return DemonstrationAnswer(summary=authors.reference(rng, world.facts_of(post), post.post))


def robot_labels(desk: Desk, who: Labeler, worker: labelers.Worker, answers: int) -> int:
    """Have a simulated labeler answer items at the desk.

    Returns:
        How many they answered; fewer than `answers` if nothing is left.
    """
    for done in range(answers):
        shown = desk.next(who)
        if shown is None:
            return done
        if shown.item.kind == "comparison" and desk.settings.naive_first and shown.before is None:
            shown = desk.interpret(who, shown.ticket, ["a summary", "another"])
        answer = robot_answer(shown.item, worker).shuffled(shown.order)
        raw = answer.model_dump(exclude={"notes", "interpretations"})
        desk.answer(who, Sent(shown.ticket, f"robot-{who.worker}-{shown.item.id}", 30.0), raw)
    return answers
