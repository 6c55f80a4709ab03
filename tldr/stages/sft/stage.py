"""Supervised fine-tuning on the authors' references (P App. B.1).

The loss is on the response, EOS included; `query_loss` adds the query's tokens, as Huang et al.
(2024) do. InstructGPT's variant is a matter of settings: 16 epochs, residual dropout 0.2, cosine
to 10 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from tldr.models.ladder import disable_dropout, load_policy, save_policy, set_dropout
from tldr.models.lora import add_lora
from tldr.models.packed import PackedBatch, collate, response_logprobs
from tldr.queries.encode import encode_queries, encode_responses
from tldr.settings.base import scalar
from tldr.stages.pretrain.stage import Document, collate_documents, language_loss
from tldr.stages.sft import SFTRun
from tldr.stages.shared.common import (
    as_model,
    checkpoint_folder,
    open_tokenizer,
    pad_id,
    read_posts,
    share,
)
from tldr.train.batching import BatchPlan, micro_batches
from tldr.train.checkpoint import deal
from tldr.train.loop import TrainLoop
from tldr.train.processes import make_accelerator
from tldr.train.rng import derive
from tldr.train.stepper import Loss, Stepper

Example = tuple[list[int], list[int]]
"""A query and its reference in tokens."""


@dataclass
class Best:
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


def run(ctx: SFTRun) -> None:
    """Fine-tune ``policy`` on ``sft.jsonl`` of ``data``; write ``checkpoint/``.

    The validation loss on valid1 is logged once an epoch (and chooses the weights when
    `select: valid_loss`).
    """
    settings = ctx.settings
    accelerator = make_accelerator(ctx.precision)
    tokenizer = open_tokenizer(ctx.inputs.data)
    examples = encode_examples(ctx, tokenizer, "sft")
    held_out = encode_examples(ctx, tokenizer, "valid1")
    policy = load_policy(checkpoint_folder(ctx.inputs.policy))
    set_dropout(policy, settings.dropout)
    add_lora(policy, settings.lora, derive(ctx.seed, "sft", "lora"))
    policy.train()
    plan = BatchPlan(
        [len(query) + len(response) for query, response in examples],
        scalar(settings.batch),
        derive(ctx.seed, "sft"),
        epochs=scalar(settings.epochs),
        processes=accelerator.num_processes,
    )
    stepper = Stepper(accelerator, {"policy": policy}, settings, derive(ctx.seed, "sft"))
    loop = TrainLoop("sft", ctx.folder, stepper, plan.total_updates, settings)
    best = Best(loop.tensors, loop.extra)

    def batches(rows: list[int]) -> list[PackedBatch]:
        parts = share(rows, settings, accelerator)
        packed = [pack([examples[i] for i in part], pad_id(tokenizer)) for part in parts]
        return [batch.to(accelerator.device) for batch in packed]

    def on_update(done: int, row: dict[str, float]) -> None:
        if done % plan.per_epoch == 0 or done == plan.total_updates:
            row["valid_loss"] = validation_loss(stepper, held_out, pad_id(tokenizer))
            if settings.select == "valid_loss":
                best.offer(row["valid_loss"], stepper.modules["policy"])

    def update(index: int) -> dict[str, float]:
        loss = full_text_loss if settings.query_loss else response_loss
        return stepper.step(loss, batches(plan.batch(index)))

    loop.on_update = on_update
    loop.run(update)
    if settings.select == "valid_loss":
        best.restore(stepper.modules["policy"])
    if (whole := stepper.whole("policy")) is not None:
        trained = as_model(whole)
        disable_dropout(trained)
        card = f"SFT on {len(examples):,} references, {scalar(settings.epochs):g} epochs."
        save_policy(trained, tokenizer, ctx.folder / "checkpoint", card)


def encode_examples(ctx: SFTRun, tokenizer: PreTrainedTokenizerBase, name: str) -> list[Example]:
    """Queries and references of a post file, in tokens, within the study's windows."""
    posts = read_posts(ctx.inputs.data, name, references=True)
    queries = encode_queries(tokenizer, posts, ctx.lengths.query)
    responses = encode_responses(tokenizer, [post.summary or "" for post in posts], ctx.lengths.response)
    return list(zip(queries, responses, strict=True))


def pack(examples: Sequence[Example], pad: int) -> PackedBatch:
    """A batch with one response a query."""
    return collate([query for query, _ in examples], [[response] for _, response in examples], pad)


def response_loss(parts: nn.ModuleDict, batch: PackedBatch) -> Loss:
    """Summed cross-entropy of the response tokens."""
    policy = as_model(parts["policy"])
    logprobs = response_logprobs(policy, batch)
    return Loss(-logprobs.sum(), batch.response_mask.sum(), tokens=batch.tokens)


def full_text_loss(parts: nn.ModuleDict, batch: PackedBatch) -> Loss:
    """Summed cross-entropy of query and response tokens alike (only padding is masked)."""
    documents = [
        Document(query[q].tolist() + response[0][r[0]].tolist(), 0)
        for query, q, response, r in zip(
            batch.query, batch.query_mask, batch.response, batch.response_mask, strict=True
        )
    ]
    return language_loss(parts, collate_documents(documents, 0, 1.0).to(batch.query.device))


def validation_loss(stepper: Stepper, examples: list[Example], pad: int, batch: int = 64) -> float:
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
