"""Advantages and returns from per-token rewards."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tldr.errors import UsageError
from tldr.mathematics.masking import real_entries, require_right_padded


def discounted_sum(values: Tensor, factor: float) -> Tensor:
    """sum_k factor^k values[..., t + k] at every t.

    Computed by doubling: log2(T) elementwise steps instead of T. There is no matrix product whose
    precision autocast or TF32 could reduce, and appended zeros change no bit.

    Args:
        values: float (..., T).
        factor: discount per step.

    Returns:
        float (..., T).
    """
    step = 1
    while step < values.shape[-1]:
        values = values + factor**step * F.pad(values[..., step:], (0, step))
        step *= 2
    return values


def gae(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016); the paper uses gamma 1, lambda 0.95.

    delta_t = r_t + gamma V_{t+1} - V_t and A_t = sum_k (gamma lambda)^k delta_{t+k}. The episode
    ends with the last real token: the value after it is 0.

    Args:
        rewards: float (..., T).
        values: float (..., T), V_t of the state before token t.
        mask: bool (..., T), right-padded.
        gamma: discount per token.
        lam: lambda of GAE.

    Returns:
        advantages: float (..., T), not whitened, 0 at padded positions.
        returns: float (..., T), advantages + values: the value function's targets.

    Raises:
        UsageError: shapes differ, or the mask is not a right-padded bool mask.
    """
    rewards, values = real_entries(mask, rewards=rewards, values=values)
    require_right_padded(mask)
    delta = rewards + gamma * F.pad(values[..., 1:], (0, 1)) - values
    advantages = discounted_sum(delta, gamma * lam)
    return advantages, advantages + values


def reinforce_advantages(rewards: Tensor, mask: Tensor, *, gamma: float) -> Tensor:
    """REINFORCE (Williams 1992): the discounted reward-to-go, without a baseline.

    `whiten` over the batch subtracts the usual baseline, the mean.

    Args:
        rewards: float (..., T).
        mask: bool (..., T), right-padded.
        gamma: discount per token.

    Returns:
        float (..., T), 0 at padded positions.

    Raises:
        UsageError: shapes differ, or the mask is not a right-padded bool mask.
    """
    (rewards,) = real_entries(mask, rewards=rewards)
    require_right_padded(mask)
    return discounted_sum(rewards, gamma)


def rloo_advantages(rewards: Tensor, mask: Tensor) -> Tensor:
    """REINFORCE leave-one-out (Ahmadian et al. 2024): the baseline is the mean of the query's other samples.

    The whole response is one action: its reward is the sum over its tokens (KL penalty included), and
    every real token has the advantage A_i = R_i - mean_{j != i} R_j.

    Args:
        rewards: float (B, K, T), K samples of each query.
        mask: bool (B, K, T).

    Returns:
        float (B, K, T), 0 at padded positions.

    Raises:
        UsageError: shapes differ, a query has fewer than 2 samples, or a response is absent.
    """
    (rewards,) = real_entries(mask, rewards=rewards)
    if mask.dim() != 3 or mask.shape[1] < 2 or not mask.any(-1).all():
        raise UsageError(
            f"cannot leave one out of rewards with shape {tuple(mask.shape)}",
            where="rloo_advantages",
            remedy="pass (B, K, T) with K >= 2 samples per query, each with at least one token",
        )
    total = rewards.sum(-1, keepdim=True)
    siblings = (total.sum(1, keepdim=True) - total) / (mask.shape[1] - 1)
    return (total - siblings) * mask
