"""Supervised fine-tuning on the authors' references (P App. B.1).

The loss is on the response, EOS included; `query_loss` adds the query's tokens, as Huang et al.
(2024) do. Settings give InstructGPT's variant: 16 epochs, residual dropout 0.2, cosine to 10 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tldr.mathematics import losses
from tldr.models.ladder import set_dropout
from tldr.models.lora import add_lora
from tldr.models.packed import PackedBatch, collate, response_logprobs
from tldr.queries.encode import encode_queries, encode_responses
from tldr.records import Post
from tldr.settings.base import scalar
from tldr.settings.models import Lengths
from tldr.stages.sft.settings import SFTSettings
from tldr.stages.shared.language import EncodedDocument, collate_documents, language_loss
from tldr.stages.shared.networks import as_model
from tldr.stages.shared.supervised import SupervisedTraining
from tldr.train.batching import BatchPlan, micro_batches
from tldr.train.checkpoint import deal
from tldr.train.rng import derive
from tldr.train.stepper import Loss, Stepper

QueryResponse = tuple[list[int], list[int]]
"""A query and its reference in tokens."""


def fine_tuning(
    policy: PreTrainedModel,
    examples: list[QueryResponse],
    plan: BatchPlan,
    settings: SFTSettings,
    accelerator: Accelerator,
    *,
    pad: int,
    seed: int,
) -> SupervisedTraining[QueryResponse, PackedBatch]:
    """Train a policy on references.

    Args:
        plan: the examples of every update (`fine_tuning_plan`).
        pad: token id of padding.
        seed: of the run.
    """
    set_dropout(policy, settings.dropout)
    add_lora(policy, settings.lora, derive(seed, "sft", "lora"))
    policy.train()
    return SupervisedTraining(
        Stepper(accelerator, {"policy": policy}, settings, derive(seed, "sft")),
        plan,
        settings,
        examples,
        collate=lambda chosen: pack(chosen, pad),
        loss=full_text_loss if settings.query_loss else response_loss,
    )


def fine_tuning_plan(
    examples: Sequence[QueryResponse], settings: SFTSettings, processes: int, *, seed: int
) -> BatchPlan:
    """The examples of every update.

    Raises:
        UsageError: too few examples for a batch, or for the processes that share it.
    """
    return BatchPlan(
        [len(query) + len(response) for query, response in examples],
        scalar(settings.batch),
        derive(seed, "sft"),
        epochs=scalar(settings.epochs),
        processes=processes,
    )


def encode_references(
    tokenizer: PreTrainedTokenizerBase, posts: list[Post], lengths: Lengths
) -> list[QueryResponse]:
    """Queries and references in tokens, within the study's windows."""
    queries = encode_queries(tokenizer, posts, lengths.query)
    responses = encode_responses(tokenizer, [post.summary or "" for post in posts], lengths.response)
    return list(zip(queries, responses, strict=True))


def pack(examples: Sequence[QueryResponse], pad: int) -> PackedBatch:
    """A batch with one response a query."""
    return collate([query for query, _ in examples], [[response] for _, response in examples], pad)


def response_loss(parts: nn.ModuleDict, batch: PackedBatch) -> Loss:
    """Summed cross-entropy of the response tokens."""
    policy = as_model(parts["policy"])
    logprobs = response_logprobs(policy, batch)
    total = losses.response_loss(logprobs, batch.response_mask, count=1.0)
    return Loss(total, batch.response_mask.sum(), tokens=batch.tokens)


def full_text_loss(parts: nn.ModuleDict, batch: PackedBatch) -> Loss:
    """Summed cross-entropy of query and response tokens alike (only padding is masked)."""
    documents = [
        EncodedDocument(query[q].tolist() + response[0][r[0]].tolist(), 0)
        for query, q, response, r in zip(
            batch.query, batch.query_mask, batch.response, batch.response_mask, strict=True
        )
    ]
    return language_loss(parts, collate_documents(documents, 0, 1.0).to(batch.query.device))


def validation_loss(stepper: Stepper, examples: list[QueryResponse], pad: int, batch: int = 64) -> float:
    """Mean loss of the reference tokens (nats a token), dropout off; the processes share the work.

    Args:
        batch: examples a forward pass.
    """
    policy = stepper.modules["policy"]
    training = policy.training
    policy.eval()
    accelerator = stepper.accelerator
    ordered = sorted(examples, key=lambda example: len(example[0]) + len(example[1]))
    sums = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
    with torch.no_grad():
        for rows in micro_batches(ordered, batch, accelerator.process_index, accelerator.num_processes):
            part = stepper.call(response_loss, pack(rows, pad).to(accelerator.device))
            sums += part.sums()[:2]
    policy.train(training)
    total, count = accelerator.reduce(sums, "sum").tolist()
    return float(total / count)


@dataclass
class BestWeights:
    """The best weights by validation loss so far, kept as tensors so that they survive a kill."""

    tensors: dict[str, Tensor]
    extra: dict[str, float]

    def offer(self, loss: float, model: nn.Module) -> None:
        """Keep the weights if `loss` is the lowest seen."""
        if loss < self.extra.get("best_loss", float("inf")):
            self.extra["best_loss"] = loss
            trained = ((name, tensor) for name, tensor in model.named_parameters() if tensor.requires_grad)
            self.tensors.update({name: tensor.detach().clone() for name, tensor in trained})

    def restore(self, model: nn.Module) -> None:
        """Put the kept weights back."""
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(deal(self.tensors[name], parameter))
