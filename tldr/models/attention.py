"""Causal attention on a CPU, computed block by block without the masked half of the matrix.

Plain ("eager") attention computes all L x L scores of a head and passes over them a dozen times. Half of
them lie above the diagonal. Here a block of queries attends only to the keys up to its own end, the query is
scaled instead of the scores, and the backward pass reuses saved probabilities. At the lengths of TL;DR
torch's fused kernel is slower than either (`tests/models/test_attention.py` checks that all agree;
results/speed has the figures).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import eager_mask

BLOCKED = "tldr_blocked"
"""The name of this attention in transformers."""

BLOCK, WIDE_BLOCK = 32, 128
"""Queries in a block, and in one of a wide head. The smaller it is, the less of the masked half is computed;
a wide head's products are faster in large blocks."""

WIDE = 64
"""Dimensions of a wide head."""

NARROW = 16
"""A product with fewer columns is taken transposed: MKL and oneDNN need up to five times as long for it."""

LONGEST = 1024
"""Longest sequence, in tokens, that is trained with this attention. It keeps L x L / 2 numbers per head for
the backward pass; torch's fused kernel keeps none."""


def _blocks(length: int, width: int) -> Iterator[tuple[int, int]]:
    """Bounds of the blocks, last block first: its backward pass writes the gradient of every key."""
    size = BLOCK if width < WIDE else WIDE_BLOCK
    for start in range((length - 1) // size * size, -1, -size):
        yield start, min(start + size, length)


def _product(one: Tensor, other: Tensor) -> Tensor:
    """``one @ other`` of (N,L,L') and (N,L',d)."""
    if other.shape[-1] < NARROW:
        return torch.bmm(other.mT, one.mT).mT
    return torch.bmm(one, other)


@contextmanager
def read_from(module: nn.Module, start: int) -> Iterator[None]:
    """Inside, only outputs from position `start` on are needed: the attention skips earlier blocks."""
    module.read_from = start  # type: ignore[assignment]
    try:
        yield
    finally:
        del module.read_from


def multiplied_in(tensor: Tensor) -> torch.dtype:
    """The dtype of the tensor in a matrix product: autocast's, or its own without autocast."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


class _Blocked(torch.autograd.Function):
    """Softmax attention of (N,L,d) queries, keys and values, N = B*H, under a causal mask.

    The output of blocks that end at `first` or earlier is 0.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, heads: int, first: int
    ) -> Tensor:
        rows, length, width = query.shape
        out = torch.empty_like(value)
        kept, ctx.blocks = [], [block for block in _blocks(length, width) if block[1] > first]
        out[:, : ctx.blocks[-1][0]] = 0
        for start, end in ctx.blocks:
            scores = torch.bmm(query[:, start:end], key[:, :end].mT)
            scores.view(rows // heads, heads, end - start, end).add_(mask[:, :, start:end, :end])
            probs = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
            out[:, start:end] = _product(probs, value[:, :end])
            kept.append(probs)
        ctx.save_for_backward(query, key, value, *kept)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        d_query, d_key, d_value = (torch.empty_like(part) for part in (query, key, value))
        length = query.shape[1]
        d_query[:, : ctx.blocks[-1][0]] = 0
        for (start, end), probs in zip(ctx.blocks, kept, strict=True):
            above = grad[:, start:end]
            d_probs = torch.bmm(above, value[:, :end].mT)
            d_scores = torch._softmax_backward_data(d_probs, probs, -1, probs.dtype)
            d_query[:, start:end] = _product(d_scores, key[:, :end])
            to_key = _product(d_scores.mT, query[:, start:end])
            to_value = _product(probs.mT, above)
            if end == length:
                d_key.copy_(to_key)
                d_value.copy_(to_value)
            else:
                d_key[:, :end] += to_key
                d_value[:, :end] += to_value
        return d_query, d_key, d_value, None, None, None


@contextmanager
def _without_onednn() -> Iterator[None]:
    """Turn oneDNN off: it copies all keys of a view for a single query, which is 3 to 10 times slower."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@_without_onednn()
def _plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """Attention of a few queries to a cache, without gradients: (B,H,L,d). Shared keys are read once."""
    rows, heads, length, _ = query.shape
    shared = (query * scaling).view(rows, key.shape[1], -1, query.shape[-1])
    scores = (shared @ key.mT).view(rows, heads, length, -1)
    if mask is not None:
        scores += mask
    probs = torch.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype)
    return (probs.view(*shared.shape[:3], -1) @ value).view(rows, heads, length, -1)


def blocked_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Attention with the interface of transformers; equals its "eager" attention for every causal mask.

    Training on long sequences and attention dropout use torch's fused kernel.

    Args:
        query: (B,H,L,d).
        key, value: (B,H/g,L',d); L' > L with a cache.
        attention_mask: (B,1,L,L') additive; it masks all later positions.
        scaling: factor of the scores; None: 1/sqrt(d).

    Returns:
        The outputs (B,L,H,d), and None in place of the attention weights.
    """
    length = query.shape[2]
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    whole = attention_mask is not None and 1 < length == key.shape[2]
    learns = torch.is_grad_enabled()
    if not (whole or learns or dropout):
        decoded = _plain(query.contiguous(), key, value, attention_mask, scaling)
        return decoded.transpose(1, 2).contiguous(), None
    if not whole or dropout or (learns and length > LONGEST):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **rest
        )
    assert attention_mask is not None
    dtype, first = multiplied_in(value), getattr(module, "read_from", 0)
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    flat = (part.to(dtype).flatten(0, 1) for part in (query * scaling, key, value))
    with torch.autocast(query.device.type, enabled=False):
        out = _Blocked.apply(*flat, attention_mask, query.shape[1], first)  # type: ignore[no-untyped-call]
    return out.unflatten(0, query.shape[:2]).transpose(1, 2).contiguous(), None


AttentionInterface.register(BLOCKED, blocked_attention)
AttentionMaskInterface.register(BLOCKED, eager_mask)
