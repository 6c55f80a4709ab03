"""Simulated labelers: the planted utility, seen through a worker's taste for length and noise.

A worker's noisy utility of a summary is u + bias * words + tau * Gumbel noise. The difference of two
Gumbel draws is logistic, so a comparison follows P(a over b) = sigmoid(du / tau), and a ranking of
K summaries implies the same law for each of its pairs.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from tldr.records import Axes, CandidateSummary, Comparison, Extra, Info, Post, RatedSummary, Ranking, Rating
from tldr.toy.gold import TAU, WEIGHTS, count, utility
from tldr.toy.world import facts_of, pieces

CONFIDENCE = (0.6, 1.4, 2.6)
"""Noisy utility gaps, in units of the worker's tau, from which an answer is one step surer."""
TIE = 0.1
"""Neighbours in a ranking closer than this many taus get the same place."""


@dataclass(frozen=True)
class Worker:
    """A labeler: noise scale (utility units) and liking for each further word."""

    name: str
    tau: float
    per_word: float

    def sees(self, post: Post | Info, summary: CandidateSummary, rng: random.Random) -> float:
        """Noisy utility of one summary."""
        stopped = (summary.model_extra or {}).get("stopped", True)
        value = utility(post, summary.text, stopped=bool(stopped)).overall
        gumbel = -math.log(-math.log(rng.random() or 1e-12))
        return value + self.per_word * len(pieces(summary.text)) + self.tau * gumbel


def make_workers(seed: int, number: int = 12) -> list[Worker]:
    """The same workers for the same seed; their noise is TAU times 0.6 .. 1.4."""
    rng = random.Random(f"workers-{seed}")
    return [
        Worker(f"w{index:02d}", TAU * rng.uniform(0.6, 1.4), rng.uniform(-0.01, 0.03)) for index in range(number)
    ]


@dataclass(frozen=True)
class Task:
    """Which batch and split a label belongs to."""

    batch: str
    split: str


def as_info(post: Post) -> Info:
    """A post as the `info` of a label, facts and all (OpenAI's rows carry the whole post too)."""
    return Info.model_validate(post.model_dump(exclude={"summary"}, exclude_unset=True))


def compare(
    post: Post, a: CandidateSummary, b: CandidateSummary, worker: Worker, rng: random.Random, task: Task
) -> Comparison:
    """One worker's choice between two summaries, with the signed 1-9 confidence (never 5)."""
    gap = worker.sees(post, b, rng) - worker.sees(post, a, rng)
    choice = int(gap > 0)
    strength = 1 + sum(abs(gap) / worker.tau >= limit for limit in CONFIDENCE)
    return Comparison.model_validate(
        {
            "info": as_info(post),
            "summaries": [a, b],
            "choice": choice,
            "worker": worker.name,
            "batch": task.batch,
            "split": task.split,
            "extra": Extra(confidence=5 + strength if choice else 5 - strength),
        }
    )


def rank(
    post: Post, summaries: Sequence[CandidateSummary], worker: Worker, rng: random.Random, task: Task
) -> Ranking:
    """One worker's order of K summaries, 1 = best; near neighbours tie."""
    seen = [worker.sees(post, summary, rng) for summary in summaries]
    order = sorted(range(len(seen)), key=lambda index: -seen[index])
    places = [0] * len(seen)
    place = 1
    for position, index in enumerate(order):
        if position and seen[order[position - 1]] - seen[index] >= TIE * worker.tau:
            place += 1
        places[index] = place
    return Ranking.model_validate(
        {
            "info": as_info(post),
            "summaries": list(summaries),
            "rank": places,
            "worker": worker.name,
            "batch": task.batch,
            "split": task.split,
        }
    )


def rate(post: Post, summary: CandidateSummary, worker: Worker, rng: random.Random, task: Task) -> Rating:
    """One worker's 1-7 marks on the paper's four axes; half a mark of noise on each."""
    stopped = bool((summary.model_extra or {}).get("stopped", True))
    marks = axis_marks(post, summary.text, stopped)
    noisy = {axis: min(7, max(1, round(mark + rng.gauss(0, 0.5 * worker.tau / TAU)))) for axis, mark in marks.items()}
    return Rating.model_validate(
        {
            "info": as_info(post),
            "summary": RatedSummary(text=summary.text, policy=summary.policy, note=summary.note, axes=Axes(**noisy)),
            "worker": worker.name,
            "batch": task.batch,
            "split": "train" if task.split == "train" else task.split,
        }
    )


def axis_marks(post: Post | Info, text: str, stopped: bool = True) -> dict[str, float]:
    """Noise-free 1-7 marks: coverage by the weight of the facts told, the others by their faults."""
    seen = count(facts_of(post), text)
    value = utility(post, text, stopped=stopped)
    full = sum(WEIGHTS.values())
    coverage = 1 + 6 * sum(WEIGHTS[slot] for slot in seen.covered) / full
    accuracy = 7 - 2.0 * sum(seen.wrong.values())
    coherence = max(1.0, 7 + 1.5 * value.coherence)
    overall = 1 + 6 / (1 + math.exp(-(value.overall - 2.5) / 1.5))
    return {
        "overall": overall,
        "coverage": coverage,
        "accuracy": max(1.0, accuracy),
        "coherence": coherence,
    }
