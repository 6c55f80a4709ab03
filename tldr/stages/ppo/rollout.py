"""One PPO iteration's episodes: sampled, scored, and turned into advantages.

Everything here runs without gradients. Log-probabilities of the rollout, of the reference and of
the update are at the same temperature. Where what samples is what learns, in fp32, those of the rollout are
the ones it was drawn with; else (a copy, bf16, vLLM) they are computed again by the forward of the update
(`tldr.models.packed`), and the difference is logged. So the ratio of the first minibatch is 1, its KL is 0.
Several processes sample and score a share each; then all hold all episodes, so whitening and every
statistic are the whole batch's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tldr.mathematics.advantages import gae, reinforce_advantages, rloo_advantages
from tldr.mathematics.kl import sequence_kl
from tldr.mathematics.masking import whiten
from tldr.mathematics.rewards import apply_eos_rule, token_rewards
from tldr.models.packed import PackedBatch, response_logprobs, response_scores
from tldr.queries.formats import decode_response
from tldr.records import Post, Sample
from tldr.stages.ppo import PPORun
from tldr.stages.ppo.samplers import Sampler
from tldr.stages.ppo.settings import PPOSettings
from tldr.stages.shared.device import Device
from tldr.stages.shared.gold import gold_scores, has_gold
from tldr.stages.shared.sample_records import policy_name, to_sample
from tldr.stages.shared.sampling import Draw
from tldr.train.frozen import Frozen, LoraOff

SAMPLED = 8
"""Micro-batches sampled together: every step of the decode loop reads all weights, for few rows or many,
and needs no room for activations."""


@dataclass(frozen=True)
class Models:
    """The four networks of PPO (P 3.4): policy and value learn, reference and reward are frozen.

    Attributes:
        sampler: draws from the policy.
        trained: by the forward passes that training uses, of a batch's response tokens, (B,K,R) each:
            "values", and "logprobs" under the policy where those that the sampler tells are not these.
    """

    sampler: Sampler
    trained: Callable[[PackedBatch], dict[str, Tensor]]
    reference: Frozen | LoraOff
    reward: Frozen


@dataclass(frozen=True)
class Experience:
    """B queries with K responses of at most R tokens; per-token tensors are (B,K,R), 0 at padding.

    `scores` (B,K) are the reward model's, before any EOS rule; `drawn_logprobs` are what the sampler drew
    with, `logprobs` what the update's forward pass makes of the same tokens.
    """

    query: Tensor
    query_mask: Tensor
    response: Tensor
    response_mask: Tensor
    stopped: Tensor
    scores: Tensor
    drawn_logprobs: Tensor
    logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor

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
        """The episodes of some queries, without the columns that are padding in all of them."""
        part = self.map(lambda tensor: tensor[rows])
        width, length = part.batch.longest
        tensors = part.tensors()
        for name, tensor in tensors.items():
            if name in ("query", "query_mask"):
                tensors[name] = tensor[:, -width:]
            elif tensor.ndim == 3:  # per token
                tensors[name] = tensor[..., :length]
        return type(self)(**tensors)

    def gathered(self, accelerator: Accelerator) -> Experience:
        """All processes' episodes (as many each), in the order of the processes, in every process."""
        if accelerator.num_processes == 1:
            return self
        width = accelerator.gather(torch.tensor([self.response.shape[-1]], device=self.query.device)).max()
        wide = _widened(self.tensors(), int(width))
        return Experience(**{name: accelerator.gather(tensor.contiguous()) for name, tensor in wide.items()})


@dataclass(frozen=True)
class Rollout(Experience):
    """Episodes with what is learnt from them.

    `rewards` hold the KL penalty at every token and the score at the last real one.
    """

    rewards: Tensor
    advantages: Tensor
    returns: Tensor


@dataclass(frozen=True)
class Episodes:
    """How a share of an iteration's episodes is drawn.

    `uniform` (B,K,max_new_tokens) float64 holds every draw's random number, so an episode depends on
    its place in the batch alone, not on who samples it beside which others.
    """

    query: Tensor
    query_mask: Tensor
    uniform: Tensor


