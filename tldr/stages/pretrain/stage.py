"""Next-token training from scratch on the toy world's corpus: the ladder's "pretrained" models."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from tldr.errors import UsageError
from tldr.models.ladder import build_policy, parameter_count, save_policy
from tldr.models.packed import token_logprobs
from tldr.queries.encode import encode_texts
from tldr.settings.base import scalar
from tldr.stages.data.stage import read_corpus
from tldr.stages.pretrain import PretrainRun
from tldr.stages.shared.common import as_model, eos_id, open_tokenizer, pad_id, share
from tldr.train.batching import BatchPlan
from tldr.train.loop import TrainLoop
from tldr.train.processes import make_accelerator
from tldr.train.rng import derive
from tldr.train.stepper import Loss, Stepper


@dataclass(frozen=True)
class Document:
    """A text in tokens, EOS at its end; the first `query` of them are the post's."""

    ids: list[int]
    query: int


@dataclass(frozen=True)
class TextBatch:
    """Right-padded documents: `ids` (B,T) int64 and `weights` (B,T) float32, 0 at padding.

    `weights[b, t]` weighs the loss of predicting token t; the first token is predicted by nothing.
    """

    ids: Tensor
    weights: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> TextBatch:
        """The same batch on another device."""
        return TextBatch(self.ids.to(device), self.weights.to(device), self.mask.to(device))


def run(ctx: PretrainRun) -> None:
    """Train `ctx.model` from a random init for `steps` updates; write ``checkpoint/``.

    Inputs: ``data`` (folder with ``corpus.jsonl`` and ``tokenizer/``).
    """
    if ctx.model is None or ctx.model.path is not None:
        raise UsageError(
            "pretraining starts from a config", where="ladder", remedy="give arch, d_model, layers, heads"
        )
    tokenizer = open_tokenizer(ctx.inputs.data)
    documents = encode_corpus(ctx, tokenizer)
    settings = ctx.settings
    accelerator = make_accelerator(ctx.precision)
    policy = build_policy(
        ctx.model,
        vocab_size=len(tokenizer),
        eos_id=eos_id(tokenizer),
        pad_id=pad_id(tokenizer),
        seed=derive(ctx.seed, "init"),
    )
    plan = BatchPlan(
        [len(document.ids) for document in documents],
        scalar(settings.batch),
        derive(ctx.seed, "pretrain"),
        updates=scalar(settings.steps),
        processes=accelerator.num_processes,
    )
    parameters = parameter_count(policy)
    stepper = Stepper(accelerator, {"policy": policy}, settings, derive(ctx.seed, "pretrain"))
    loop = TrainLoop("pretrain", ctx.folder, stepper, plan.total_updates, settings)

    def update(index: int) -> dict[str, float]:
        batches = [
            collate_documents([documents[i] for i in rows], pad_id(tokenizer), settings.query_weight)
            for rows in share(plan.batch(index), settings, accelerator)
        ]
        return stepper.step(language_loss, [batch.to(accelerator.device) for batch in batches])

    loop.run(update)
    if (trained := stepper.whole("policy")) is not None:
        card = f"Pretrained from scratch on the toy corpus, {parameters:,} parameters."
        save_policy(as_model(trained), tokenizer, ctx.folder / "checkpoint", card)


def encode_corpus(ctx: PretrainRun, tokenizer: PreTrainedTokenizerBase) -> list[Document]:
    """Every document in tokens with EOS, cut to the model's context."""
    context = ctx.model.context if ctx.model else 0
    return encode_documents(read_corpus(ctx.inputs.data), tokenizer, context)


def encode_documents(
    corpus: list[dict[str, str | int]], tokenizer: PreTrainedTokenizerBase, context: int
) -> list[Document]:
    """Documents in tokens with EOS, cut to `context`; the post part is the tokens of its characters."""
    texts = [str(document["text"]) for document in corpus]
    heads = [
        text[: int(document.get("query_chars", 0))] for text, document in zip(texts, corpus, strict=True)
    ]
    whole, posts = encode_texts(tokenizer, texts), encode_texts(tokenizer, heads)
    return [
        Document([*ids, eos_id(tokenizer)][:context], min(len(post), context))
        for ids, post in zip(whole, posts, strict=True)
    ]


def collate_documents(documents: list[Document], pad: int, query_weight: float) -> TextBatch:
    """Right-padded batch; a token of the post weighs `query_weight`, the others 1."""
    width = max(len(document.ids) for document in documents)
    ids = torch.full((len(documents), width), pad)
    weights = torch.zeros(len(documents), width)
    mask = torch.zeros(len(documents), width, dtype=torch.bool)
    for row, document in enumerate(documents):
        length = len(document.ids)
        ids[row, :length] = torch.tensor(document.ids)
        mask[row, :length] = True
        weights[row, : document.query] = query_weight
        weights[row, document.query : length] = 1.0
    weights[:, 0] = 0.0
    return TextBatch(ids, weights, mask)


def language_loss(parts: nn.ModuleDict, batch: TextBatch) -> Loss:
    """Weighted cross-entropy of next tokens; logits are computed, in chunks, where a token has weight."""
    policy = as_model(parts["policy"])
    ids = batch.ids.masked_fill(~batch.mask, 0)
    states = policy.base_model(
        input_ids=ids, attention_mask=batch.mask.long(), use_cache=False
    ).last_hidden_state
    counted = batch.weights[:, 1:] > 0
    logprobs = token_logprobs(policy, states[:, :-1][counted], batch.ids[:, 1:][counted])[0]
    weights = batch.weights[:, 1:][counted]
    return Loss(-(logprobs * weights).sum(), weights.sum(), tokens=batch.mask.sum())
