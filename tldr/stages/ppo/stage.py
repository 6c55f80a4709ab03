"""The PPO stage: loads networks and posts, runs `tldr.stages.ppo.algorithm`, keeps rollouts, saves."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tldr.errors import UsageError
from tldr.models.ladder import load_policy, save_policy
from tldr.models.reward import load_reward, save_reward, value_from_reward
from tldr.queries.encode import decode_response, encode_queries
from tldr.records import Post, Sample, read_records, write_records
from tldr.settings.base import scalar
from tldr.stages.ppo import PPORun
from tldr.stages.ppo.algorithm import PPO
from tldr.stages.ppo.batches import rollout_plan
from tldr.stages.ppo.networks import Networks, Queries
from tldr.stages.ppo.rollout import Rollout
from tldr.stages.ppo.samplers import Sampler, VLLMSampler
from tldr.stages.shared.corpus import read_corpus
from tldr.stages.shared.device import Device
from tldr.stages.shared.gold import gold_scores, has_gold
from tldr.stages.shared.language import EncodedDocument, encode_documents
from tldr.stages.shared.networks import as_model, checkpoint_folder
from tldr.stages.shared.posts import first_shuffled, read_posts
from tldr.stages.shared.sample_records import policy_name, to_sample
from tldr.stages.shared.sampling import Draw
from tldr.stages.shared.tokenizers import check_reads_tokens_of, eos_id, open_tokenizer, pad_id
from tldr.train.loop import TrainLoop
from tldr.train.processes import process_count

ROLLOUTS = "rollouts"


def run(ctx: PPORun) -> None:
    """Train ``policy`` against ``reward`` on the posts of ``data``, or a part of them.

    Writes ``checkpoint/``, ``value/`` where the value network is one of its own, and ``rollouts.jsonl``: the
    episodes of the last iteration, and of others if `keep_rollouts` asks for them.

    Raises:
        UsageError: fewer posts than `limit` or than one rollout needs, or processes that cannot share a
            batch.
    """
    tokenizer = open_tokenizer(ctx.inputs.policy)
    every = read_posts(ctx.inputs.data, "ppo")
    posts = first_shuffled(every, ctx.settings.limit, seed=ctx.seed, stage="ppo")
    if len(posts) * ctx.settings.samples_per_query < scalar(ctx.settings.batch):
        raise UsageError(
            "fewer PPO posts than one rollout needs",
            where="ppo.batch",
            remedy="lower the batch or give more posts",
        )
    check_reads_tokens_of(ctx.inputs.reward, ctx.inputs.policy, tokenizer, "ppo.reward")
    rollout_plan(ctx.settings, len(posts), process_count(), ctx.seed)  # before a network is loaded
    ppo = open_ppo(ctx, tokenizer, posts)
    kept = KeptRollouts(ctx, tokenizer, posts, ppo)
    loop = TrainLoop("ppo", ctx.folder, ppo.stepper, ppo.plan.total_updates, ctx.settings)
    ppo.progress, ppo.on_rollout = loop, kept.offer
    loop.run(ppo.iteration)
    kept.join()
    save(ctx, ppo, tokenizer)


def open_ppo(ctx: PPORun, tokenizer: PreTrainedTokenizerBase, posts: Sequence[Post]) -> PPO:
    """PPO on the run's networks and the queries of `posts`."""
    settings, inputs = ctx.settings, ctx.inputs
    policy = load_policy(checkpoint_folder(inputs.policy), tokenizer)
    value = None
    if settings.algorithm == "ppo" and settings.value_network == "separate":
        value = value_from_reward(load_reward(checkpoint_folder(inputs.reward)))
    start, reference = checkpoint_folder(inputs.policy), checkpoint_folder(inputs.reference)
    adapters_alone = settings.lora is not None and start.resolve() == reference.resolve()
    networks = Networks(
        policy=policy,
        value=value,
        reference=None if adapters_alone else lambda dtype: load_policy(reference, tokenizer, dtype=dtype),
        reward=lambda dtype: load_reward(checkpoint_folder(inputs.reward), dtype=dtype),
        sampler=None if settings.sampler == "own" else _vllm(ctx, tokenizer),
    )
    queries = Queries(
        encode_queries(tokenizer, posts, ctx.lengths.query),
        ctx.lengths.response,
        eos=eos_id(tokenizer),
        pad=pad_id(tokenizer),
        documents=_documents(ctx, tokenizer, policy),
    )
    return PPO(networks, queries, settings, seed=ctx.seed, precision=ctx.precision)


