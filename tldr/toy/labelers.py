"""Simulated labelers: noisy readers of the planted utility.

A worker sees ``utility + bias * words + noise``, with Gumbel noise of scale TAU times the worker's
own carelessness. The difference of two such noises is logistic, so an unbiased worker of
carelessness 1 chooses with `gold.preference_probability` exactly, and rankings follow Plackett-Luce.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from tldr.records import Axes, CandidateSummary, Comparison, Extra, Info, Post, Ranking, RatedSummary, Rating
from tldr.toy.gold import TAU, WEIGHTS, WRONG, Utility, count, utility_of
from tldr.toy.world import facts_of

LabelSplit = Literal["train", "valid1", "valid2"]

STRENGTH = (0.8, 1.8, 3.2)
"""Noisy gaps, in units of TAU, at which the slider is 2, 3 and 4 steps from the middle."""
TIE = 0.25
"""Neighbours in a ranking closer than this, in units of TAU, are tied."""
RATING_NOISE = 0.5
"""Standard deviation of a rating, in Likert points."""


@dataclass(frozen=True)
class Worker:
    """One labeler: noise as a multiple of TAU, and extra utility per word of length."""

    name: str
    carelessness: float
    length_bias: float


WORKERS: tuple[Worker, ...] = tuple(
    Worker(f"worker-{i:02d}", 0.7 + 0.06 * i, 0.01 * ((7 * i) % 5 - 1)) for i in range(11)
)
"""Carelessness 0.7 to 1.3, mean 1; length bias -0.01 to 0.03 a word."""


@dataclass(frozen=True)
class Candidate:
    """A summary to label: its text, its policy, and whether it ended with EOS."""

    text: str
    policy: str
    stopped: bool = True

    def shown(self) -> CandidateSummary:
        """As the record holds it: the text begins with one space, as in OpenAI's files."""
        return CandidateSummary(text=" " + self.text.lstrip(" "), policy=self.policy)


def info_of(post: Post) -> Info:
    """The post as comparisons carry it, with its toy facts, from which gold utility is computed."""
    facts = dict(facts_of(post))
    return Info.model_validate(
        {"id": post.id, "subreddit": post.subreddit, "title": post.title, "post": post.post, "facts": facts}
    )


def _impressions(
    worker: Worker, post: Post, candidates: Sequence[Candidate], rng: random.Random
) -> list[float]:
    """The noisy utility that the worker perceives in each summary."""
    facts = facts_of(post)
    felt = []
    for candidate in candidates:
        true = utility_of(facts, candidate.text, candidate.stopped)
        words = count(facts, candidate.text).words
        gumbel = -math.log(rng.expovariate(1.0))
        felt.append(true.overall + worker.length_bias * words + TAU * worker.carelessness * gumbel)
    return felt


def compare(
    post: Post,
    a: Candidate,
    b: Candidate,
    rng: random.Random,
    *,
    worker: Worker | None = None,
    batch: str = "toy",
    split: LabelSplit = "train",
) -> Comparison:
    """One labeler's choice between two summaries, with the signed 1-9 slider (never 5; P C.1).

    Args:
        worker: None for a random one.

    Raises:
        RecordError: the post carries no toy facts.
    """
    worker = worker or rng.choice(WORKERS)
    felt_a, felt_b = _impressions(worker, post, (a, b), rng)
    strength = 1 + sum(abs(felt_a - felt_b) >= TAU * step for step in STRENGTH)
    choice: Literal[0, 1] = 0 if felt_a >= felt_b else 1
    return Comparison(
        info=info_of(post),
        summaries=[a.shown(), b.shown()],
        choice=choice,
        worker=worker.name,
        batch=batch,
        split=split,
        extra=Extra(confidence=5 + strength if choice else 5 - strength),
    )


def rank(
    post: Post,
    candidates: Sequence[Candidate],
    rng: random.Random,
    *,
    worker: Worker | None = None,
    batch: str = "toy",
    split: LabelSplit = "train",
) -> Ranking:
    """One labeler's order of K summaries, 1 = best; neighbours closer than `TIE` share a rank.

    Raises:
        RecordError: the post carries no toy facts.
    """
    worker = worker or rng.choice(WORKERS)
    felt = _impressions(worker, post, candidates, rng)
    order = sorted(range(len(felt)), key=lambda i: -felt[i])
    ranks = [1] * len(felt)
    for place, (above, here) in enumerate(pairwise(order), start=2):
        ranks[here] = ranks[above] if felt[above] - felt[here] < TAU * TIE else place
    return Ranking(
        info=info_of(post),
        summaries=[candidate.shown() for candidate in candidates],
        rank=ranks,
        worker=worker.name,
        batch=batch,
        split=split,
    )


def true_axes(u: Utility) -> dict[str, float]:
    """The four axes on the 1-7 scale before noise; 7 means nothing missing, wrong or clumsy."""
    whole = sum(WEIGHTS.values())
    return {
        "overall": 1 + 6 * (u.overall + 1) / (whole + 1.5),
        "accuracy": 7 + 2 * u.accuracy / WRONG,
        "coverage": 1 + 6 * u.coverage / whole,
        "coherence": 7 + 2 * u.coherence,
    }


def rate(
    post: Post,
    candidate: Candidate,
    rng: random.Random,
    *,
    worker: Worker | None = None,
    batch: str = "toy",
    split: LabelSplit = "valid2",
) -> Rating:
    """One labeler's 1-7 ratings on the paper's four axes.

    Raises:
        RecordError: the post carries no toy facts.
    """
    worker = worker or rng.choice(WORKERS)
    u = utility_of(facts_of(post), candidate.text, candidate.stopped)
    noisy = {
        axis: round(value + rng.gauss(0.0, RATING_NOISE * worker.carelessness))
        for axis, value in true_axes(u).items()
    }
    shown = candidate.shown()
    axes = Axes.model_validate({axis: min(max(value, 1), 7) for axis, value in noisy.items()})
    return Rating(
        info=info_of(post),
        summary=RatedSummary(text=shown.text, policy=shown.policy, axes=axes),
        worker=worker.name,
        batch=batch,
        split=split,
    )


def agreement(pairs: Sequence[tuple[Post, Candidate, Candidate]], rng: random.Random) -> float:
    """Share of pairs on which two different random workers agree (the paper: 72-77 %)."""
    alike = 0
    for post, a, b in pairs:
        first, second = rng.sample(WORKERS, 2)
        choices = [compare(post, a, b, rng, worker=worker).choice for worker in (first, second)]
        alike += choices[0] == choices[1]
    return alike / len(pairs)
