"""Which questions are worth a label: those about which reward models know the least.

Uncertainty is that of the models together, disagreement that between them (Lakshminarayanan et al. 2017).
Together they are the variance of one answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, combinations
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tldr.errors import UsageError
from tldr.records import Article, Post
from tldr.stages.labels import LabelsRun
from tldr.stages.shared.judging import reward_scores

T = TypeVar("T")


def win_probabilities(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(the first of a pair is preferred) = sigmoid of the scores' difference, for all pairs of K summaries.

    Args:
        scores: (..., K), K at least 2.

    Returns:
        (..., K(K-1)/2), pairs (0, 1), (0, 2), ..., (1, 2), ...
    """
    first, second = np.array(list(combinations(range(scores.shape[-1]), 2))).T
    probabilities: NDArray[np.float64] = 1 / (1 + np.exp(-(scores[..., first] - scores[..., second])))
    return probabilities


def uncertainty(scores: NDArray[np.float64]) -> float:
    """Mean over the pairs of p (1 - p), where p is the models' mean probability: at most 1/4.

    Args:
        scores: (M, K) of M reward models for K summaries.
    """
    p = win_probabilities(scores).mean(axis=0)
    return float((p * (1 - p)).mean())


def disagreement(scores: NDArray[np.float64]) -> float:
    """Mean over the pairs of the variance of the models' probabilities.

    Args:
        scores: (M, K) of M reward models for K summaries.
    """
    return float(win_probabilities(scores).var(axis=0).mean())


MEASURES: dict[str, Callable[[NDArray[np.float64]], float]] = {
    "uncertainty": uncertainty,
    "disagreement": disagreement,
}
"""`LabelsSettings.choose_by` -> what is high where a label tells much."""


def highest(values: Sequence[float], count: int) -> list[int]:
    """The places of the `count` highest values, in their order; of equal values the first are taken."""
    order = sorted(range(len(values)), key=lambda place: -values[place])
    return sorted(order[:count])


def most_telling(
    ctx: LabelsRun,
    candidates: Sequence[T],
    count: int,
    shown: Callable[[T], tuple[Post | Article, list[str]]],
) -> list[T]:
    """The candidates, in their order, about which the run's reward models know the least (`choose_by`).

    Args:
        shown: the post and the summaries of a candidate.

    Raises:
        UsageError: the run has no reward models, or one alone, which cannot disagree.
    """
    by = ctx.settings.choose_by
    assert by is not None
    if not (models := list(ctx.inputs.rewards.values())) or (by == "disagreement" and len(models) < 2):
        raise UsageError(
            f"{len(models)} reward models to choose questions by {by}",
            where="labels.choose_by",
            remedy="give at least " + ("two" if by == "disagreement" else "one"),
        )
    pairs = [shown(candidate) for candidate in candidates]
    posts = list(chain.from_iterable([post] * len(texts) for post, texts in pairs))
    texts = [text for _, own in pairs for text in own]
    ends = np.cumsum([len(own) for _, own in pairs])[:-1]
    every = []
    for model in models:
        scores = reward_scores(model, ctx.lengths, ctx.precision, shared=True, cut=True)(posts, texts)
        every.append(np.split(np.array(scores), ends))
    values = [MEASURES[by](np.stack(scores)) for scores in zip(*every, strict=True)]
    return [candidates[place] for place in highest(values, count)]
