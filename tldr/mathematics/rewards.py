"""Per-token rewards for RL, from a reward-model score and two log-probabilities."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tldr.errors import UsageError
from tldr.mathematics.masking import real_entries, require_right_padded, widen


def last_real_token(mask: Tensor) -> Tensor:
    """Mark the end of each response: True only at its last real token.

    Args:
        mask: bool (..., T), right-padded.

    Returns:
        bool (..., T); all False in the row of an absent response.

    Raises:
        UsageError: the mask is not right-padded.
    """
    require_right_padded(mask)
    return mask & ~F.pad(mask[..., 1:], (0, 1))


def apply_eos_rule(
    scores: Tensor, stopped: Tensor, *, missing: Literal["none", "replace", "subtract"], value: float
) -> Tensor:
    """Apply the rule for responses without EOS; other scores do not change.

    The 2020 paper has no such rule ("none").

    Args:
        scores: float (...), the reward model's.
        stopped: bool (...), True where the response contains EOS.
        missing: "replace": the score becomes `value` (N+ detail 23; lm-human-preferences);
            "subtract": ``|value|`` is subtracted from the score (TRL's `missing_eos_penalty`).
        value: see `missing`, in units of the score.

    Returns:
        float (...).

    Raises:
        UsageError: the rule is unknown, or `stopped` is not bool or has another shape.
    """
    if stopped.dtype != torch.bool or stopped.shape != scores.shape:
        raise UsageError(
            f"stopped is {stopped.dtype} {tuple(stopped.shape)}, scores are {tuple(scores.shape)}",
            where="stopped",
            remedy="pass one bool per score",
        )
    scores = widen(scores)
    if missing == "none":
        return scores
    if missing == "replace":
        return scores.masked_fill(~stopped, value)
    if missing == "subtract":
        return torch.where(stopped, scores, scores - abs(value))
    raise UsageError(f"unknown rule {missing!r}", where="missing", remedy="use none, replace or subtract")


def token_rewards(
    scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, beta: float
) -> Tensor:
    """Per-token rewards: -beta (log pi - log pi_ref) on each token, plus the score on the last real one.

    Summed over a response this is R = r - beta log(pi / pi_SFT) of the paper (P 3.4) and of
    InstructGPT. The score belongs to the token that ends the episode; N+ and the former TRL PPO
    put it one position later, on padding.

    Args:
        scores: float (...), one per response, after the EOS rule.
        logprobs: float (..., T), of the sampling policy, at the sampling temperature.
        ref_logprobs: float (..., T), of the SFT policy at the same temperature.
        mask: bool (..., T), right-padded.
        beta: KL coefficient.

    Returns:
        float (..., T), 0 at padded positions; an absent response gets no reward.

    Raises:
        UsageError: shapes do not fit, or the mask is not a right-padded bool mask.
    """
    logprobs, ref_logprobs = real_entries(mask, logprobs=logprobs, ref_logprobs=ref_logprobs)
    if scores.shape != mask.shape[:-1]:
        raise UsageError(
            f"shape {tuple(scores.shape)}, but the mask has responses {tuple(mask.shape[:-1])}",
            where="scores",
            remedy="pass one score per response",
        )
    ends = torch.where(last_real_token(mask), widen(scores)[..., None], 0.0)
    return ends - beta * (logprobs - ref_logprobs)
