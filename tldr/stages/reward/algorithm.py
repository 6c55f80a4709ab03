"""The reward model: SFT body, scalar head, all pairs of a prompt as one batch element (P 3.4, IG 3.5).

A prompt is encoded once with all its K summaries. Each summary's score is read at its EOS.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tldr.mathematics.losses import kway_loss, ordered_pairs, pair_accuracy
from tldr.models.lora import add_lora
from tldr.models.packed import PackedBatch, collate, response_scores
from tldr.queries.encode import encode_queries, encode_responses
from tldr.records import Comparison, Post, Ranking
from tldr.settings.base import scalar
from tldr.settings.models import Lengths
from tldr.stages.reward.settings import RewardSettings
from tldr.stages.shared.batches import inference_batches
from tldr.stages.shared.networks import as_model
from tldr.stages.shared.supervised import SupervisedTraining
from tldr.train.batching import BatchPlan
from tldr.train.rng import derive
from tldr.train.stepper import Loss, Stepper


def reward_training(
    model: PreTrainedModel,
    prompts: list[RankedPrompt],
    plan: BatchPlan,
    settings: RewardSettings,
    accelerator: Accelerator,
    *,
    pad: int,
    seed: int,
) -> SupervisedTraining[RankedPrompt, RankedBatch]:
    """Train the SFT policy's body and a fresh head on rankings.

    Args:
        plan: the prompts of every update (`reward_plan`).
        pad: token id of padding.
        seed: of the stage.
    """
    add_lora(model, settings.lora, derive(seed, "lora"))
    freeze_lowest(model, settings.frozen_layers)
    return SupervisedTraining(
        Stepper(accelerator, {"reward": model}, settings, seed),
        plan,
        settings,
        prompts,
        collate=lambda chosen: collate_prompts(chosen, pad),
        loss=ranking_loss,
    )


def reward_plan(
    prompts: Sequence[RankedPrompt], settings: RewardSettings, processes: int, *, seed: int
) -> BatchPlan:
    """The prompts of every update.

    Raises:
        UsageError: too few prompts for a batch, or for the processes that share it.
    """
    return BatchPlan(
        [prompt.length for prompt in prompts],
        scalar(settings.batch),
        seed,
        epochs=scalar(settings.epochs),
        processes=processes,
    )


@dataclass(frozen=True)
class RankedPrompt:
    """One prompt with its K summaries in tokens, and the labeler's places (1 = best)."""

    query: list[int]
    responses: list[list[int]]
    rank: list[int]

    @property
    def length(self) -> int:
        """Positions of the packed sequence."""
        return len(self.query) + len(self.responses) * max(map(len, self.responses))


@dataclass(frozen=True)
class RankedBatch:
    """A packed batch and its `ranks` (B,K) int64; `present` (B,K) bool."""

    packed: PackedBatch
    ranks: Tensor
    present: Tensor

    def to(self, device: torch.device) -> RankedBatch:
        """The same batch on another device."""
        return RankedBatch(self.packed.to(device), self.ranks.to(device), self.present.to(device))


def encode_rankings(
    tokenizer: PreTrainedTokenizerBase, rankings: list[Ranking], lengths: Lengths
) -> list[RankedPrompt]:
    """Rankings in tokens, within the RM's windows."""
    queries = encode_queries(tokenizer, [ranking.info for ranking in rankings], lengths.query)
    texts = [summary.text for ranking in rankings for summary in ranking.summaries]
    responses = iter(encode_responses(tokenizer, texts, lengths.rm_response))
    return [
        RankedPrompt(query, [next(responses) for _ in ranking.summaries], ranking.rank)
        for query, ranking in zip(queries, rankings, strict=True)
    ]


def encode_references(
    tokenizer: PreTrainedTokenizerBase, posts: list[Post], lengths: Lengths
) -> list[RankedPrompt]:
    """References in tokens: prompts with one summary each."""
    queries = encode_queries(tokenizer, posts, lengths.query)
    responses = encode_responses(tokenizer, [post.summary or "" for post in posts], lengths.rm_response)
    return [RankedPrompt(query, [tokens], [1]) for query, tokens in zip(queries, responses, strict=True)]


