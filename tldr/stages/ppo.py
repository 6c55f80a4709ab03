"""PPO against the reward model, as in the paper (3.4, App. B.1), with named options beside it.

One iteration: sample episodes (`rollout.collect`), then `epochs` passes over them in minibatches.
Policy and value function are separate networks with an optimizer each; the reference is the frozen
SFT model. REINFORCE and RLOO use the same loop with whole-episode advantages and no value network.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tldr.config import PPO, one
from tldr.data.formats import decode_response
from tldr.errors import UsageError
from tldr.mathematics.kl import adaptive_beta
from tldr.mathematics.ppo import policy_loss, policy_stats, value_loss, value_stats
from tldr.models.ladder import save_policy
from tldr.models.packed import response_logprobs, response_values
from tldr.models.reward import load_reward, save_reward, value_from_reward
from tldr.records import Sample, read_records, write_records
from tldr.stages.common import (
    Device,
    Draw,
    as_model,
    checkpoint_folder,
    encode_posts,
    eos_id,
    left_pad,
    moved,
    open_policy,
    open_reward,
    open_tokenizer,
    pad_id,
    read_posts,
)
from tldr.stages.context import RunContext
from tldr.stages.data import read_corpus
from tldr.stages.pretrain import Document, TextBatch, collate_documents, encode_documents, language_loss
from tldr.stages.rollout import Episodes, Models, Rollout, collect, rollout_metrics
from tldr.stages.samples import policy_name, to_sample
from tldr.stages.scoring import gold_scores, has_gold
from tldr.train.batching import BatchPlan, micro_batches
from tldr.train.loop import TrainLoop
from tldr.train.rng import derive, generator, permutation
from tldr.train.stepper import Loss, Stepper, make_accelerator

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
    """The networks and data of one PPO run, and what an iteration does with them."""

    def __init__(self, ctx: RunContext[PPO]):
        self.ctx, self.settings = ctx, ctx.settings
        self.batch = one(ctx.settings.batch)
        self.seed = derive(ctx.seed, "ppo")
        self.accelerator = make_accelerator(ctx.precision)
        self.device = Device.open(ctx.precision)
        self.tokenizer: PreTrainedTokenizerBase = open_tokenizer(ctx.inputs["policy"])
        self.posts = read_posts(ctx.inputs["data"], "ppo")
        self.queries = encode_posts(self.tokenizer, self.posts, ctx.lengths)
        policy = open_policy(ctx.inputs["policy"], self.device)
        self.documents = self._documents(int(policy.config.max_position_embeddings))
        self.stepper = self._stepper(policy)
        self.models = Models(
            policy=as_model(self.stepper.modules["policy"]),
            value=self._value(self.stepper.modules),
            reference=open_policy(ctx.inputs["reference"], self.device),
            reward=open_reward(ctx.inputs["reward"], self.device),
        )
        self.plan = BatchPlan(
            [0] * len(self.queries),
            self.batch // self.settings.samples_per_query,
            self.seed,
            updates=max(1, one(self.settings.episodes) // self.batch),
            keep_last=False,
        )

    def _stepper(self, policy: PreTrainedModel) -> Stepper:
        """Policy from SFT, value network from the RM (separate weights), dropout off in both."""
        modules: dict[str, nn.Module] = {"policy": policy}
        if self.settings.value_network == "shared":
            add_value_head(policy)
        elif self.settings.algorithm == "ppo":
            reward = load_reward(checkpoint_folder(self.ctx.inputs["reward"]))
            modules["value"] = moved(value_from_reward(reward), self.device)
        value_lr = self.settings.value_lr
        lrs = {"value": one(value_lr)} if value_lr is not None and "value" in modules else {}
        return Stepper(self.accelerator, modules, self.settings.optimizer, self.seed, lrs)

    def _value(self, modules: Mapping[str, nn.Module] | nn.ModuleDict) -> PreTrainedModel | None:
        """What estimates values: a network of its own, or the policy with its head."""
        if self.settings.algorithm != "ppo":
            return None
        return as_model(modules["policy" if self.settings.value_network == "shared" else "value"])

    def _documents(self, context: int) -> list[Document]:
        if not self.settings.ptx_coef:
            return []
        return encode_documents(read_corpus(self.ctx.inputs["data"]), self.tokenizer, context)

    def rollout(self, iteration: int, beta: float) -> Rollout:
        """Sample and score this iteration's episodes."""
        rows = self.plan.batch(iteration)
        query, mask = left_pad([self.queries[i] for i in rows], pad_id(self.tokenizer))
        episodes = Episodes(
            query,
            mask,
            eos_id(self.tokenizer),
            pad_id(self.tokenizer),
            self.ctx.lengths.response,
            generator(self.seed, "rollout", iteration, device=self.device.device),
        )
        return collect(self.models, episodes, self.settings, beta, self.device, self._micro_batch(len(rows)))

    def _micro_batch(self, queries: int) -> int:
        """Queries a forward pass: the setting, or a whole minibatch."""
        asked = self.settings.micro_batch
        return min(queries if asked is None else one(asked), queries // self.settings.minibatches)

    def minibatches(self, rollout: Rollout, iteration: int, epoch: int) -> list[list[MicroBatch]]:
        """The queries in a fresh order, each in exactly one minibatch; its samples stay together."""
        queries = len(rollout.batch)
        order = permutation(queries, self.seed, "minibatch", iteration, epoch)
        size = queries // self.settings.minibatches
        return [
            self._micro_batches(rollout, order[start : start + size], iteration, epoch)
            for start in range(0, queries, size)
        ]

    def _micro_batches(self, rollout: Rollout, rows: Tensor, iteration: int, epoch: int) -> list[MicroBatch]:
        parts = micro_batches(rows.tolist(), self._micro_batch(len(rollout.batch)))
        selected = [rollout.select(torch.tensor(part)) for part in parts]
        if not self.settings.ptx_coef:
            return [MicroBatch(part) for part in selected]
        texts = self._ptx_texts(len(rows) * self.settings.samples_per_query, int(rows[0]), iteration, epoch)
        per_part = [texts[i :: len(selected)] for i in range(len(selected))]
        batches = [collate_documents(part, pad_id(self.tokenizer), 1.0) for part in per_part]
        weight = sum(float(batch.weights.sum()) for batch in batches)
        tokens = float(rollout.batch.response_mask[rows].sum())
        device = self.device.device
        return [
            MicroBatch(part, text.to(device), self.settings.ptx_coef * tokens / weight)
            for part, text in zip(selected, batches, strict=True)
        ]

    def _ptx_texts(self, episodes: int, first: int, iteration: int, epoch: int) -> list[Document]:
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

    def iteration(self, index: int, extra: dict[str, float]) -> Metrics:
        """One rollout and the updates on it; figures of the first minibatch show that nothing moved yet."""
        beta = extra.get("beta", one(self.settings.beta))
        rollout = self.rollout(index, beta)
        row: Metrics = {
            "beta": beta,
            "episodes": float((index + 1) * self.batch),
            **rollout_metrics(rollout, beta),
        }
        if self.models.value is not None:
            spread = value_stats(
                rollout.values,
                rollout.values,
                rollout.returns,
                rollout.batch.response_mask,
                clip=self.settings.value_clip,
            )
            row["explained_variance"] = float(spread["explained_variance"])
        steps: list[Metrics] = []
        for epoch in range(self.settings.epochs):
            for minibatch in self.minibatches(rollout, index, epoch):
                steps.append(self.stepper.step(self.loss, minibatch))
        row |= {f"first_{name}": steps[0][name] for name in ("ratio", "approx_kl")}
        row |= summarise(steps)
        if self.settings.adaptive_kl is not None:
            control = self.settings.adaptive_kl
            extra["beta"] = adaptive_beta(
                beta, row["kl"], target=control.target, horizon=control.horizon, episodes=self.batch
            )
        every, last = self.settings.keep_rollouts, index + 1 == self.plan.total_updates
        if last or (every is not None and index % every == 0):
            self._save_rollout(rollout, index)
        return row

    def _save_rollout(self, rollout: Rollout, index: int) -> None:
        """An iteration's episodes as samples, so that its logged KL can be computed again."""
        rows = []
        posts = [self.posts[i] for i in self.plan.batch(index)]
        mask, planted = rollout.batch.response_mask, has_gold(posts)
        for b, post in enumerate(posts):
            for k in range(self.settings.samples_per_query):
                ids = rollout.batch.response[b, k][mask[b, k]].tolist()
                draw = Draw(ids, decode_response(self.tokenizer, ids)[0], bool(rollout.stopped[b, k]))
                gold = gold_scores(post, draw.text, draw.stopped) if planted else {}
                rows.append(
                    to_sample(
                        self.ctx,
                        post.id,
                        draw,
                        policy_name(self.ctx, "ppo"),
                        temperature=self.settings.temperature,
                        logprob=float(rollout.logprobs[b, k].sum()),
                        logprob_sft=float(rollout.ref_logprobs[b, k].sum()),
                        scores={"rm": float(rollout.scores[b, k])} | gold,
                        tags={**self.ctx.tags, "iteration": index + 1},
                    )
                )
        write_records(self.ctx.folder / ROLLOUTS / f"{index + 1:06d}.jsonl", rows)

    def save(self) -> None:
        """Write ``checkpoint/``, ``value/`` where it is a network of its own, and ``rollouts.jsonl``."""
        settings, folder, models = self.settings, self.ctx.folder, self.models
        parts, joined = folder / ROLLOUTS, folder / f"{ROLLOUTS}.joined"
        if parts.is_dir():  # if not, a run that was killed here had joined them
            rows = [row for part in sorted(parts.glob("*.jsonl")) for row in read_records(part, Sample)]
            write_records(folder / f"{ROLLOUTS}.jsonl", rows)
            parts.rename(joined)
        shutil.rmtree(joined, ignore_errors=True)
        if settings.value_network == "shared":
            del models.policy.score
        elif models.value is not None and settings.save_value:
            save_reward(
                models.value, self.tokenizer, folder / "value", "Value network of the policy beside it."
            )
        save_policy(
            models.policy,
            self.tokenizer,
            folder / "checkpoint",
            f"{settings.algorithm.upper()} against a reward model, {one(settings.episodes):,} episodes, "
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


def run(ctx: RunContext[PPO]) -> None:
    """Train ``policy`` against ``reward`` on the posts of ``data``; write ``checkpoint/``.

    Inputs: ``policy`` (where training starts: SFT, or the last round's policy), ``reference`` (SFT),
    ``reward``, ``data``. Also writes ``rollouts.jsonl``, the episodes of the last iteration (and of
    others, `keep_rollouts`), and ``value/``.
    """
    if len(read_posts(ctx.inputs["data"], "ppo")) * ctx.settings.samples_per_query < one(ctx.settings.batch):
        raise UsageError(
            "fewer PPO posts than one rollout needs",
            where="ppo.batch",
            remedy="lower the batch or give more posts",
        )
    stage = PPOStage(ctx)
    loop = TrainLoop("ppo", ctx.folder, stage.stepper, stage.plan.total_updates, ctx.settings.save_every)
    loop.run(partial(stage.iteration, extra=loop.extra))
    stage.save()