@torch.no_grad()
def collect(
    models: Models,
    episodes: Episodes,
    settings: PPOSettings,
    device: Device,
    micro_batch: int,
    pause: Callable[[], None],
) -> Experience:
    """Sample `settings.samples_per_query` responses a query and have the four networks judge them.

    Args:
        micro_batch: queries a forward pass; `SAMPLED` times as many are sampled at once.
        pause: called between forward passes; it may end the run.
    """
    order = episodes.query_mask.sum(-1).argsort(stable=True)  # like lengths together: less padding
    drawn = []
    for rows in torch.split(order, len(order) if models.sampler.schedules else SAMPLED * micro_batch):
        drawn.append(_sample(models.sampler, episodes, rows, settings.temperature))
        pause()
    width = max(part["response"].shape[-1] for part in drawn)
    query, query_mask = (part[order].to(device.device) for part in (episodes.query, episodes.query_mask))
    whole = {"query": query, "query_mask": query_mask, **_joined(drawn, width)}
    batch = PackedBatch(query, query_mask, whole["response"], whole["response_mask"])
    starts = range(0, len(batch), micro_batch)
    batches = [batch.select(slice(start, start + micro_batch)).trimmed() for start in starts]
    parts: list[dict[str, Tensor]] = []
    for batch in batches:
        with device.autocast():
            parts.append(models.trained(batch))
        pause()
    with models.reference.at_work() as call:
        for part, batch in zip(parts, batches, strict=True):
            with device.autocast():
                part["ref_logprobs"] = call(response_logprobs, batch, settings.temperature)
    with models.reward.at_work() as call:
        for part, batch in zip(parts, batches, strict=True):
            with device.autocast():
                part["scores"] = call(response_scores, batch)
    back = order.argsort()
    judged = {"logprobs": whole["drawn_logprobs"], **_joined(parts, width)}
    return Experience(**whole, **judged).map(lambda tensor: tensor[back])


def _joined(parts: Sequence[Mapping[str, Tensor]], width: int) -> dict[str, Tensor]:
    """Parts of a batch put together, their responses as wide as the widest."""
    wide = [_widened(part, width) for part in parts]
    return {name: torch.cat([part[name] for part in wide]) for name in wide[0]}


def _sample(sampler: Sampler, episodes: Episodes, rows: Tensor, temperature: float) -> dict[str, Tensor]:
    width = int(episodes.query_mask[rows].sum(-1).max())
    query, mask = episodes.query[rows, -width:], episodes.query_mask[rows, -width:]
    drawn = sampler.draw(query, mask, episodes.uniform[rows], temperature)
    return {
        "response": drawn.response,
        "response_mask": drawn.mask,
        "stopped": drawn.stopped,
        "drawn_logprobs": drawn.logprobs,
    }


_PER_TOKEN = {"response", "response_mask", "drawn_logprobs", "logprobs", "ref_logprobs", "values"}


def _widened(tensors: Mapping[str, Tensor], width: int) -> dict[str, Tensor]:
    """Per-token tensors padded to a common response width (their masks are False there)."""
    return {
        name: torch.nn.functional.pad(tensor, (0, width - tensor.shape[-1])) if name in _PER_TOKEN else tensor
        for name, tensor in tensors.items()
    }


@torch.no_grad()
def with_advantages(episodes: Experience, settings: PPOSettings, beta: float) -> Rollout:
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


def rollout_samples(
    ctx: PPORun,
    rollout: Rollout,
    tokenizer: PreTrainedTokenizerBase,
    posts: Sequence[Post],
    iteration: int,
) -> list[Sample]:
    """An iteration's episodes as samples, so that its logged KL can be computed again.

    Args:
        posts: of the rollout's queries.
        iteration: counted from 1.
    """
    rows = []
    mask, planted = rollout.response_mask, has_gold(posts)
    for b, post in enumerate(posts):
        for k in range(mask.shape[1]):
            ids = rollout.response[b, k][mask[b, k]].tolist()
            draw = Draw(ids, decode_response(tokenizer, ids)[0], bool(rollout.stopped[b, k]))
            gold = gold_scores(post, draw.text, draw.stopped) if planted else {}
            rows.append(
                to_sample(
                    ctx,
                    post.id,
                    draw,
                    policy_name(ctx, "ppo"),
                    temperature=ctx.settings.temperature,
                    logprob=float(rollout.logprobs[b, k].sum()),
                    logprob_sft=float(rollout.ref_logprobs[b, k].sum()),
                    scores={"rm": float(rollout.scores[b, k])} | gold,
                    tags={**ctx.tags, "iteration": iteration},
                )
            )
    return rows
