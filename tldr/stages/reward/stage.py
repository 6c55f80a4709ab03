"""The reward model: SFT body, scalar head, all pairs of a prompt as one batch element (P 3.4, IG 3.5).

A prompt is encoded once with all its K summaries; the score is read at each summary's EOS. After
training the scores are shifted so that the training references average 0 (mean only), and the
shift is stored in the checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tldr.errors import UsageError
from tldr.inputs.leakage import EVALUATION, check_leaks, folder_keys, label_keys
from tldr.inputs.posts import load_comparisons
from tldr.mathematics.losses import kway_loss, ordered_pairs, pair_accuracy
from tldr.models.lora import add_lora
from tldr.models.packed import PackedBatch, collate, response_scores
from tldr.models.reward import apply_shift, reward_from_policy, save_reward
from tldr.queries.encode import encode_queries, encode_responses
from tldr.records import Comparison, Ranking, write_json, write_records
from tldr.settings.base import scalar
from tldr.settings.models import Lengths
from tldr.stages.reward import RewardRun
from tldr.stages.shared.common import (
    Device,
    as_model,
    checkpoint_folder,
    inference_batches,
    open_reward,
    open_tokenizer,
    pad_id,
    read_posts,
    share,
)
from tldr.stages.shared.scoring import Scorer
from tldr.train.batching import BatchPlan
from tldr.train.loop import TrainLoop
from tldr.train.processes import make_accelerator
from tldr.train.rng import derive
from tldr.train.stepper import Loss, Stepper

RECHECKED = 64
"""References that the saved model scores once more, which shows that it carries the shift."""


@dataclass(frozen=True)
class Example:
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


def run(ctx: RewardRun) -> None:
    """Train one reward model, shift it, evaluate it; who uses several takes the best on valid1.

    Inputs: ``policy`` (SFT), ``labels`` (``train``, ``valid1``, ``valid2`` rankings; further rounds'
    labels are ``labels-2``, ...), ``data``. Writes ``checkpoint/`` and ``evaluation.json``; of a fold
    also ``predictions.jsonl``, its held-out comparisons with the scores of both summaries.
    """
    tokenizer = open_tokenizer(ctx.inputs.policy)
    further = sorted(ctx.inputs.further_labels.items(), key=lambda item: int(item[0]))
    labels = [ctx.inputs.labels, *(place for _, place in further)]
    if ctx.settings.fold is not None:
        labels = [place / f"fold-{ctx.settings.fold}" for place in labels]
    rankings = {name: read_rankings(labels, name) for name in ("train", "valid1", "valid2")}
    # the labels may come from elsewhere, where no stage has held them against the evaluation posts
    check_leaks(folder_keys(ctx.inputs.data, EVALUATION) | label_keys(rankings))
    splits = {name: encode_rankings(tokenizer, rows, ctx.lengths) for name, rows in rankings.items()}
    train = splits.pop("train")[: ctx.settings.limit]
    references = encode_references(ctx, tokenizer)
    stepper = train_reward(ctx, train, tokenizer)
    before = shared_scores(stepper, references, pad_id(tokenizer))
    scores = {name: shared_scores(stepper, rows, pad_id(tokenizer)) for name, rows in splits.items()}
    model = stepper.whole("reward")
    if model is None:
        return
    evaluation = finish(ctx, as_model(model), tokenizer, references, [row[0] for row in before])
    for name, examples in splits.items():
        pairs = sum(len(one.rank) * (len(one.rank) - 1) // 2 for one in examples)
        evaluation |= {f"{name}_accuracy": accuracy(scores[name], examples), f"{name}_pairs": pairs}
    evaluation["n"] = evaluation["valid2_pairs"]
    if ctx.settings.fold is not None:
        shifted = [[score - evaluation["shift"] for score in row] for row in scores["valid2"]]
        write_records(ctx.folder / "predictions.jsonl", predictions(rankings["valid2"], shifted))
    agreement = labels[-1] / "agreement.json"
    if agreement.exists():
        evaluation["label_agreement"] = json.loads(agreement.read_text(encoding="utf-8"))["agreement"]
    write_json(ctx.folder / "evaluation.json", evaluation | {"train_rankings": len(train)})


def read_rankings(labels: list[Path], name: str) -> list[Ranking]:
    """The rankings of a split with a winner; those whose summaries all tie teach nothing.

    Raises:
        UsageError: there is none.
    """
    rows = [row for place in labels for row in load_comparisons(place / f"{name}.jsonl")]
    useful = [row for row in rows if len(set(row.rank)) > 1]
    if not useful:
        raise UsageError(
            f"no ranking of {name} has a winner",
            where=labels[0],
            remedy="give comparisons whose summaries do not all tie",
        )
    return useful


def encode_rankings(
    tokenizer: PreTrainedTokenizerBase, rankings: list[Ranking], lengths: Lengths
) -> list[Example]:
    """Rankings in tokens, within the RM's windows."""
    queries = encode_queries(tokenizer, [ranking.info for ranking in rankings], lengths.query)
    texts = [summary.text for ranking in rankings for summary in ranking.summaries]
    responses = iter(encode_responses(tokenizer, texts, lengths.rm_response))
    return [
        Example(query, [next(responses) for _ in ranking.summaries], ranking.rank)
        for query, ranking in zip(queries, rankings, strict=True)
    ]


def collate_examples(examples: list[Example], pad: int) -> RankedBatch:
    """Pad prompts and summaries; a prompt with fewer than K summaries has absent ones."""
    packed = collate(
        [example.query for example in examples], [example.responses for example in examples], pad
    )
    ranks = torch.zeros(packed.response.shape[:2], dtype=torch.int64)
    for row, example in enumerate(examples):
        ranks[row, : len(example.rank)] = torch.tensor(example.rank)
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