def _vllm(ctx: PPORun, tokenizer: PreTrainedTokenizerBase) -> Callable[[Accelerator, Device], Sampler]:
    def open_engine(accelerator: Accelerator, device: Device) -> Sampler:
        return VLLMSampler(
            checkpoint_folder(ctx.inputs.policy),
            accelerator,
            device,
            window=ctx.lengths.query + ctx.lengths.response,
            memory=ctx.settings.vllm_memory,
            eos=eos_id(tokenizer),
            pad=pad_id(tokenizer),
        )

    return open_engine


def _documents(
    ctx: PPORun, tokenizer: PreTrainedTokenizerBase, policy: PreTrainedModel
) -> list[EncodedDocument]:
    """Pretraining texts for PPO-ptx."""
    if not ctx.settings.ptx_coef:
        return []
    context = int(policy.config.max_position_embeddings)
    return encode_documents(read_corpus(ctx.inputs.data), tokenizer, context)


@dataclass(frozen=True)
class KeptRollouts:
    """The rollouts that a run keeps as samples: one file an iteration, joined when the run ends."""

    ctx: PPORun
    tokenizer: PreTrainedTokenizerBase
    posts: Sequence[Post]
    ppo: PPO

    def offer(self, index: int, rollout: Rollout) -> None:
        """Keep an iteration's rollout (from 0) if it is the last one, or one that `keep_rollouts` asks
        for."""
        every, last = self.ctx.settings.keep_rollouts, index + 1 == self.ppo.plan.total_updates
        if self.ppo.accelerator.is_main_process and (last or (every is not None and index % every == 0)):
            rows = self.samples(index, rollout)
            write_records(self.ctx.folder / ROLLOUTS / f"{index + 1:06d}.jsonl", rows)

    def join(self) -> None:
        """Write ``rollouts.jsonl``."""
        if not self.ppo.accelerator.is_main_process:
            return
        parts, joined = self.ctx.folder / ROLLOUTS, self.ctx.folder / f"{ROLLOUTS}.joined"
        if parts.is_dir():  # if not, a run that was killed here had joined them
            rows = [row for part in sorted(parts.glob("*.jsonl")) for row in read_records(part, Sample)]
            write_records(self.ctx.folder / f"{ROLLOUTS}.jsonl", rows)
            parts.rename(joined)
        shutil.rmtree(joined, ignore_errors=True)

    def samples(self, index: int, rollout: Rollout) -> list[Sample]:
        """A rollout's episodes as samples, so that its logged KL can be computed again."""
        posts = [self.posts[row] for row in self.ppo.plan.batch(index)]
        mask, planted = rollout.response_mask, has_gold(posts)
        temperature = self.ctx.settings.temperature
        at = {} if temperature == 1 else {"logprob_temperature": temperature}
        rows = []
        for b, post in enumerate(posts):
            for k in range(mask.shape[1]):
                ids = rollout.response[b, k][mask[b, k]].tolist()
                draw = Draw(ids, decode_response(self.tokenizer, ids)[0], bool(rollout.stopped[b, k]))
                gold = gold_scores(post, draw.text, draw.stopped) if planted else {}
                rows.append(
                    to_sample(
                        self.ctx,
                        post.id,
                        draw,
                        policy_name(self.ctx, "ppo"),
                        temperature=temperature,
                        logprob=float(rollout.logprobs[b, k].sum()),
                        logprob_sft=float(rollout.ref_logprobs[b, k].sum()),
                        **at,
                        scores={"rm": float(rollout.scores[b, k])} | gold,
                        tags={**self.ctx.tags, "iteration": index + 1},
                    )
                )
        return rows


def save(ctx: PPORun, ppo: PPO, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write ``checkpoint/``, and ``value/`` where the value network is one of its own."""
    settings = ctx.settings
    whole = {name: ppo.stepper.whole(name) for name in ppo.stepper.modules}
    if not ppo.accelerator.is_main_process:
        return
    models = {name: as_model(model) for name, model in whole.items() if model is not None}
    if settings.value_network == "shared":
        del models["policy"].score
    elif "value" in models and settings.save_value:
        save_reward(
            models["value"], tokenizer, ctx.folder / "value", "Value network of the policy beside it."
        )
    card = (
        f"{settings.algorithm.upper()} against a reward model, {scalar(settings.episodes):,} episodes, "
        f"beta {settings.beta}."
    )
    save_policy(models["policy"], tokenizer, ctx.folder / "checkpoint", card)
