"""The reward model: SFT body, scalar head, all pairs of a ranking as one batch element (P 3.4, IG 3.5).

With `pairs: apart` each pair is an element of its own, as in InstructGPT's comparison of the two.

A prompt is encoded once with all summaries of its ranking, or with those of all rankings of its post
(`share_posts`). Each summary's score is read at its EOS.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

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
    posts: list[RankedPost],
    plan: BatchPlan,
    settings: RewardSettings,
    accelerator: Accelerator,
    *,
    pad: int,
    seed: int,
) -> SupervisedTraining[RankedPost, RankedBatch]:
    """Train the SFT policy's body and a fresh head on rankings.

    Args:
        plan: the posts of every update (`reward_plan`).
        pad: token id of padding.
        seed: of the stage.
    """
    add_lora(model, settings.lora, derive(seed, "lora"))
    freeze_lowest(model, settings.frozen_layers)
    return SupervisedTraining(
        Stepper(accelerator, {"reward": model}, settings, seed),
        plan,
        settings,
        posts,
        collate=lambda chosen: collate_posts(chosen, pad),
        loss=ranking_loss,
    )


def reward_plan(
    posts: Sequence[RankedPost], settings: RewardSettings, processes: int, *, seed: int
) -> BatchPlan:
    """The posts of every update: as many as have `batch` rankings on average.

    Pairs that train apart are shuffled without regard to their length: the pairs of one ranking are of
    similar length, so batches by length would bring them together again.

    Raises:
        UsageError: too few posts for a batch, or for the processes that share it.
    """
    rankings = sum(len(post.ranks) for post in posts)
    return BatchPlan(
        [0 if settings.pairs == "apart" else post.length for post in posts],
        max(1, round(scalar(settings.batch) * len(posts) / rankings)),
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


def untied_pairs(prompts: Sequence[RankedPrompt]) -> list[RankedPrompt]:
    """Every pair of a prompt's summaries of which one is preferred, as a prompt of two summaries.

    A ranking of K summaries without ties gives C(K, 2) prompts; one whose summaries all tie gives none.
    Shuffled over the data set (`reward_plan`) they are the alternative that InstructGPT compares with all
    pairs of a prompt as one element (Ouyang et al. 2022, 3.5).

    Returns:
        Prompts with K = 2 and ranks 1 and 2, in the order of the rankings; the two summaries stay in theirs.
    """
    return [
        RankedPrompt(
            prompt.query,
            [prompt.responses[one], prompt.responses[two]],
            [1, 2] if prompt.rank[one] < prompt.rank[two] else [2, 1],
        )
        for prompt in prompts
        for one, two in combinations(range(len(prompt.rank)), 2)
        if prompt.rank[one] != prompt.rank[two]
    ]


@dataclass(frozen=True)
class RankedPost:
    """The rankings that are encoded together: a query, and every summary in them once.

    Attributes:
        places: of each ranking, the index in `responses` of each of its summaries.
        ranks: of each ranking, the labeler's places (1 = best).
        numbers: of each ranking, its index among all prompts.
    """

    query: list[int]
    responses: list[list[int]] = field(default_factory=list)
    places: list[list[int]] = field(default_factory=list)
    ranks: list[list[int]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Positions of the packed sequence."""
        return len(self.query) + len(self.responses) * max(map(len, self.responses))


def ranked_posts(prompts: Sequence[RankedPrompt], *, share: bool) -> list[RankedPost]:
    """Prompts as they are encoded: each alone, or with `share` those of equal query together.

    Equal summaries of a post are then encoded once. Posts are in the order of their first prompt.
    """
    posts: dict[object, RankedPost] = {}
    for number, prompt in enumerate(prompts):
        post = posts.setdefault(tuple(prompt.query) if share else number, RankedPost(prompt.query))
        place = {tuple(response): index for index, response in enumerate(post.responses)} if share else {}
        places = []
        for response in prompt.responses:
            if tuple(response) not in place or not share:
                place[tuple(response)] = len(post.responses)
                post.responses.append(response)
            places.append(place[tuple(response)])
        post.places.append(places)
        post.ranks.append(prompt.rank)
        post.numbers.append(number)
    return list(posts.values())