def train_reward(
    ctx: RewardRun,
    train: list[Example],
    tokenizer: PreTrainedTokenizerBase,
) -> Stepper:
    """Train from the SFT policy with a fresh head, one pass over the rankings by default."""
    seed = derive(ctx.seed, "reward")
    settings = ctx.settings
    accelerator = make_accelerator(ctx.precision)
    model = reward_from_policy(checkpoint_folder(ctx.inputs.policy), seed=seed, pad_id=pad_id(tokenizer))
    add_lora(model, settings.lora, derive(seed, "lora"))
    freeze_lowest(model, settings.frozen_layers)
    plan = BatchPlan(
        [example.length for example in train],
        scalar(settings.batch),
        seed,
        epochs=scalar(settings.epochs),
        processes=accelerator.num_processes,
    )
    stepper = Stepper(accelerator, {"reward": model}, settings, seed)
    loop = TrainLoop("reward", ctx.folder, stepper, plan.total_updates, settings)

    def update(index: int) -> dict[str, float]:
        rows = share(plan.batch(index), settings, accelerator)
        batches = [collate_examples([train[i] for i in part], pad_id(tokenizer)) for part in rows]
        return stepper.step(ranking_loss, [batch.to(accelerator.device) for batch in batches])

    loop.run(update)
    return stepper


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


def accuracy(scores: list[list[float]], examples: list[Example]) -> float:
    """Share of the labelers' pairs that the scores order alike; ties in score count half."""
    correct = pairs = 0.0
    for row, example in zip(scores, examples, strict=True):
        ranks = torch.tensor([example.rank])
        right, counted = pair_accuracy(torch.tensor([row]), ranks, torch.ones_like(ranks, dtype=torch.bool))
        correct, pairs = correct + float(right), pairs + float(counted)
    return correct / pairs


def shared_scores(stepper: Stepper, examples: list[Example], pad: int) -> list[list[float]]:
    """The trained model's score of every summary, without a shift; every process must call.

    The model is as it was trained, whole or sharded, and the processes share the batches: references and
    validation pairs together are more than the training pairs, too many for one of them to score alone.
    """
    accelerator = stepper.accelerator
    stepper.modules["reward"].train(False)
    batches = list(inference_batches([example.length for example in examples]))
    most = max(len(example.responses) for example in examples)
    scores = torch.zeros(len(examples), most, dtype=torch.float64, device=accelerator.device)
    with torch.no_grad():
        for first in range(0, len(batches), accelerator.num_processes):
            number = first + accelerator.process_index
            rows = batches[min(number, len(batches) - 1)]  # past the end for company: all call as often
            packed = collate_examples([examples[row] for row in rows], pad).packed
            found = stepper.call(_rewards, packed.to(accelerator.device))
            if number < len(batches):
                scores[rows, : found.shape[1]] = found.double()
    whole = accelerator.reduce(scores, "sum").tolist()
    return [row[: len(example.responses)] for row, example in zip(whole, examples, strict=True)]


def _rewards(parts: nn.ModuleDict, packed: PackedBatch) -> Tensor:
    return response_scores(as_model(parts["reward"]), packed)


def finish(
    ctx: RewardRun,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    references: list[Example],
    before: list[float],
) -> dict[str, Any]:
    """Shift to reference mean 0, save, reload, and score references again by what was saved.

    Args:
        before: the references' scores without a shift.

    Returns:
        the shift and what came of it.
    """
    shift = mean(before)
    way = apply_shift(model, shift)
    save_reward(model, tokenizer, ctx.folder / "checkpoint", _card(ctx, shift, way))
    device, some = Device.open(ctx.precision), references[:RECHECKED]
    scorer = Scorer(tokenizer, [one.query for one in some], [one.responses for one in some], device)
    again = [row[0] for row in scorer.rewards(open_reward(ctx.folder, device))]
    return {
        "shift": shift,
        "shift_in": way,
        "shift_posts": len(references),
        # of all references, as the saved model scores them: what it changed is read off the first ones
        "reference_mean": shift + mean(b - a for a, b in zip(before, again, strict=False)),
    }


def encode_references(ctx: RewardRun, tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    """The training references whose mean score the shift makes 0."""
    posts = read_posts(ctx.inputs.data, "sft", references=True)[: ctx.settings.shift_posts]
    queries = encode_queries(tokenizer, posts, ctx.lengths.query)
    responses = encode_responses(tokenizer, [post.summary or "" for post in posts], ctx.lengths.rm_response)
    return [Example(query, [tokens], [1]) for query, tokens in zip(queries, responses, strict=True)]


def predictions(rankings: list[Ranking], scores: list[list[float]]) -> Iterator[Comparison]:
    """Each ranking's comparisons, every summary with its score as ``rm``."""
    for ranking, row in zip(rankings, scores, strict=True):
        summaries = [
            summary.model_copy(update={"scores": {"rm": score}})
            for summary, score in zip(ranking.summaries, row, strict=True)
        ]
        yield from ranking.model_copy(update={"summaries": summaries}).comparisons()


def _card(ctx: RewardRun, shift: float, way: str) -> str:
    return (
        f"Reward model, {scalar(ctx.settings.epochs):g} epochs on ranked summaries. Scores are read at the "
        f"last token (EOS); they are shifted by {-shift:+.6f} ({way}) so that the training references "
        f"average 0."
    )
