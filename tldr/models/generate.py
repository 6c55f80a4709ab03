"""Sampling from a policy: a decoding loop with a key-value cache.

A prompt is encoded once for all its samples. All uniform random numbers are drawn before the loop
begins: a sample depends only on the numbers of its own row, not on when other rows stop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from tldr.errors import UsageError
from tldr.models.cache import preallocated_cache, rows_of
from tldr.models.packed import additive, attention_mask, check_context
from tldr.models.tail import last_layer_from
from tldr.models.vocabulary import mask_logits

ENCODED = {"cpu": 2**10, "cuda": 2**14}
"""Query positions encoded in one pass: enough to fill the device, with little padding."""


@dataclass(frozen=True)
class Generation:
    """n responses to each of B queries; R is the length of the longest, at most max_new_tokens.

    Attributes:
        response: (B,n,R) int64, the pad id after the stop.
        mask: (B,n,R) bool, True on real tokens incl. the stop.
        logprobs: (B,n,R) float32 in nats under softmax(logits / temperature), before any top-p cut
            (temperature 1 when greedy); 0.0 at padding.
        stopped: (B,n) bool, whether EOS or a stop id came.
    """

    response: Tensor
    mask: Tensor
    logprobs: Tensor
    stopped: Tensor


@dataclass(frozen=True)
class _Draw:
    """Sampling settings and random numbers of one decoding loop."""

    n: int
    length: int
    temperature: float
    top_p: float
    stops: Tensor
    uniform: Tensor


def generate(
    policy: PreTrainedModel,
    query: Tensor,
    query_mask: Tensor,
    *,
    n: int,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    eos_id: int,
    pad_id: int,
    generator: torch.Generator | None = None,
    uniform: Tensor | None = None,
    stop_ids: Iterable[int] = (),
) -> Generation:
    """Draw n responses to each query, token by token until EOS.

    Args:
        query: (B,Q) int64, left-padded.
        query_mask: (B,Q) bool, True on real tokens.
        temperature: 0 takes the most likely token.
        top_p: sample from the smallest set of most likely tokens with at least this probability under
            the distribution at `temperature`; 1: all tokens.
        pad_id: fills each row after its stop.
        generator: on the policy's device; advanced by B * n * max_new_tokens numbers.
        uniform: the random numbers instead, (B,n,max_new_tokens) float64 from `torch.rand`.
        stop_ids: further tokens that end a response; they are kept, like EOS (zero-shot: newlines).

    Raises:
        UsageError: a setting is out of range, or query and response exceed the context.
    """
    if n < 1 or max_new_tokens < 1 or temperature < 0 or not 0 < top_p <= 1:
        raise UsageError(
            f"cannot sample {n} x {max_new_tokens} tokens at temperature {temperature} and top_p {top_p}",
            remedy="use counts >= 1, temperature >= 0 and 0 < top_p <= 1",
        )
    check_context(policy, query_mask, max_new_tokens)
    rows, device = query.shape[0], query.device
    shape = (rows * n, max_new_tokens)
    if uniform is None:
        uniform = torch.rand(shape, generator=generator, device=device, dtype=torch.float64)
    draw = _Draw(
        n=n,
        length=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        stops=torch.tensor(sorted({eos_id, *stop_ids}), device=device),
        uniform=uniform.view(shape),
    )
    training = policy.training
    policy.train(False)  # in training mode gradient checkpointing would silently drop the cache
    try:
        with torch.inference_mode():
            tokens, logprobs, lengths, stopped = _decode(policy, query, query_mask, draw)
    finally:
        policy.train(training)
    # Outside inference mode, so that autograd can use the results.
    mask = torch.arange(tokens.shape[1], device=device) < lengths[:, None]
    return Generation(
        response=tokens.masked_fill(~mask, pad_id).view(rows, n, -1),
        mask=mask.view(rows, n, -1),
        logprobs=logprobs.masked_fill(~mask, 0.0).view(rows, n, -1),
        stopped=stopped.clone().view(rows, n),
    )


def _decode(
    policy: PreTrainedModel, query: Tensor, query_mask: Tensor, draw: _Draw
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens and log-probs (B*n,R), lengths and stopped (B*n,); R: steps until all have stopped.

    The responses to a query share one row of the cache but do not attend to each other: column c
    belongs to the response `owner[:,c]`, or to the query (-1), or is padding (-2).
    """
    cache = preallocated_cache(policy.config, query.shape[1] + draw.n * draw.length)
    logits = _prefill(policy, query, query_mask, cache)[:, None].expand(-1, draw.n, -1)
    total, device = query.shape[0] * draw.n, query.device
    tokens = torch.zeros(total, draw.length, dtype=torch.int64, device=device)
    logprobs = torch.zeros(total, draw.length, device=device)
    lengths = torch.full((total,), draw.length, device=device)
    stopped = torch.zeros(total, dtype=torch.bool, device=device)
    slots = torch.arange(total, device=device).view(-1, draw.n)  # which responses are being computed
    owner = torch.where(query_mask, -1, -2)
    position = query_mask.sum(-1, keepdim=True)
    for step in range(draw.length):
        now = slots.flatten()
        chosen, logprob = pick(logits.flatten(0, 1), draw.uniform[now, step], draw.temperature, draw.top_p)
        tokens[now, step], logprobs[now, step] = chosen, logprob
        ended = torch.isin(chosen, draw.stops) & ~stopped[now]
        lengths[now] = torch.where(ended, step + 1, lengths[now])
        stopped[now] |= ended
        alive = ~stopped[slots]
        if step + 1 == draw.length or not alive.any():
            break
        chosen = chosen.view_as(slots)
        busy, most = alive.any(1).nonzero().squeeze(1), int(alive.sum(1).max())
        if 2 * len(busy) * most <= slots.numel():  # at least half of the slots have stopped: drop them
            kept = alive[busy].sort(dim=1, descending=True, stable=True).indices[:, :most]
            cache.batch_select_indices(busy)
            slots, chosen = slots[busy].gather(1, kept), chosen[busy].gather(1, kept)
            owner, position = owner[busy], position[busy]
        owner = torch.cat([owner, slots], dim=1)
        allowed = (owner == -1)[:, None] | (owner[:, None] == slots[:, :, None])
        out = policy(
            input_ids=chosen,
            attention_mask=additive(allowed, policy.dtype)[:, None],
            position_ids=(position + step).expand_as(slots),
            past_key_values=cache,
            use_cache=True,
        )
        logits = mask_logits(policy, out.logits)
    return tokens[:, : step + 1], logprobs[:, : step + 1], lengths, stopped


