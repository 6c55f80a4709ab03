"""What a batch of queries becomes in one PPO iteration: prompts, responses, episodes, a rollout.

::

    Prompts    queries, and the random numbers that their responses are drawn by
    Responses  what the policy wrote
    Episodes   the responses with what the four networks make of them
    Rollout    the episodes with rewards, advantages and returns

Everything here runs without gradients. Log-probabilities of the rollout, of the reference and of the update
are at the same temperature. Where the sampler is the policy itself in fp32, the rollout keeps the
log-probabilities that it was drawn with. Otherwise (a copy, bf16, vLLM) they are computed again by the
update's forward pass (`tldr.models.packed`), and the difference is logged. So the ratio of the first
minibatch is 1 and its KL is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from accelerate import Accelerator
from torch import Tensor

from tldr.mathematics.advantages import gae, reinforce_advantages, rloo_advantages
from tldr.mathematics.kl import sequence_kl
from tldr.mathematics.masking import whiten
from tldr.mathematics.rewards import apply_eos_rule, token_rewards
from tldr.models.packed import PackedBatch, response_logprobs, response_scores
from tldr.stages.ppo.samplers import Sampler
from tldr.stages.ppo.settings import PPOSettings
from tldr.stages.shared.device import Device
from tldr.train.frozen import Frozen, LoraOff

SAMPLED = 8
"""Micro-batches sampled together: each step of the decode loop reads all weights, for few rows or many, and
needs no room for activations."""


@dataclass(frozen=True)
class Prompts:
    """B queries to answer.

    Attributes:
        query, query_mask: (B,Q), left-padded.
        uniform: (B,K,R) float64 holds the random number of every draw, so a response depends on its place
            in the batch alone, not on which process samples it or what is sampled beside it.
    """

    query: Tensor
    query_mask: Tensor
    uniform: Tensor


@dataclass(frozen=True)
class Responses:
    """B queries with K responses of at most R tokens; per-token tensors are (B,K,R), 0 at padding.

    `stopped` (B,K) tells which ended with EOS. `drawn_logprobs` are those that the sampler drew with.
    """

    query: Tensor
    query_mask: Tensor
    response: Tensor
    response_mask: Tensor
    stopped: Tensor
    drawn_logprobs: Tensor

    @property
    def batch(self) -> PackedBatch:
        """What the forward passes take."""
        return PackedBatch(self.query, self.query_mask, self.response, self.response_mask)

    def __len__(self) -> int:
        return len(self.query)

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name."""
        return {part.name: getattr(self, part.name) for part in fields(self)}

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same with every tensor changed."""
        return type(self)(**{name: function(tensor) for name, tensor in self.tensors().items()})

    def select(self, rows: Tensor) -> Self:
        """The rows of some queries, without the columns that are padding in all of them."""
        part = self.map(lambda tensor: tensor[rows])
        width, length = part.batch.longest
        tensors = part.tensors()
        for name, tensor in tensors.items():
            if name in ("query", "query_mask"):
                tensors[name] = tensor[:, -width:]
            elif tensor.ndim == 3:  # per token
                tensors[name] = tensor[..., :length]
        return type(self)(**tensors)


@dataclass(frozen=True)
class Episodes(Responses):
    """Responses judged by the four networks.

    `scores` (B,K) are the reward model's, before any EOS rule. `logprobs` are the policy's by the update's
    forward pass, `ref_logprobs` the reference's, and `values` the value network's before each token.
    """

    scores: Tensor
    logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor

    def gathered(self, accelerator: Accelerator) -> Episodes:
        """All processes' episodes (as many from each), in the order of the processes, in every process."""
        if accelerator.num_processes == 1:
            return self
        width = accelerator.gather(torch.tensor([self.response.shape[-1]], device=self.query.device)).max()
        wide = _widened(self.tensors(), int(width))
        return Episodes(**{name: accelerator.gather(tensor.contiguous()) for name, tensor in wide.items()})


@dataclass(frozen=True)
class Rollout(Episodes):
    """Episodes with what is learnt from them.

    `rewards` hold the KL penalty at every token and the score at the last real one.
    """

    rewards: Tensor
    advantages: Tensor
    returns: Tensor


@dataclass(frozen=True)
class Judges:
    """What judges responses (P 3.4).

    Attributes:
        trained: figures of a batch's response tokens by the networks that learn, (B,K,R) each: "values", and
            "logprobs" under the policy where the sampler's are not these.
    """

    trained: Callable[[PackedBatch], dict[str, Tensor]]
    reference: Frozen | LoraOff
    reward: Frozen


