"""One PPO iteration's episodes: sampled, scored, and turned into advantages.

Everything here runs without gradients. Log-probabilities of the rollout, of the reference and of
the update come from the same forward (`tldr.models.packed`) at the same temperature, so the ratio
of the first minibatch is 1 and its KL is 0.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tldr.config import PPO
from tldr.mathematics.advantages import gae, reinforce_advantages, rloo_advantages
from tldr.mathematics.kl import sequence_kl
from tldr.mathematics.masking import whiten
from tldr.mathematics.rewards import apply_eos_rule, token_rewards
from tldr.models.generate import generate
from tldr.models.packed import PackedBatch, response_logprobs, response_scores, response_values
from tldr.stages.common import Device


@dataclass(frozen=True)
class Models:
    """The four networks of PPO (P 3.4): policy and value learn, reference and reward are frozen."""

    policy: PreTrainedModel
    value: PreTrainedModel | None
    reference: PreTrainedModel
    reward: PreTrainedModel


@dataclass(frozen=True)
class Rollout:
    """B queries with K responses of at most R tokens; per-token tensors are (B,K,R), 0 at padding.

    `scores` (B,K) are the reward model's, before any EOS rule; `rewards` hold the KL penalty at
    every token and the score at the last real one.
    """

    batch: PackedBatch
    stopped: Tensor
    scores: Tensor
    logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor
    rewards: Tensor
    advantages: Tensor
    returns: Tensor

    def select(self, rows: Tensor) -> Self:
        """The episodes of some queries."""
        tensors = {part.name: getattr(self, part.name)[rows] for part in fields(self) if part.name != "batch"}
        return type(self)(batch=self.batch.select(rows), **tensors)


@dataclass(frozen=True)
class Episodes:
    """How an iteration's episodes are drawn."""

    query: Tensor
    query_mask: Tensor
    eos_id: int
    pad_id: int
    max_new_tokens: int
    generator: torch.Generator


@torch.no_grad()
def collect(
    models: Models, episodes: Episodes, settings: PPO, beta: float, device: Device, micro_batch: int
) -> Rollout:
    """Sample `settings.samples_per_query` responses a query and compute all that the update needs.

    Args:
        beta: the KL coefficient of this iteration.
        micro_batch: queries a forward pass.
    """
    parts = []
    for start in range(0, len(episodes.query), micro_batch):
        with device.autocast():
            parts.append(_forward(models, episodes, slice(start, start + micro_batch), settings, device))
    width = max(part["response"].shape[-1] for part in parts)
    joined = {name: torch.cat([_widen(part[name], width, name) for part in parts]) for name in parts[0]}
    batch = PackedBatch(
        query=joined["query"],
        query_mask=joined["query_mask"],
        response=joined["response"],
        response_mask=joined["response_mask"],
    )
    mask = batch.response_mask
    scores = apply_eos_rule(
        joined["scores"], joined["stopped"], missing=settings.eos.missing, value=settings.eos.value
    )
    rewards = token_rewards(scores, joined["logprobs"], joined["ref_logprobs"], mask, beta=beta)
    if settings.whiten_rewards:
        rewards = whiten(rewards, mask, shift_mean=False)
    advantages, returns = _advantages(settings, rewards, joined["values"], mask)
    if settings.whiten_advantages:
        advantages = whiten(advantages, mask, shift_mean=True)
    return Rollout(
        batch=batch,
        stopped=joined["stopped"],
        scores=joined["scores"],
        logprobs=joined["logprobs"],
        ref_logprobs=joined["ref_logprobs"],
        values=joined["values"],
        rewards=rewards,
        advantages=advantages,
        returns=returns,
    )


def _forward(
    models: Models, episodes: Episodes, rows: slice, settings: PPO, device: Device
) -> dict[str, Tensor]:
    """Generate for some queries and run the four networks over what came out."""
    query = episodes.query[rows].to(device.device)
    query_mask = episodes.query_mask[rows].to(device.device)
    drawn = generate(
        models.policy,
        query,
        query_mask,
        n=settings.samples_per_query,
        max_new_tokens=episodes.max_new_tokens,
        temperature=settings.temperature,
        top_p=1.0,
        eos_id=episodes.eos_id,
        pad_id=episodes.pad_id,
        generator=episodes.generator,
    )
    batch = PackedBatch(query=query, query_mask=query_mask, response=drawn.response, response_mask=drawn.mask)
    logprobs = response_logprobs(models.policy, batch, temperature=settings.temperature)
    ref_logprobs = response_logprobs(models.reference, batch, temperature=settings.temperature)
    values = torch.zeros_like(logprobs) if models.value is None else response_values(models.value, batch)
    return {
        "query": query,
        "query_mask": query_mask,
        "response": drawn.response,
        "response_mask": drawn.mask,
        "stopped": drawn.stopped,
        "scores": response_scores(models.reward, batch),
        "logprobs": logprobs,
        "ref_logprobs": ref_logprobs,
        "values": values * drawn.mask,
    }


_PER_TOKEN = {"response", "response_mask", "logprobs", "ref_logprobs", "values"}


def _widen(tensor: Tensor, width: int, name: str) -> Tensor:
    """Pad per-token tensors to a common response width (their masks are False there)."""
    missing = width - tensor.shape[-1]
    return torch.nn.functional.pad(tensor, (0, missing)) if name in _PER_TOKEN and missing else tensor


def _advantages(settings: PPO, rewards: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """GAE for PPO; the two baselines without a value network have no returns."""
    if settings.algorithm == "ppo":
        return gae(rewards, values, mask, gamma=settings.gamma, lam=settings.lam)
    if settings.algorithm == "rloo":
        return rloo_advantages(rewards, mask), torch.zeros_like(rewards)
    return reinforce_advantages(rewards, mask, gamma=settings.gamma), torch.zeros_like(rewards)


def rollout_metrics(rollout: Rollout, beta: float) -> dict[str, float]:
    """What an iteration's episodes looked like; KL in nats a response, length in tokens.

    `kl` is the mean over episodes of log pi - log pi_SFT at the rollout temperature (estimator k1),
    the paper's KL axis; `reward` is the score, after no rule and before any whitening, minus beta kl.
    """
    mask = rollout.batch.response_mask
    kl = sequence_kl(rollout.logprobs, rollout.ref_logprobs, mask).mean().item()
    score = rollout.scores.mean().item()
    return {
        "score": score,
        "reward": score - beta * kl,
        "kl": kl,
        "length": mask.sum(-1).float().mean().item(),
        "eos_rate": rollout.stopped.float().mean().item(),
    }
