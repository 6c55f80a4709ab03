"""Training on whole texts: documents in tokens, their batches, and the loss on next tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tldr.mathematics.losses import response_loss
from tldr.models.packed import token_logprobs
from tldr.queries.encode import encode_texts
from tldr.stages.shared.batches import inference_batches
from tldr.stages.shared.device import Device
from tldr.stages.shared.networks import as_model
from tldr.stages.shared.tokenizers import eos_id
from tldr.train.stepper import Loss


@dataclass(frozen=True)
class EncodedDocument:
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


def encode_documents(
    corpus: list[dict[str, str | int]], tokenizer: PreTrainedTokenizerBase, context: int
) -> list[EncodedDocument]:
    """Documents in tokens with EOS, cut to `context`; the post part is the tokens of its characters."""
    texts = [str(document["text"]) for document in corpus]
    heads = [
        text[: int(document.get("query_chars", 0))] for text, document in zip(texts, corpus, strict=True)
    ]
    whole, posts = encode_texts(tokenizer, texts), encode_texts(tokenizer, heads)
    return [
        EncodedDocument([*ids, eos_id(tokenizer)][:context], min(len(post), context))
        for ids, post in zip(whole, posts, strict=True)
    ]


def collate_documents(documents: list[EncodedDocument], pad: int, query_weight: float) -> TextBatch:
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


def _logprobs_of(policy: PreTrainedModel, batch: TextBatch, counted: Tensor) -> Tensor:
    """Log-probabilities (N,) of the tokens after the first where `counted` (B,T-1) bool, row by row."""
    ids = batch.ids.masked_fill(~batch.mask, 0)
    states = policy.base_model(
        input_ids=ids, attention_mask=batch.mask.long(), use_cache=False
    ).last_hidden_state
    return token_logprobs(policy, states[:, :-1][counted], batch.ids[:, 1:][counted])[0]


def document_nats(
    policy: PreTrainedModel, documents: Sequence[EncodedDocument], pad: int, device: Device
) -> list[float]:
    """Summed cross-entropy (nats, temperature 1) of each document's tokens after the first, EOS included.

    The processes of `device` share the batches and all have every value.
    """
    own: dict[int, float] = {}
    for rows in device.crew.own(list(inference_batches([len(document.ids) for document in documents]))):
        batch = collate_documents([documents[row] for row in rows], pad, 1.0).to(device.device)
        with torch.inference_mode(), device.autocast():
            real = batch.mask[:, 1:]
            logprobs = _logprobs_of(policy, batch, real)
        ends = real.sum(dim=1).cumsum(0).tolist()
        sums = logprobs.double().cumsum(0).cpu().tolist()
        totals = [0.0, *(sums[end - 1] for end in ends)]
        own |= {row: before - after for row, (before, after) in zip(rows, pairwise(totals), strict=True)}
    found = device.crew.all_of(own)
    return [found[row] for row in range(len(documents))]


def language_loss(parts: nn.ModuleDict, batch: TextBatch) -> Loss:
    """Weighted cross-entropy of next tokens; logits are computed, in chunks, where a token has weight."""
    counted = batch.weights[:, 1:] > 0
    logprobs = _logprobs_of(as_model(parts["policy"]), batch, counted)
    weights = batch.weights[:, 1:][counted]
    real = torch.ones_like(logprobs, dtype=torch.bool)
    total = response_loss(logprobs, real, weights=weights, count=1.0)
    return Loss(total, weights.sum(), tokens=batch.mask.sum())