def training_posts(prompts: Sequence[RankedPrompt], settings: RewardSettings) -> list[RankedPost]:
    """What the batches are made of: rankings, each whole or with those of its post, or single pairs."""
    chosen = untied_pairs(prompts) if settings.pairs == "apart" else prompts
    return ranked_posts(chosen, share=settings.share_posts)


@dataclass(frozen=True)
class RankedBatch:
    """A packed batch of B posts with at most S summaries, and the R rankings among them.

    Attributes:
        places: (R,K) int64, indices into the flattened (B,S) scores.
        ranks: (R,K) int64. present: (R,K) bool.
    """

    packed: PackedBatch
    places: Tensor
    ranks: Tensor
    present: Tensor

    def to(self, device: torch.device) -> RankedBatch:
        """The same batch on another device."""
        return RankedBatch(
            self.packed.to(device), self.places.to(device), self.ranks.to(device), self.present.to(device)
        )


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


def collate_posts(posts: Sequence[RankedPost], pad: int) -> RankedBatch:
    """Pad posts, summaries and rankings; a ranking with fewer than K summaries has absent ones."""
    packed = collate([post.query for post in posts], [post.responses for post in posts], pad)
    summaries = packed.response.shape[1]
    rows = [
        ([row * summaries + place for place in places], rank)
        for row, post in enumerate(posts)
        for places, rank in zip(post.places, post.ranks, strict=True)
    ]
    shape = len(rows), max(len(rank) for _, rank in rows)
    places, ranks = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    present = torch.zeros(shape, dtype=torch.bool)
    for row, (place, rank) in enumerate(rows):
        places[row, : len(place)], ranks[row, : len(rank)] = torch.tensor(place), torch.tensor(rank)
        present[row, : len(rank)] = True
    return RankedBatch(packed, places, ranks, present)


def ranking_loss(parts: nn.ModuleDict, batch: RankedBatch) -> Loss:
    """InstructGPT's K-way loss summed over rankings; with K = 2 the paper's pairwise loss."""
    model = as_model(parts["reward"])
    scores = response_scores(model, batch.packed).flatten()[batch.places]
    rankings = ordered_pairs(batch.ranks, batch.present).any(-1).any(-1).sum()
    with torch.no_grad():
        correct, pairs = pair_accuracy(scores, batch.ranks, batch.present)
        accuracy = (correct / pairs.clamp(min=1)).sum()
    return Loss(
        kway_loss(scores, batch.ranks, batch.present, count=1.0),
        rankings,
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


def shared_scores(stepper: Stepper, posts: Sequence[RankedPost], pad: int) -> list[list[float]]:
    """The trained model's score of every summary, a row for each ranking; every process must call.

    Scores are without a shift. The model is as it was trained, whole or sharded, and the processes share the
    batches: references and validation pairs together are more than the training pairs, too many for one of
    them to score alone.
    """
    accelerator = stepper.accelerator
    stepper.modules["reward"].train(False)
    batches = list(inference_batches([post.length for post in posts]))
    most = max(len(post.responses) for post in posts)
    scores = torch.zeros(len(posts), most, dtype=torch.float64, device=accelerator.device)
    with torch.no_grad():
        for first in range(0, len(batches), accelerator.num_processes):
            number = first + accelerator.process_index
            # A process without a batch of its own repeats the last one: all must call equally often.
            rows = batches[min(number, len(batches) - 1)]
            packed = collate_posts([posts[row] for row in rows], pad).packed
            found = stepper.call(_rewards, packed.to(accelerator.device))
            if number < len(batches):
                scores[rows, : found.shape[1]] = found.double()
    by_ranking = {
        number: [row[place] for place in places]
        for row, post in zip(accelerator.reduce(scores, "sum").tolist(), posts, strict=True)
        for number, places in zip(post.numbers, post.places, strict=True)
    }
    return [by_ranking[number] for number in sorted(by_ranking)]


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