def collate_prompts(prompts: list[RankedPrompt], pad: int) -> RankedBatch:
    """Pad prompts and summaries; a prompt with fewer than K summaries has absent ones."""
    packed = collate([prompt.query for prompt in prompts], [prompt.responses for prompt in prompts], pad)
    ranks = torch.zeros(packed.response.shape[:2], dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        ranks[row, : len(prompt.rank)] = torch.tensor(prompt.rank)
    return RankedBatch(packed, ranks, packed.response_mask.any(-1))


def ranking_loss(parts: nn.ModuleDict, batch: RankedBatch) -> Loss:
    """InstructGPT's K-way loss summed over prompts; with K = 2 the paper's pairwise loss."""
    model = as_model(parts["reward"])
    scores = response_scores(model, batch.packed)
    prompts = ordered_pairs(batch.ranks, batch.present).any(-1).any(-1).sum()
    with torch.no_grad():
        correct, pairs = pair_accuracy(scores, batch.ranks, batch.present)
        accuracy = (correct / pairs.clamp(min=1)).sum()
    return Loss(
        kway_loss(scores, batch.ranks, batch.present, count=1.0),
        prompts,
        tokens=batch.packed.tokens,
        stats={"accuracy": accuracy},
    )


def freeze_lowest(model: PreTrainedModel, share: float) -> int:
    """Keep the embeddings and the lowest `share` of the layers from being trained; 0 freezes nothing.

    Returns:
        how many layers were frozen.
    """
    layers = next(part for part in model.base_model.modules() if isinstance(part, nn.ModuleList))
    count = round(share * len(layers))
    if count:
        embeddings = [part for part in model.base_model.modules() if isinstance(part, nn.Embedding)]
        for part in [*embeddings, *layers[:count]]:
            part.requires_grad_(False)
    return count


def accuracy(scores: list[list[float]], prompts: list[RankedPrompt]) -> float:
    """Share of the labelers' pairs that the scores order alike; ties in score count half."""
    correct = pairs = 0.0
    for row, prompt in zip(scores, prompts, strict=True):
        ranks = torch.tensor([prompt.rank])
        right, counted = pair_accuracy(torch.tensor([row]), ranks, torch.ones_like(ranks, dtype=torch.bool))
        correct, pairs = correct + float(right), pairs + float(counted)
    return correct / pairs


def pair_count(prompts: list[RankedPrompt]) -> int:
    """Pairs of summaries, those that tie included."""
    return sum(len(prompt.rank) * (len(prompt.rank) - 1) // 2 for prompt in prompts)


def shared_scores(stepper: Stepper, prompts: list[RankedPrompt], pad: int) -> list[list[float]]:
    """The trained model's score of every summary, without a shift; every process must call.

    The model is as it was trained, whole or sharded, and the processes share the batches: references and
    validation pairs together are more than the training pairs, too many for one of them to score alone.
    """
    accelerator = stepper.accelerator
    stepper.modules["reward"].train(False)
    batches = list(inference_batches([prompt.length for prompt in prompts]))
    most = max(len(prompt.responses) for prompt in prompts)
    scores = torch.zeros(len(prompts), most, dtype=torch.float64, device=accelerator.device)
    with torch.no_grad():
        for first in range(0, len(batches), accelerator.num_processes):
            number = first + accelerator.process_index
            # A process without a batch of its own repeats the last one: all must call equally often.
            rows = batches[min(number, len(batches) - 1)]
            packed = collate_prompts([prompts[row] for row in rows], pad).packed
            found = stepper.call(_rewards, packed.to(accelerator.device))
            if number < len(batches):
                scores[rows, : found.shape[1]] = found.double()
    whole = accelerator.reduce(scores, "sum").tolist()
    return [row[: len(prompt.responses)] for row, prompt in zip(whole, prompts, strict=True)]


def _rewards(parts: nn.ModuleDict, packed: PackedBatch) -> Tensor:
    return response_scores(as_model(parts["reward"]), packed)


def predictions(rankings: list[Ranking], scores: list[list[float]]) -> Iterator[Comparison]:
    """Each ranking's comparisons, every summary with its score as ``rm``."""
    for ranking, row in zip(rankings, scores, strict=True):
        summaries = [
            summary.model_copy(update={"scores": {"rm": score}})
            for summary, score in zip(ranking.summaries, row, strict=True)
        ]
        yield from ranking.model_copy(update={"summaries": summaries}).comparisons()
