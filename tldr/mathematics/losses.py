"""Losses of supervised fine-tuning and of the reward model."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tldr.mathematics.masking import masked_mean, real_entries


def response_loss(
    logprobs: Tensor, mask: Tensor, *, weights: Tensor | None = None, count: Tensor | float | None = None
) -> Tensor:
    """Cross-entropy: minus the (weighted) mean log-probability of the real tokens.

    The mean is over the batch's tokens, so a long response weighs more than a short one.

    Args:
        logprobs: float (..., T), of the response's tokens.
        mask: bool (..., T).
        weights: float (..., T) >= 0, weight of each token; None: 1.
        count: divisor instead of the sum of the real tokens' weights; see `masked_mean`.

    Returns:
        float scalar, nats per token.

    Raises:
        UsageError: shapes differ or the mask is not bool.
    """
    if weights is None:
        return masked_mean(-logprobs, mask, count=count)
    logprobs, weights = real_entries(mask, logprobs=logprobs, weights=weights)
    return -(weights * logprobs).sum() / (weights.sum() if count is None else count)


def ordered_pairs(ranks: Tensor, mask: Tensor) -> Tensor:
    """The pairs of each prompt's summaries in which one is preferred.

    Args:
        ranks: int (B, K), 1 = best; equal numbers are ties.
        mask: bool (B, K), False where a prompt has fewer than K summaries.

    Returns:
        bool (B, K, K), True at [b, i, j] if both exist and i is preferred to j: each pair
        appears once, ties never. ``.any((1, 2)).sum()`` is the `count` of `kway_loss`.

    Raises:
        UsageError: shapes differ or the mask is not bool.
    """
    (ranks,) = real_entries(mask, ranks=ranks)
    return (ranks[:, :, None] < ranks[:, None, :]) & mask[:, :, None] & mask[:, None, :]


def kway_loss(scores: Tensor, ranks: Tensor, mask: Tensor, *, count: Tensor | float | None = None) -> Tensor:
    """InstructGPT's reward-model loss: all pairs of a prompt are one batch element.

    A prompt's loss is the mean of -log sigma(r_better - r_worse) over its C(K, 2) pairs without ties.
    The batch's loss is the mean over the prompts that have such a pair (Ouyang et al. 2022, 3.5).
    With K = 2 this is the paper's pairwise loss -log sigma(r_chosen - r_rejected) (P 3.4).

    Args:
        scores: float (B, K).
        ranks: int (B, K), 1 = best.
        mask: bool (B, K), False where there is no summary.
        count: divisor instead of the number of prompts with a pair; see `masked_mean`.

    Returns:
        float scalar; NaN if no prompt has a pair and no `count` is given.

    Raises:
        UsageError: shapes differ or the mask is not bool.
    """
    (scores,) = real_entries(mask, scores=scores)
    better = ordered_pairs(ranks, mask)
    losses = -F.logsigmoid(scores[:, :, None] - scores[:, None, :]).masked_fill(~better, 0.0)
    pairs = better.sum((1, 2))
    return masked_mean(losses.sum((1, 2)) / pairs.clamp(min=1), pairs > 0, count=count)


def pair_accuracy(scores: Tensor, ranks: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Number of each prompt's pairs that the scores order like the labeler; equal scores count half.

    Args:
        scores: float (B, K).
        ranks: int (B, K), 1 = best; ties do not count as pairs.
        mask: bool (B, K).

    Returns:
        correct: float (B,).
        pairs: int64 (B,). Accuracy over comparisons is ``correct.sum() / pairs.sum()``.

    Raises:
        UsageError: shapes differ or the mask is not bool.
    """
    (scores,) = real_entries(mask, scores=scores)
    better = ordered_pairs(ranks, mask)
    sign = (scores[:, :, None] - scores[:, None, :]).sign()
    return ((sign + 1) / 2).masked_fill(~better, 0.0).sum((1, 2)), better.sum((1, 2))
