"""PPO against the reward model, as in the paper (3.4, App. B.1), with named options beside it.

One iteration: sample episodes (`rollout.collect`), then `epochs` passes over them in minibatches.
Policy and value function are separate networks with an optimizer each; the reference is the frozen
SFT model. REINFORCE and RLOO use the same loop with whole-episode advantages and no value network.
Several processes share each batch of queries; all of them hold all episodes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tldr.errors import UsageError
from tldr.mathematics.kl import adaptive_beta
from tldr.mathematics.ppo import policy_loss, policy_stats, value_loss, value_stats
from tldr.models.ladder import load_policy, save_policy
from tldr.models.lora import add_lora
from tldr.models.packed import PackedBatch, response_logprobs, response_values
from tldr.models.reward import load_reward, save_reward, value_from_reward
from tldr.records import Sample, read_records, write_records
from tldr.settings.base import scalar
from tldr.stages.ppo import PPORun
from tldr.stages.ppo.rollout import (
    Episodes,
    Experience,
    Models,
    Rollout,
    collect,
    rollout_metrics,
    rollout_samples,
    with_advantages,
)
from tldr.stages.ppo.samplers import OwnSampler, Sampler, VLLMSampler
from tldr.stages.shared.batches import left_pad
from tldr.stages.shared.corpus import read_corpus
from tldr.stages.shared.device import Device
from tldr.stages.shared.language import (
    EncodedDocument,
    TextBatch,
    collate_documents,
    encode_documents,
    language_loss,
)
from tldr.stages.shared.networks import as_model, checkpoint_folder
from tldr.stages.shared.posts import encode_posts, read_posts
from tldr.stages.shared.tokenizers import eos_id, open_tokenizer, pad_id
from tldr.train.batching import BatchPlan, micro_batches
from tldr.train.frozen import Frozen, LoraOff
from tldr.train.loop import TrainLoop
from tldr.train.processes import make_accelerator
from tldr.train.rng import derive, generator, permutation
from tldr.train.stepper import Loss, Stepper

Metrics = dict[str, float]
ROLLOUTS = "rollouts"


@dataclass(frozen=True)
class MicroBatch:
    """A few queries' episodes and, for PPO-ptx, pretraining text beside them.

    `ptx_share` is this micro-batch's share of the minibatch's pretraining loss, times the tokens of
    the minibatch: the step divides by those (see `tldr.train.stepper.Loss`).
    """

    rollout: Rollout
    text: TextBatch | None = None
    ptx_share: float = 0.0


class PPOStage:
    """The networks and data of one PPO run, and what an iteration does with them.

    Raises:
        UsageError: the processes cannot share a batch.
    """

    def __init__(self, ctx: PPORun):
        self.ctx, self.settings = ctx, ctx.settings
        self.batch = scalar(ctx.settings.batch)
        self.seed = derive(ctx.seed, "ppo")
        self.accelerator = make_accelerator(ctx.precision)
        self.device = Device.open(ctx.precision)
        self.tokenizer: PreTrainedTokenizerBase = open_tokenizer(ctx.inputs.policy)
        self.posts = read_posts(ctx.inputs.data, "ppo")
        self.queries = encode_posts(self.tokenizer, self.posts, ctx.lengths)
        # On the CPU until the stepper places it: whole it may be too large for the device.
        policy = load_policy(checkpoint_folder(ctx.inputs.policy))
        self.documents = self._documents(int(policy.config.max_position_embeddings))
        add_lora(policy, self.settings.lora, derive(self.seed, "lora", "policy"))
        self.sampler = self._sampler(policy)
        self.stepper = self._stepper(policy)
        self.reference = self._reference()
        self.reward = self._frozen(load_reward, ctx.inputs.reward)
        queries = self.batch // self.settings.samples_per_query
        processes, parts = self.accelerator.num_processes, self.settings.minibatches
        if queries % processes or queries // parts < processes:
            raise UsageError(
                f"{processes} processes cannot share {queries} queries in {parts} minibatches",
                where="ppo.batch",
                remedy="make the queries a multiple of the processes, and each minibatch no smaller",
            )
        self.plan = BatchPlan(
            [0] * len(self.queries),
            queries,
            self.seed,
            updates=max(1, scalar(self.settings.episodes) // self.batch),
            keep_last=False,
        )
        self.loop = TrainLoop("ppo", ctx.folder, self.stepper, self.plan.total_updates, self.settings)

    def _reference(self) -> Frozen | LoraOff:
        start, reference = map(checkpoint_folder, (self.ctx.inputs.policy, self.ctx.inputs.reference))
        if self.settings.lora is not None and start.resolve() == reference.resolve():
            return LoraOff(self.stepper, "policy")
        return self._frozen(load_policy, self.ctx.inputs.reference)

    def _frozen(self, load: Any, place: Path) -> Frozen:
        dtype = torch.bfloat16 if self.settings.frozen_dtype == "bf16" else torch.float32
        model = load(checkpoint_folder(place), dtype=dtype)
        return Frozen(model, self.settings.frozen_place, self.device.device)

    def _sampler(self, policy: PreTrainedModel) -> Sampler:
        ids = {"eos": eos_id(self.tokenizer), "pad": pad_id(self.tokenizer)}
        if self.settings.sampler == "own":
            return OwnSampler(policy, self.accelerator, self.device, **ids)
        return VLLMSampler(
            checkpoint_folder(self.ctx.inputs.policy),
            self.accelerator,
            self.device,
            window=self.ctx.lengths.query + self.ctx.lengths.response,
            memory=self.settings.vllm_memory,
            **ids,
        )

    def _models(self) -> Models:
        """The networks of one rollout; the sampler is brought up to date."""
        self.sampler.update(as_model(self.stepper.modules["policy"]))

        def judged(parts: nn.ModuleDict, batch: PackedBatch) -> dict[str, Tensor]:
            found = {"values": torch.zeros_like(batch.response_mask, dtype=torch.float32)}
            if (value := self._value(parts)) is not None:
                found["values"] = response_values(value, batch)
            if not self.sampler.exact:
                found["logprobs"] = response_logprobs(
                    as_model(parts["policy"]), batch, self.settings.temperature
                )
            return found

        return Models(
            sampler=self.sampler,
            trained=lambda batch: self.stepper.call(judged, batch),
            reference=self.reference,
            reward=self.reward,
        )

    def _stepper(self, policy: PreTrainedModel) -> Stepper:
        """Policy from SFT, value network from the RM (separate weights), dropout off in both."""
        modules: dict[str, nn.Module] = {"policy": policy}
        if self.settings.value_network == "shared":
            add_value_head(policy)
        elif self.settings.algorithm == "ppo":
            reward = load_reward(checkpoint_folder(self.ctx.inputs.reward))
            modules["value"] = value = value_from_reward(reward)
            add_lora(value, self.settings.lora, derive(self.seed, "lora", "value"))
        value_lr = self.settings.value_lr
        lrs = {"value": scalar(value_lr)} if value_lr is not None and "value" in modules else {}
        return Stepper(self.accelerator, modules, self.settings, self.seed, lrs)

    def _value(self, modules: Mapping[str, nn.Module] | nn.ModuleDict) -> PreTrainedModel | None:
        """What estimates values: a network of its own, or the policy with its head."""
        if self.settings.algorithm != "ppo":
            return None
        return as_model(modules["policy" if self.settings.value_network == "shared" else "value"])

    def _documents(self, context: int) -> list[EncodedDocument]:
        if not self.settings.ptx_coef:
            return []
        return encode_documents(read_corpus(self.ctx.inputs.data), self.tokenizer, context)

    def rollout(self, iteration: int, beta: float) -> Rollout:
        """Sample and score this iteration's episodes, each process its share of them."""
        return with_advantages(self._experience(iteration), self.settings, beta)

    def _experience(self, iteration: int) -> Experience:
        rows = self.plan.batch(iteration)
        query, mask = left_pad([self.queries[i] for i in rows], pad_id(self.tokenizer))
        # Of the whole batch, and drawn on the CPU: the same whatever the processes and the device.
        shape = (len(rows), self.settings.samples_per_query, self.ctx.lengths.response)
        uniform = torch.rand(shape, generator=generator(self.seed, "rollout", iteration), dtype=torch.float64)
        share = len(rows) // self.accelerator.num_processes
        mine = slice(share * self.accelerator.process_index, share * (self.accelerator.process_index + 1))
        episodes = Episodes(query[mine], mask[mine], uniform[mine])
        collected = collect(
            self._models(), episodes, self.settings, self.device, self._micro_batch(), self.loop.pause
        )
        return collected.gathered(self.accelerator)

    def _micro_batch(self) -> int:
        """Queries a forward pass: the setting, or a process's whole share of a minibatch."""
        asked, settings = self.settings.micro_batch, self.settings
        queries = self.batch // settings.samples_per_query // settings.minibatches
        share = max(1, queries // int(self.accelerator.num_processes))
        return share if asked is None else min(scalar(asked), share)

    def minibatch(self, rollout: Rollout, iteration: int, step: int) -> list[MicroBatch]:
        """This process's share of the queries of one of an iteration's optimizer steps.

        In every epoch the queries come in a fresh order, each in exactly one minibatch; its samples
        stay together.
        """
        epoch, place = divmod(step, self.settings.minibatches)
        size = len(rollout) // self.settings.minibatches
        rows = torch.split(permutation(len(rollout), self.seed, "minibatch", iteration, epoch), size)[place]
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        by_length = rows[rollout.query_mask.sum(-1).cpu()[rows].argsort(stable=True)]  # less padding
        parts = micro_batches(by_length.tolist(), self._micro_batch(), rank, processes)
        selected = [rollout.select(torch.tensor(part)) for part in parts]
        if not self.settings.ptx_coef:
            return [MicroBatch(part) for part in selected]
        texts = self._ptx_texts(len(rows) * self.settings.samples_per_query, int(rows[0]), iteration, epoch)
        passes = len(parts) * processes
        if len(texts) < passes:
            raise UsageError(
                f"{len(texts)} pretraining texts a minibatch for {passes} forward passes",
                where="ppo.ptx_ratio",
                remedy="raise it, or micro_batch",
            )
        mine = [texts[rank + i * processes :: passes] for i in range(len(parts))]
        batches = [collate_documents(part, pad_id(self.tokenizer), 1.0) for part in mine]
        weight = sum(len(text.ids) - 1 for text in texts)
        tokens = float(rollout.response_mask[rows].sum())
        device = self.device.device
        return [
            MicroBatch(part, text.to(device), self.settings.ptx_coef * tokens / weight)
            for part, text in zip(selected, batches, strict=True)
        ]

    def _ptx_texts(self, episodes: int, first: int, iteration: int, epoch: int) -> list[EncodedDocument]:
        """`ptx_ratio` pretraining documents an episode of the minibatch."""
        count = max(1, round(episodes * self.settings.ptx_ratio))
        draw = torch.randint(
            len(self.documents), (count,), generator=generator(self.seed, "ptx", iteration, epoch, first)
        )
        return [self.documents[i] for i in draw.tolist()]

    def loss(self, parts: nn.ModuleDict, batch: MicroBatch) -> Loss:
        """Clipped policy loss + vf_coef clipped value loss (+ PPO-ptx), summed over real tokens."""
        settings, rollout = self.settings, batch.rollout
        mask = rollout.batch.response_mask
        logprobs, entropy = response_logprobs(
            as_model(parts["policy"]), rollout.batch, settings.temperature, entropy=True
        )
        old = (logprobs, rollout.logprobs, rollout.advantages, mask)
        policy_stats_ = policy_stats(*old, clip=settings.clip)
        if settings.algorithm == "ppo":
            total = policy_loss(*old, clip=settings.clip, count=1.0)
        else:
            total = -(rollout.advantages * logprobs).sum()
        tokens = mask.sum()
        stats: dict[str, Tensor | float] = {"policy_loss": total.detach(), "entropy": entropy.detach().sum()}
        names = {"ratio_mean": "ratio", "kl_k2": "approx_kl", "clip_fraction": "clip_fraction"}
        stats |= {new: policy_stats_[name] * tokens for name, new in names.items()}
        if settings.algorithm == "ppo":
            value_term, value_stats_ = self._value_loss(self._value(parts), rollout)
            total = total + settings.vf_coef * value_term
            stats |= {
                "value_loss": value_term.detach(),
                "value_clip_fraction": value_stats_["clip_fraction"] * tokens,
            }
        if batch.text is not None:
            text = language_loss(parts, batch.text)
            total = total + batch.ptx_share * text.total
            stats["ptx_loss"] = batch.ptx_share / settings.ptx_coef * text.total.detach()
        return Loss(total, tokens, tokens=rollout.batch.tokens, stats=stats)

    def _value_loss(
        self, value: PreTrainedModel | None, rollout: Rollout
    ) -> tuple[Tensor, dict[str, Tensor]]:
        assert value is not None
        mask = rollout.batch.response_mask
        values = response_values(value, rollout.batch)
        old = (values, rollout.values, rollout.returns, mask)
        clip = self.settings.value_clip
        return value_loss(*old, clip=clip, count=1.0), value_stats(*old, clip=clip)

    def iteration(self, index: int) -> Metrics:
        """One rollout and the updates on it; figures of the first minibatch show that nothing moved yet."""
        extra = self.loop.extra
        beta = extra.get("beta", scalar(self.settings.beta))
        rollout = with_advantages(self._begun(index), self.settings, beta)
        row: Metrics = {
            "beta": beta,
            "episodes": float((index + 1) * self.batch),
            **rollout_metrics(rollout, beta),
        }
        if self._value(self.stepper.modules) is not None:
            values = rollout.values
            spread = value_stats(
                values, values, rollout.returns, rollout.response_mask, clip=self.settings.value_clip
            )
            row["explained_variance"] = float(spread["explained_variance"])
        steps = self._steps(rollout, index)
        row |= {f"first_{name}": steps[0][name] for name in ("ratio", "approx_kl")}
        row |= summarise(steps)
        if self.settings.adaptive_kl is not None:
            control = self.settings.adaptive_kl
            extra["beta"] = adaptive_beta(
                beta, row["kl"], target=control.target, horizon=control.horizon, episodes=self.batch
            )
        every, last = self.settings.keep_rollouts, index + 1 == self.plan.total_updates
        if self.accelerator.is_main_process and (last or (every is not None and index % every == 0)):
            self._save_rollout(rollout, index)
        return row

    def _save_rollout(self, rollout: Rollout, index: int) -> None:
        posts = [self.posts[i] for i in self.plan.batch(index)]
        rows = rollout_samples(self.ctx, rollout, self.tokenizer, posts, index + 1)
        write_records(self.ctx.folder / ROLLOUTS / f"{index + 1:06d}.jsonl", rows)

    def _begun(self, index: int) -> Experience:
        """The iteration's episodes: sampled now, or those with which a run was stopped inside it."""
        kept = self.loop.tensors
        if self.loop.part == 0:
            kept.update(self._experience(index).tensors())
            self.loop.extra["done"] = []
            self._pause(0)
        return Experience(**kept).map(lambda tensor: tensor.to(self.device.device))

    def _steps(self, rollout: Rollout, index: int) -> list[Metrics]:
        """The optimizer steps of an iteration that are not made yet; the figures of all of them."""
        done: list[Metrics] = self.loop.extra["done"]
        total = self.settings.epochs * self.settings.minibatches
        for step in range(len(done), total):
            done.append(self.stepper.step(self.loss, self.minibatch(rollout, index, step)))
            if step + 1 < total:
                self._pause(step + 1)
        self.loop.tensors.clear()
        del self.loop.extra["done"]
        return done

    def _pause(self, steps: int) -> None:
        every = self.settings.save_steps
        self.loop.pause(steps + 1, due=every is not None and steps % every == 0)

    def save(self) -> None:
        """Write ``checkpoint/``, ``value/`` where it is a network of its own, and ``rollouts.jsonl``."""
        settings, folder = self.settings, self.ctx.folder
        whole = {name: self.stepper.whole(name) for name in self.stepper.modules}
        if not self.accelerator.is_main_process:
            return
        parts, joined = folder / ROLLOUTS, folder / f"{ROLLOUTS}.joined"
        if parts.is_dir():  # if not, a run that was killed here had joined them
            rows = [row for part in sorted(parts.glob("*.jsonl")) for row in read_records(part, Sample)]
            write_records(folder / f"{ROLLOUTS}.jsonl", rows)
            parts.rename(joined)
        shutil.rmtree(joined, ignore_errors=True)
        models = {name: as_model(model) for name, model in whole.items() if model is not None}
        if settings.value_network == "shared":
            del models["policy"].score
        elif "value" in models and settings.save_value:
            save_reward(
                models["value"], self.tokenizer, folder / "value", "Value network of the policy beside it."
            )
        save_policy(
            models["policy"],
            self.tokenizer,
            folder / "checkpoint",
            f"{settings.algorithm.upper()} against a reward model, {scalar(settings.episodes):,} episodes, "
            f"beta {settings.beta}.",
        )


def add_value_head(policy: PreTrainedModel) -> None:
    """A scalar head on the policy's own states, under the name a value network's has; it starts at 0."""
    model: Any = policy
    width = model.get_output_embeddings().weight.shape[1]  # OPT-350m's states are narrower than its layers
    head = nn.Linear(width, 1, bias=False, device=policy.device)
    nn.init.zeros_(head.weight)
    policy.score = head


def summarise(steps: Sequence[Metrics]) -> Metrics:
    """Means over an iteration's steps; tokens add up, the learning rate is the last."""
    names = list(dict.fromkeys(name for step in steps for name in step))
    row = {name: sum(step[name] for step in steps) / len(steps) for name in names}
    return row | {
        "tokens": sum(step["tokens"] for step in steps),
        **{name: steps[-1][name] for name in names if name.startswith("lr")},
    }


def run(ctx: PPORun) -> None:
    """Train ``policy`` against ``reward`` on the posts of ``data``; write ``checkpoint/``.

    Inputs: ``policy`` (where training starts: SFT, or the last round's policy), ``reference`` (SFT),
    ``reward``, ``data``. Also writes ``rollouts.jsonl``, the episodes of the last iteration (and of
    others, `keep_rollouts`), and ``value/``.
    """
    if len(read_posts(ctx.inputs.data, "ppo")) * ctx.settings.samples_per_query < scalar(ctx.settings.batch):
        raise UsageError(
            "fewer PPO posts than one rollout needs",
            where="ppo.batch",
            remedy="lower the batch or give more posts",
        )
    stage = PPOStage(ctx)
    stage.loop.run(stage.iteration)
    stage.save()
