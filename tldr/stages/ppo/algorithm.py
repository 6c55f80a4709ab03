"""PPO against a reward model (P 3.4, App. B.1), on networks and queries: it reads and writes no file.

    for each iteration:
        prompts    = the next queries
        responses  = sampled from the policy
        episodes   = responses judged by the reward model, the reference and the value network
        rollout    = per-token rewards (KL penalty, score at the last token), advantages and returns
        epochs times, for each minibatch: one clipped update of the policy and the value network

`PPO.iteration` is that, line by line; `tldr.stages.ppo.rollout` holds its first four lines,
`tldr.mathematics` the formulas. REINFORCE and RLOO go through the same iteration, with whole-episode
advantages and no value network. Several processes share each batch of queries. Each of them holds all
episodes, so statistics are the batch's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tldr.mathematics.kl import adaptive_beta
from tldr.mathematics.ppo import (
    policy_loss,
    policy_stats,
    ppo_loss,
    reinforce_loss,
    value_loss,
    value_stats,
)
from tldr.models.lora import add_lora
from tldr.models.packed import PackedBatch, response_logprobs, response_values
from tldr.settings.base import Precision, scalar
from tldr.stages.ppo.batches import ptx_texts, queries_a_pass, rollout_plan
from tldr.stages.ppo.networks import IterationProgress, Networks, Queries, Unsaved, add_value_head
from tldr.stages.ppo.rollout import (
    Episodes,
    Judges,
    Prompts,
    Responses,
    Rollout,
    judge,
    rollout_metrics,
    sample,
    with_advantages,
)
from tldr.stages.ppo.samplers import OwnSampler, Sampler
from tldr.stages.ppo.settings import PPOSettings
from tldr.stages.shared.batches import left_pad
from tldr.stages.shared.device import Device
from tldr.stages.shared.language import EncodedDocument, TextBatch, collate_documents, language_loss
from tldr.stages.shared.networks import as_model
from tldr.train.batching import micro_batches
from tldr.train.frozen import Frozen, LoraOff
from tldr.train.processes import make_accelerator
from tldr.train.rng import derive, generator, permutation
from tldr.train.stepper import Loss, Stepper

Metrics = dict[str, float]


@dataclass(frozen=True)
class MicroBatch:
    """A few queries' episodes and, for PPO-ptx, pretraining text beside them.

    `ptx_share` is this micro-batch's share of the minibatch's pretraining loss, times the tokens of
    the minibatch: the step divides by those (see `tldr.train.stepper.Loss`).
    """

    rollout: Rollout
    text: TextBatch | None = None
    ptx_share: float = 0.0


class PPO:
    """PPO on networks and queries.

    Args:
        settings: of one size.
        seed: every random draw derives from it.

    Attributes:
        plan: which queries an iteration asks.
        progress: see `IterationProgress`; a stage puts its training loop here.
        on_phase: told "sampled" and "scored" when that is finished, for timings.
        on_rollout: given the iteration (from 0) and its rollout, when the iteration ends.

    Raises:
        UsageError: the processes cannot share a batch.
    """

    def iteration(self, index: int) -> Metrics:
        """One iteration of PPO; its figures. Those named ``first_`` show that nothing had moved yet."""
        beta = self.progress.extra.get("beta", scalar(self.settings.beta))
        if self.progress.part == 0:
            self._keep(self.episodes(index))
        rollout = with_advantages(self._kept(), self.settings, beta)
        steps: list[Metrics] = self.progress.extra["done"]
        total = self.settings.epochs * self.settings.minibatches
        for step in range(len(steps), total):
            steps.append(self.stepper.step(self.loss, self.minibatch(rollout, index, step)))
            if step + 1 < total:
                self._pause(step + 1)
        self._forget()
        row = self._figures(rollout, steps, index, beta)
        if (control := self.settings.adaptive_kl) is not None:
            self.progress.extra["beta"] = adaptive_beta(
                beta, row["kl"], target=control.target, horizon=control.horizon, episodes=self.batch
            )
        self.on_rollout(index, rollout)
        return row

    def episodes(self, index: int) -> Episodes:
        """An iteration's prompts, answered by the policy and judged; each process does its share of them."""
        responses = self.sample(self.prompts(index))
        self.on_phase("sampled")
        episodes = self.judge(responses).gathered(self.accelerator)
        self.on_phase("scored")
        return episodes

    def prompts(self, index: int) -> Prompts:
        """This process's share of an iteration's queries, with the random numbers of their draws.

        The numbers are drawn for the whole batch and on the CPU, so they are the same whatever the
        processes and the device are.
        """
        rows = self.plan.batch(index)
        query, mask = left_pad([self.queries[row] for row in rows], self._asked.pad)
        shape = (len(rows), self.settings.samples_per_query, self._asked.response)
        uniform = torch.rand(shape, generator=generator(self.seed, "rollout", index), dtype=torch.float64)
        share = len(rows) // self.accelerator.num_processes
        mine = slice(share * self.accelerator.process_index, share * (self.accelerator.process_index + 1))
        return Prompts(query[mine], mask[mine], uniform[mine])

    def sample(self, prompts: Prompts) -> Responses:
        """`samples_per_query` responses to each query, from the policy as it is now."""
        self.sampler.update(as_model(self.stepper.modules["policy"]))
        return sample(
            self.sampler,
            prompts,
            temperature=self.settings.temperature,
            micro_batch=self.micro_batch,
            device=self.device,
            pause=self.progress.pause,
        )

    def judge(self, responses: Responses) -> Episodes:
        """The responses with the four networks' figures."""
        judges = Judges(lambda batch: self.stepper.call(self._trained, batch), self.reference, self.reward)
        return judge(
            responses,
            judges,
            temperature=self.settings.temperature,
            micro_batch=self.micro_batch,
            device=self.device,
            pause=self.progress.pause,
        )

    def _trained(self, parts: nn.ModuleDict, batch: PackedBatch) -> dict[str, Tensor]:
        """What the networks that learn make of a batch: values, and log-probabilities if the sampler's
        differ."""
        found = {"values": torch.zeros_like(batch.response_mask, dtype=torch.float32)}
        if (value := self.value_of(parts)) is not None:
            found["values"] = response_values(value, batch)
        if not self.sampler.exact:
            policy = as_model(parts["policy"])
            found["logprobs"] = response_logprobs(policy, batch, self.settings.temperature)
        return found

    def rollout(self, index: int, beta: float) -> Rollout:
        """An iteration's episodes with their rewards, advantages and returns."""
        return with_advantages(self.episodes(index), self.settings, beta)

    def minibatch(self, rollout: Rollout, index: int, step: int) -> list[MicroBatch]:
        """This process's share of the queries of one of an iteration's optimizer steps, by micro-batch.

        In every epoch the queries come in a fresh order, each in exactly one minibatch; its samples
        stay together.
        """
        epoch, place = divmod(step, self.settings.minibatches)
        size = len(rollout) // self.settings.minibatches
        rows = torch.split(permutation(len(rollout), self.seed, "minibatch", index, epoch), size)[place]
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        by_length = rows[rollout.query_mask.sum(-1).cpu()[rows].argsort(stable=True)]  # less padding
        parts = micro_batches(by_length.tolist(), self.micro_batch, rank, processes)
        selected = [rollout.select(torch.tensor(part)) for part in parts]
        if not self.settings.ptx_coef:
            return [MicroBatch(part) for part in selected]
        texts = self._ptx_texts(len(rows) * self.settings.samples_per_query, int(rows[0]), index, epoch)
        passes = len(parts) * processes
        mine = [texts[rank + i * processes :: passes] for i in range(len(parts))]
        batches = [collate_documents(part, self._asked.pad, 1.0) for part in mine]
        weight = sum(len(text.ids) - 1 for text in texts)
        tokens = float(rollout.response_mask[rows].sum())
        device = self.device.device
        return [
            MicroBatch(part, text.to(device), self.settings.ptx_coef * tokens / weight)
            for part, text in zip(selected, batches, strict=True)
        ]

    def _ptx_texts(self, episodes: int, first: int, index: int, epoch: int) -> list[EncodedDocument]:
        """`ptx_ratio` pretraining documents for each episode of the minibatch."""
        documents = self._asked.documents
        count = ptx_texts(self.settings, episodes)
        numbers = generator(self.seed, "ptx", index, epoch, first)
        return [documents[i] for i in torch.randint(len(documents), (count,), generator=numbers).tolist()]

    def loss(self, parts: nn.ModuleDict, batch: MicroBatch) -> Loss:
        """Clipped policy loss + vf_coef clipped value loss (+ PPO-ptx), summed over real tokens."""
        settings, rollout = self.settings, batch.rollout
        mask, policy = rollout.batch.response_mask, as_model(parts["policy"])
        logprobs, entropy = response_logprobs(policy, rollout.batch, settings.temperature, entropy=True)
        old = (logprobs, rollout.logprobs, rollout.advantages, mask)
        if settings.algorithm == "ppo":
            policy_term = policy_loss(*old, clip=settings.clip, count=1.0)
        else:
            policy_term = reinforce_loss(logprobs, rollout.advantages, mask, count=1.0)
        value_term, value_figures = self._value_loss(self.value_of(parts), rollout)
        text = None if batch.text is None else language_loss(parts, batch.text).total
        total = ppo_loss(policy_term, value_term, text, vf_coef=settings.vf_coef, ptx_coef=batch.ptx_share)
        tokens = mask.sum()
        moved = policy_stats(*old, clip=settings.clip)
        figures: dict[str, Tensor | float] = {
            "policy_loss": policy_term.detach(),
            "entropy": entropy.detach().sum(),
            "ratio": moved["ratio_mean"] * tokens,
            "approx_kl": moved["kl_k2"] * tokens,
            "clip_fraction": moved["clip_fraction"] * tokens,
        }
        if value_term is not None:
            figures["value_loss"] = value_term.detach()
            figures["value_clip_fraction"] = value_figures["clip_fraction"] * tokens
        if text is not None:
            figures["ptx_loss"] = batch.ptx_share / settings.ptx_coef * text.detach()
        return Loss(total, tokens, tokens=rollout.batch.tokens, stats=figures)

    def _value_loss(
        self, value: PreTrainedModel | None, rollout: Rollout
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        if value is None:
            return None, {}
        values = response_values(value, rollout.batch)
        old = (values, rollout.values, rollout.returns, rollout.batch.response_mask)
        clip = self.settings.value_clip
        return value_loss(*old, clip=clip, count=1.0), value_stats(*old, clip=clip)

    def value_of(self, modules: Mapping[str, nn.Module] | nn.ModuleDict) -> PreTrainedModel | None:
        """What estimates values: a network of its own, or the policy with its head."""
        if self.settings.algorithm != "ppo":
            return None
        return as_model(modules["policy" if self.settings.value_network == "shared" else "value"])

    def __init__(
        self,
        networks: Networks,
        queries: Queries,
        settings: PPOSettings,
        *,
        seed: int = 0,
        precision: Precision = "auto",
    ):
        self.settings, self.batch = settings, scalar(settings.batch)
        self.queries, self._asked = queries.tokens, queries
        self.seed = derive(seed, "ppo")
        self.accelerator, self.device = make_accelerator(precision), Device.open(precision)
        self.plan = rollout_plan(settings, len(queries.tokens), self.accelerator.num_processes, self.seed)
        self.sampler, self.stepper = self._learning(networks)
        self.reference = self._reference(networks)
        self.reward = self._frozen(networks.reward)
        self.progress: IterationProgress = Unsaved()
        self.on_phase: Callable[[str], None] = lambda name: None
        self.on_rollout: Callable[[int, Rollout], None] = lambda index, rollout: None

    def _learning(self, networks: Networks) -> tuple[Sampler, Stepper]:
        """What samples, and the networks that learn, placed; dropout is off in both of them."""
        settings, policy = self.settings, networks.policy
        add_lora(policy, settings.lora, derive(self.seed, "lora", "policy"))
        if networks.sampler is None:
            special = {"eos": self._asked.eos, "pad": self._asked.pad}
            sampler: Sampler = OwnSampler(policy, self.accelerator, self.device, **special)
        else:
            sampler = networks.sampler(self.accelerator, self.device)
        modules: dict[str, nn.Module] = {"policy": policy}
        if settings.value_network == "shared":
            add_value_head(policy)
        elif networks.value is not None:
            modules["value"] = networks.value
            add_lora(networks.value, settings.lora, derive(self.seed, "lora", "value"))
        value_lr = settings.value_lr
        lrs = {"value": scalar(value_lr)} if value_lr is not None and "value" in modules else {}
        return sampler, Stepper(self.accelerator, modules, settings, self.seed, lrs)

    def _reference(self, networks: Networks) -> Frozen | LoraOff:
        if networks.reference is None:
            return LoraOff(self.stepper, "policy")
        return self._frozen(networks.reference)

    def _frozen(self, load: Callable[[torch.dtype], PreTrainedModel]) -> Frozen:
        dtype = torch.bfloat16 if self.settings.frozen_dtype == "bf16" else torch.float32
        return Frozen(load(dtype), self.settings.frozen_place, self.device.device)

    @property
    def micro_batch(self) -> int:
        """Queries a forward pass: the setting, or a process's whole share of a minibatch."""
        return queries_a_pass(self.settings, int(self.accelerator.num_processes))

    def _keep(self, episodes: Episodes) -> None:
        """Keep the episodes with the run's state, so that a run stopped inside the iteration has them."""
        self.progress.tensors.update(episodes.tensors())
        self.progress.extra["done"] = []
        self._pause(0)

    def _kept(self) -> Episodes:
        return Episodes(**self.progress.tensors).map(lambda tensor: tensor.to(self.device.device))

    def _forget(self) -> None:
        self.progress.part = 0
        self.progress.tensors.clear()
        del self.progress.extra["done"]

    def _pause(self, steps: int) -> None:
        every = self.settings.save_steps
        self.progress.pause(steps + 1, due=every is not None and steps % every == 0)

    def _figures(self, rollout: Rollout, steps: Sequence[Metrics], index: int, beta: float) -> Metrics:
        row: Metrics = {
            "beta": beta,
            "episodes": float((index + 1) * self.batch),
            **rollout_metrics(rollout, beta),
        }
        if self.value_of(self.stepper.modules) is not None:
            values, mask, clip = rollout.values, rollout.response_mask, self.settings.value_clip
            spread = value_stats(values, values, rollout.returns, mask, clip=clip)
            row["explained_variance"] = float(spread["explained_variance"])
        row |= {f"first_{name}": steps[0][name] for name in ("ratio", "approx_kl")}
        return row | summarise(steps)


def summarise(steps: Sequence[Metrics]) -> Metrics:
    """Means over an iteration's steps; tokens add up, the learning rate is the last."""
    names = list(dict.fromkeys(name for step in steps for name in step))
    row = {name: sum(step[name] for step in steps) / len(steps) for name in names}
    return row | {
        "tokens": sum(step["tokens"] for step in steps),
        **{name: steps[-1][name] for name in names if name.startswith("lr")},
    }
