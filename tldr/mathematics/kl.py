"""Kullback-Leibler divergence: estimators from samples, the adaptive coefficient, KL of best-of-n."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from tldr.errors import NonFiniteError, UsageError
from tldr.mathematics.masking import real_entries


def token_kl(
    logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, estimator: Literal["k1", "k2", "k3"]
) -> Tensor:
    """Estimate KL(pi || ref) at every token of responses sampled from pi.

    With d = log pi - log ref (Schulman 2020, "Approximating KL divergence"): k1 = d is unbiased and may
    be negative; k2 = d^2 / 2 is biased and has low variance; k3 = exp(-d) - 1 + d is unbiased and never
    negative.

    Args:
        logprobs: float (..., T), of the sampled tokens under pi, the policy that sampled them.
        ref_logprobs: float (..., T), of the same tokens under ref.
        mask: bool (..., T).
        estimator: which of the three.

    Returns:
        float (..., T), nats, 0 at padded positions.

    Raises:
        UsageError: the estimator is unknown, shapes differ, or the mask is not bool.
    """
    logprobs, ref_logprobs = real_entries(mask, logprobs=logprobs, ref_logprobs=ref_logprobs)
    difference = logprobs - ref_logprobs
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return 0.5 * difference**2
    if estimator == "k3":
        return torch.expm1(-difference) + difference
    raise UsageError(f"unknown estimator {estimator!r}", where="estimator", remedy="use k1, k2 or k3")


def sequence_kl(
    logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, estimator: Literal["k1", "k2", "k3"] = "k1"
) -> Tensor:
    """`token_kl` summed over each response: float (...), nats per response (the axis of P Fig. 5)."""
    return token_kl(logprobs, ref_logprobs, mask, estimator=estimator).sum(-1)


def adaptive_beta(beta: float, kl: float, *, target: float, horizon: int, episodes: int) -> float:
    """One step of Ziegler's controller (lm_human_preferences/train_policy.py).

    beta (1 + clip(kl / target - 1, -0.2, 0.2) episodes / horizon).

    Args:
        beta: the current KL coefficient.
        kl: measured mean KL(pi || SFT), nats per response.
        target: desired KL, nats per response.
        horizon: episodes after which an error of 1 would double beta.
        episodes: episodes since the last step (the rollout batch).

    Returns:
        The next coefficient.

    Raises:
        NonFiniteError: `kl` is NaN or infinite.
        UsageError: the horizon is too short for the batch: beta could reach 0 and stay there.
    """
    if not math.isfinite(kl):
        raise NonFiniteError(
            f"the measured KL is {kl}", where="adaptive_kl", remedy="lower the learning rate"
        )
    if 0.2 * episodes >= horizon:
        raise UsageError(
            f"horizon {horizon} is too short for {episodes} episodes per step: beta could fall to 0 or below",
            where="adaptive_kl.horizon",
            remedy=f"set it above {0.2 * episodes:g}",
        )
    error = min(max(kl / target - 1, -0.2), 0.2)
    return beta * (1 + error * episodes / horizon)