def _prefill(policy: PreTrainedModel, query: Tensor, query_mask: Tensor, cache: Cache) -> Tensor:
    """Encode the queries into `cache`; logits (B,V) of the first response token.

    Queries are encoded in groups, shortest first, without columns that are padding in the whole group.
    """
    rows, width = query.shape
    logits: list[Tensor] = []
    order = query_mask.sum(-1).argsort(stable=True)
    for some in _alike(query_mask.sum(-1)[order].tolist(), ENCODED.get(query.device.type, 2**10)):
        chosen = order[some]
        mask = query_mask[chosen]
        longest = int(mask.sum(-1).max())
        ids, mask = query[chosen, -longest:], mask[:, -longest:]
        one_segment = torch.zeros(longest, device=query.device)
        with last_layer_from(policy, len(chosen), longest - 1):
            out = policy(
                input_ids=ids.masked_fill(~mask, 0),
                attention_mask=attention_mask(mask, one_segment, policy.dtype),
                position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
                past_key_values=rows_of(cache, chosen, rows, width),
                use_cache=True,
                logits_to_keep=1,
            )
        logits.append(mask_logits(policy, out.logits[:, -1]))
    return torch.cat(logits)[order.argsort()]


def _alike(lengths: list[int], most: int) -> Iterator[slice]:
    """Slices of ascending lengths: each is one row, or has at most `most` positions when padded."""
    start = 0
    for end in range(1, len(lengths) + 1):
        if end == len(lengths) or (end + 1 - start) * lengths[end] > most:
            yield slice(start, end)
            start = end


def pick(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """Choose a token in each row by inverting the cumulative distribution.

    Args:
        logits: (N,V), any float dtype.
        uniform: (N,) float64 in [0, 1 - 2^-53], as torch draws them, so that `place` is below the total.
        temperature, top_p: see `generate`.

    Returns:
        Tokens (N,) int64 and their log-probabilities (N,) float32 at `temperature` (1 when it is 0),
        without the top-p cut.
    """
    logprobs = torch.log_softmax(logits.float() / (temperature or 1.0), dim=-1)
    if temperature == 0:
        tokens = logits.argmax(-1)
    else:
        probabilities, order = logprobs.exp(), None
        if top_p < 1:
            probabilities, order = probabilities.sort(dim=-1, descending=True, stable=True)
            above = probabilities.cumsum(-1) - probabilities
            probabilities = probabilities.masked_fill(above >= top_p, 0.0)
        cumulative = probabilities.cumsum(-1, dtype=torch.float64)
        place = uniform[:, None] * cumulative[:, -1:]
        index = torch.searchsorted(cumulative, place, right=True)  # never a token of probability 0
        tokens = (index if order is None else order.gather(-1, index)).squeeze(-1)
    return tokens, logprobs.gather(-1, tokens[:, None]).squeeze(-1)
