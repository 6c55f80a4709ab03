"""PPO's clipped losses (Schulman et al. 2017) and its diagnostics.

They follow lm_human_preferences/train_policy.py `loss`, with every mean over real tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tldr.mathematics.kl import token_kl
from tldr.mathematics.masking import masked_mean, masked_var, real_entries


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip: float,
    count: Tensor | float | None = None,
) -> Tensor:
    """Clipped surrogate: mean over real tokens of max(-A rho, -A clamp(rho, 1 - clip, 1 + clip)).

    For A >= 0 the maximum limits rho to at most 1 + clip, for A < 0 to at least 1 - clip. The upper
    limit is applied to log rho, so that a rho beyond float32 gives the limited loss and gradient 0
    instead of inf - inf.

    Args:
        logprobs: float (..., T), of the policy being trained.
        old_logprobs: float (..., T), of the sampling policy, at the same temperature.
        advantages: float (..., T).
        mask: bool (..., T).
        clip: half-width of the ratio's range.
        count: divisor instead of the number of real tokens; see `masked_mean`.

    Returns:
        float scalar.

    Raises:
        UsageError: shapes differ or the mask is not bool.
    """
    logprobs, old_logprobs, advantages = real_entries(
        mask, logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages
    )
    log_ratio = logprobs - old_logprobs
    gain = advantages >= 0
    capped = torch.where(gain, log_ratio.clamp(max=math.log1p(clip)), log_ratio).exp()
    ratio = torch.where(gain, capped, capped.clamp(min=1 - clip))
    return masked_mean(-advantages * ratio, mask, count=count)


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    *,
    clip: float,
    count: Tensor | float | None = None,
) -> Tensor:
    """Half the mean over real tokens of the larger of two squared errors: of the value and the clipped value.

    Args:
        values: float (..., T), of the value function being trained.
        old_values: float (..., T), at rollout; the clipped value stays within `clip` of them.
        returns: float (..., T), targets.
        mask: bool (..., T).
        clip: half-width of the value's range, in reward units.
        count: divisor instead of the number of real tokens; see `masked_mean`.

    Returns:
        float scalar.

    Raises:
        UsageError: shapes differ or the mask is not bool.
    """
    plain, clipped = _value_errors(values, old_values, returns, mask, clip)
    return 0.5 * masked_mean(torch.maximum(plain, clipped), mask, count=count)


def reinforce_loss(
    logprobs: Tensor, advantages: Tensor, mask: Tensor, *, count: Tensor | float | None = None
) -> Tensor:
    """REINFORCE's surrogate loss: minus the mean over real tokens of A log pi.

    Args:
        logprobs: float (..., T), of the policy being trained.
        advantages: float (..., T).
        mask: bool (..., T).
        count: divisor instead of the number of real tokens; see `masked_mean`.

    Returns:
        float scalar.

    Raises:
        UsageError: shapes differ or the mask is not bool.
    """
    logprobs, advantages = real_entries(mask, logprobs=logprobs, advantages=advantages)
    return masked_mean(-advantages * logprobs, mask, count=count)


def ppo_loss(
    policy: Tensor, value: Tensor | None, pretrain: Tensor | None, *, vf_coef: float, ptx_coef: float
) -> Tensor:
    """PPO's loss: policy + vf_coef value, and InstructGPT's pretraining term + ptx_coef pretrain.

    Args:
        policy: scalar `policy_loss`.
        value: scalar `value_loss`; None without a value function.
        pretrain: scalar `response_loss` on pretraining text, nats per token; None without such text.
            (InstructGPT prints gamma E[log pi(x)], gamma = 27.8, without saying if x counts per token.)

    Returns:
        float scalar.
    """
    total = policy if value is None else policy + vf_coef * value
    return total if pretrain is None else total + ptx_coef * pretrain


@torch.no_grad()
def policy_stats(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, *, clip: float
) -> dict[str, Tensor]:
    """Diagnostics of one policy update, each a scalar over real tokens only.

    Args: as `policy_loss`.

    Returns:
        clip_fraction: fraction of tokens with the clipped loss.
        kl_k1, kl_k2, kl_k3: estimates of KL(old || new) per token; lm-human-preferences' `approxkl`
            is k2.
        ratio_mean, ratio_min, ratio_max: of rho = pi / pi_old; exactly 1 on the first minibatch.

    Raises:
        UsageError: shapes differ or the mask is not bool.
    """
    logprobs, old_logprobs, advantages = real_entries(
        mask, logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages
    )
    ratio = (logprobs - old_logprobs).exp()
    clipped = torch.where(advantages > 0, ratio > 1 + clip, (advantages < 0) & (ratio < 1 - clip))
    return {
        "clip_fraction": masked_mean(clipped, mask),
        "kl_k1": masked_mean(token_kl(old_logprobs, logprobs, mask, estimator="k1"), mask),
        "kl_k2": masked_mean(token_kl(old_logprobs, logprobs, mask, estimator="k2"), mask),
        "kl_k3": masked_mean(token_kl(old_logprobs, logprobs, mask, estimator="k3"), mask),
        "ratio_mean": masked_mean(ratio, mask),
        "ratio_min": ratio.masked_fill(~mask, math.inf).min(),
        "ratio_max": ratio.masked_fill(~mask, -math.inf).max(),
    }


@torch.no_grad()
def value_stats(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, clip: float
) -> dict[str, Tensor]:
    """Diagnostics of one value update, each a scalar over real tokens only.

    Args: as `value_loss`.

    Returns:
        clip_fraction: fraction of tokens with the clipped loss.
        error: mean squared error of `values`.
        explained_variance: 1 - Var(returns - values) / Var(returns): 1 is perfect, 0 is no better than
            a constant. Undefined (NaN or -inf) for constant returns.

    Raises:
        UsageError: shapes differ or the mask is not bool.
    """
    plain, clipped = _value_errors(values, old_values, returns, mask, clip)
    values, returns = real_entries(mask, values=values, returns=returns)
    return {
        "clip_fraction": masked_mean(clipped > plain, mask),
        "error": masked_mean(plain, mask),
        "explained_variance": 1 - masked_var(returns - values, mask) / masked_var(returns, mask),
    }


def _value_errors(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float
) -> tuple[Tensor, Tensor]:
    values, old_values, returns = real_entries(mask, values=values, old_values=old_values, returns=returns)
    near = values.clamp(old_values - clip, old_values + clip)
    return (values - returns) ** 2, (near - returns) ** 2