@torch.no_grad()
def sample(
    sampler: Sampler,
    prompts: Prompts,
    *,
    temperature: float,
    micro_batch: int,
    device: Device,
    pause: Callable[[], None],
) -> Responses:
    """One response for each random number, in the order of the prompts.

    Args:
        micro_batch: queries a forward pass; `SAMPLED` times as many are sampled at once.
        pause: called between passes; it may end the run.
    """
    order = _by_length(prompts.query_mask)
    drawn = []
    for rows in torch.split(order, len(order) if sampler.schedules else SAMPLED * micro_batch):
        width = int(prompts.query_mask[rows].sum(-1).max())
        query, mask = prompts.query[rows, -width:], prompts.query_mask[rows, -width:]
        part = sampler.draw(query, mask, prompts.uniform[rows], temperature)
        drawn.append(
            {
                "response": part.response,
                "response_mask": part.mask,
                "stopped": part.stopped,
                "drawn_logprobs": part.logprobs,
            }
        )
        pause()
    width = max(part["response"].shape[-1] for part in drawn)
    back = order.argsort()
    query, query_mask = (part.to(device.device) for part in (prompts.query, prompts.query_mask))
    answered = {name: tensor[back] for name, tensor in _joined(drawn, width).items()}
    return Responses(query=query, query_mask=query_mask, **answered)


@torch.no_grad()
def judge(
    responses: Responses,
    judges: Judges,
    *,
    temperature: float,
    micro_batch: int,
    device: Device,
    pause: Callable[[], None],
) -> Episodes:
    """The responses with log-probabilities, values and scores, in the same order.

    Args:
        micro_batch: queries a forward pass.
        pause: as of `sample`.
    """
    order = _by_length(responses.query_mask)
    batch = responses.map(lambda tensor: tensor[order]).batch
    starts = range(0, len(batch), micro_batch)
    batches = [batch.select(slice(start, start + micro_batch)).trimmed() for start in starts]
    parts: list[dict[str, Tensor]] = []
    for part_batch in batches:
        with device.autocast():
            parts.append(judges.trained(part_batch))
        pause()
    with judges.reference.at_work() as call:
        for part, part_batch in zip(parts, batches, strict=True):
            with device.autocast():
                part["ref_logprobs"] = call(response_logprobs, part_batch, temperature)
    with judges.reward.at_work() as call:
        for part, part_batch in zip(parts, batches, strict=True):
            with device.autocast():
                part["scores"] = call(response_scores, part_batch)
    back = order.argsort()
    judged = {name: tensor[back] for name, tensor in _joined(parts, responses.response.shape[-1]).items()}
    return Episodes(**responses.tensors(), **{"logprobs": responses.drawn_logprobs, **judged})


def _by_length(query_mask: Tensor) -> Tensor:
    """Rows in the order of their queries' lengths: like lengths together need less padding."""
    return query_mask.sum(-1).argsort(stable=True)


def _joined(parts: Sequence[Mapping[str, Tensor]], width: int) -> dict[str, Tensor]:
    """Parts of a batch put together, their responses as wide as the widest."""
    wide = [_widened(part, width) for part in parts]
    return {name: torch.cat([part[name] for part in wide]) for name in wide[0]}


_PER_TOKEN = {"response", "response_mask", "drawn_logprobs", "logprobs", "ref_logprobs", "values"}


def _widened(tensors: Mapping[str, Tensor], width: int) -> dict[str, Tensor]:
    """Per-token tensors padded to a common response width (their masks are False there)."""
    return {
        name: torch.nn.functional.pad(tensor, (0, width - tensor.shape[-1])) if name in _PER_TOKEN else tensor
        for name, tensor in tensors.items()
    }


@torch.no_grad()
def with_advantages(episodes: Episodes, settings: PPOSettings, beta: float) -> Rollout:
    """Rewards, advantages and returns of all episodes of an iteration.

    Args:
        beta: the KL coefficient of this iteration.
    """
    mask = episodes.response_mask
    scores = apply_eos_rule(
        episodes.scores, episodes.stopped, missing=settings.eos.missing, value=settings.eos.value
    )
    rewards = token_rewards(scores, episodes.logprobs, episodes.ref_logprobs, mask, beta=beta)
    if settings.whiten_rewards:
        rewards = whiten(rewards, mask, shift_mean=False)
    advantages, returns = _advantages(settings, rewards, episodes.values, mask)
    if settings.whiten_advantages:
        advantages = whiten(advantages, mask, shift_mean=True)
    return Rollout(**episodes.tensors(), rewards=rewards, advantages=advantages, returns=returns)


def _advantages(
    settings: PPOSettings, rewards: Tensor, values: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
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
    `sampler_gap` is the mean distance, in nats a token, of what the sampler drew with from the policy.
    """
    mask = rollout.response_mask
    gap = (rollout.drawn_logprobs - rollout.logprobs).abs().sum() / mask.sum()
    kl = sequence_kl(rollout.logprobs, rollout.ref_logprobs, mask).mean().item()
    score = rollout.scores.mean().item()
    return {
        "score": score,
        "reward": score - beta * kl,
        "kl": kl,
        "length": mask.sum(-1).float().mean().item(),
        "eos_rate": rollout.stopped.float().mean().item(),
        "sampler_gap": gap.item(),
    }
