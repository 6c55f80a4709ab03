"""The packed forward pass, shared by SFT, reward modelling, PPO and scoring.

B queries with K responses each become B sequences of length Q + K*R. A query is encoded once for
all its responses. Every response attends only to its query and to itself, and its positions continue
from the query's end, so each result equals that of the response run alone. Masked pad ids are
replaced by 0 before the forward, so a pad token outside the embedding needs no resize
(Huang et al. 2024, detail 3).

A model wrapped for several devices (DDP, FSDP2) must be called through the wrapper: wrap a module
whose `forward` calls these functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast, overload

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from tldr.errors import UsageError
from tldr.models.tail import last_layer_from
from tldr.models.vocabulary import entropies, mask_logits

LOGITS_CHUNK = 2**26
"""Most logits in memory at once (256 MiB in fp32); more are computed in chunks, recomputed in backward."""


@dataclass(frozen=True)
class PackedBatch:
    """B queries with K responses each.

    Attributes:
        query: (B,Q) int64, left-padded; each row has at least one real token.
        query_mask: (B,Q) bool, True on real tokens.
        response: (B,K,R) int64, right-padded.
        response_mask: (B,K,R) bool, True on real tokens incl. EOS; an all-False row is an absent
            response.
    """

    query: Tensor
    query_mask: Tensor
    response: Tensor
    response_mask: Tensor

    def __len__(self) -> int:
        return self.query.shape[0]

    @property
    def tokens(self) -> int:
        """Number of real tokens, the count for throughput."""
        return int(self.query_mask.sum() + self.response_mask.sum())

    @property
    def positions(self) -> int:
        """Number of computed positions, padding included: B * (Q + K*R)."""
        return self.query.numel() + self.response.numel()

    def to(self, device: torch.device | str) -> PackedBatch:
        """The same batch on another device."""
        return PackedBatch(
            self.query.to(device),
            self.query_mask.to(device),
            self.response.to(device),
            self.response_mask.to(device),
        )

    def select(self, rows: Tensor | slice) -> PackedBatch:
        """Some of the queries, each with all its responses."""
        return PackedBatch(
            self.query[rows], self.query_mask[rows], self.response[rows], self.response_mask[rows]
        )

    @property
    def longest(self) -> tuple[int, int]:
        """Real tokens in the longest query and in the longest response: the columns that are needed."""
        query, response = self.query_mask.sum(-1).amax(), self.response_mask.sum(-1).amax()
        width, length = torch.stack([query, response]).tolist()  # one device synchronisation
        return width, max(length, 1)

    def trimmed(self) -> PackedBatch:
        """The same batch without the columns that are padding in every row."""
        width, length = self.longest
        return PackedBatch(
            self.query[:, -width:],
            self.query_mask[:, -width:],
            self.response[..., :length],
            self.response_mask[..., :length],
        )


class HiddenStates(NamedTuple):
    """Last hidden states (B,K,R,d): `after` at each response token, `before` where it is predicted."""

    before: Tensor
    after: Tensor


def collate(
    queries: Sequence[Sequence[int]], responses: Sequence[Sequence[Sequence[int]]], pad_id: int
) -> PackedBatch:
    """Pad token lists to a batch as wide as its longest query and response.

    Args:
        queries: B token lists, none empty.
        responses: the responses of each query. K is the largest number of responses; an empty or
            missing list is an absent response.

    Raises:
        UsageError: there is no query or no response, a query is empty, or the numbers of queries and
            response lists differ.
    """
    if not queries or len(queries) != len(responses):
        raise UsageError(f"a batch of {len(queries)} queries and {len(responses)} lists of responses")
    if not any(tokens for row in responses for tokens in row):
        raise UsageError("the batch has no response")
    if not all(queries):
        raise UsageError("a query has no tokens", remedy="give every query at least one token")
    rows, width = len(queries), max(map(len, queries))
    options = max(map(len, responses))
    length = max(len(tokens) for row in responses for tokens in row)
    query = torch.full((rows, width), pad_id)
    query_mask = torch.zeros(rows, width, dtype=torch.bool)
    response = torch.full((rows, options, length), pad_id)
    response_mask = torch.zeros(rows, options, length, dtype=torch.bool)
    for b, (tokens, answers) in enumerate(zip(queries, responses, strict=True)):
        query[b, width - len(tokens) :] = torch.tensor(tokens)
        query_mask[b, width - len(tokens) :] = True
        for k, answer in enumerate(answers):
            response[b, k, : len(answer)] = torch.tensor(answer, dtype=torch.int64)
            response_mask[b, k, : len(answer)] = True
    return PackedBatch(query, query_mask, response, response_mask)


def additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """An additive attention mask: 0 where allowed, the dtype's lowest value elsewhere."""
    return torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)


def attention_mask(real: Tensor, segment: Tensor, dtype: torch.dtype) -> Tensor:
    """Mask for causal attention to segment 0 (the query) and to the token's own segment, never to padding.

    Args:
        real: (B,L) bool, True on real tokens.
        segment: (L,) segment number of each position.

    Returns:
        (B,1,L,L) additive. Every position, padding included, attends to itself: some attention kernels
        return NaN for an empty row of the softmax.
    """
    here, there = segment[:, None], segment[None, :]
    causal = torch.ones_like(here == there).tril()
    itself = torch.eye(len(segment), dtype=torch.bool, device=segment.device)
    allowed = causal & ((there == 0) | (there == here)) & real[:, None] | itself
    return additive(allowed, dtype)[:, None]


def check_context(model: PreTrainedModel, query_mask: Tensor, response_length: int | Tensor) -> None:
    """Raise `UsageError` if a query with its response is longer than the model's context.

    Otherwise learned positions would fail with an index error (which kills the process on a GPU), and
    rotary ones would silently leave the trained range.

    Args:
        response_length: tokens of the longest response to each query, one number or (B,).
    """
    context = int(model.config.max_position_embeddings)
    longest = query_mask.sum(-1) + response_length
    if (longest > context).any():
        raise UsageError(
            f"query and response have {int(longest.max())} tokens together, the model's context is {context}",
            remedy="shorten lengths.query (zero-shot: evaluation.zero_shot.query_tokens) or "
            "lengths.response, or use a model with a longer context",
        )


def _layout(batch: PackedBatch, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids (B,L), positions (B,L) and the additive mask (B,1,L,L), L = Q + K*R."""
    _, options, length = batch.response.shape
    width, device = batch.query.shape[1], batch.query.device
    real = torch.cat([batch.query_mask, batch.response_mask.flatten(1)], dim=1)
    ids = torch.cat([batch.query, batch.response.flatten(1)], dim=1).masked_fill(~real, 0)

    in_query = (batch.query_mask.cumsum(-1) - 1).clamp(min=0)
    in_response = torch.arange(length, device=device).repeat(options) + in_query[:, -1:] + 1
    # Right padding gets position 0, because its real position could be beyond the context.
    in_response = in_response.masked_fill(~batch.response_mask.flatten(1), 0)
    positions = torch.cat([in_query, in_response], dim=1)

    segment = torch.cat(
        [
            torch.zeros(width, device=device),
            torch.arange(1, options + 1, device=device).repeat_interleave(length),
        ]
    )
    return ids, positions, attention_mask(real, segment, dtype)


def hidden_states(model: PreTrainedModel, batch: PackedBatch) -> HiddenStates:
    """Run the body once over the packed batch.

    Args:
        model: a causal LM or a sequence classifier of one of `tldr.models.ladder.ARCHITECTURES`.

    Returns:
        `after[b,k,t]`, the last hidden state at response token t, and `before[b,k,t]`, the state that
        predicts that token (t = 0: the query's last token); both (B,K,R,d). Values at padded
        positions are undefined.

    Raises:
        UsageError: a query with its response exceeds the model's context.
    """
    options, length = batch.response.shape[1:]
    width = batch.query.shape[1]
    if width + length > model.config.max_position_embeddings:  # the exact check synchronises with the device
        check_context(model, batch.query_mask, batch.response_mask.sum(-1).amax(-1))
    ids, positions, mask = _layout(batch, model.dtype)
    with last_layer_from(model, len(batch), width - 1):
        out = model.base_model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
    states: Tensor = out.last_hidden_state
    after = states[:, width:].reshape(len(batch), options, length, states.shape[-1])
    start = states[:, None, width - 1 : width].expand(-1, options, -1, -1)
    return HiddenStates(before=torch.cat([start, after[:, :, :-1]], dim=2), after=after)


def _token_logprobs(
    policy: PreTrainedModel, states: Tensor, targets: Tensor, temperature: float, entropy: bool
) -> Tensor:
    """(1,N) log-probabilities of `targets` (N,); with `entropy` (2,N), entropies in the second row."""
    head: Any = policy
    logits = mask_logits(policy, head.get_output_embeddings()(states).float() / temperature)
    logprobs = torch.log_softmax(logits, dim=-1)
    rows = [logprobs.gather(-1, targets[:, None]).squeeze(-1)]
    if entropy:
        rows.append(entropies(policy, logprobs))
    return torch.stack(rows)


@overload
def response_logprobs(
    policy: PreTrainedModel, batch: PackedBatch, temperature: float = ..., entropy: Literal[False] = ...
) -> Tensor: ...
@overload
def response_logprobs(
    policy: PreTrainedModel, batch: PackedBatch, temperature: float = ..., *, entropy: Literal[True]
) -> tuple[Tensor, Tensor]: ...
def response_logprobs(
    policy: PreTrainedModel, batch: PackedBatch, temperature: float = 1.0, entropy: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Log-probability of every response token under softmax(logits / temperature).

    Logits are computed only at real response tokens, in fp32 even under bf16 autocast, and in
    chunks of at most `LOGITS_CHUNK`, which the backward pass recomputes.

    Args:
        temperature: the sampling temperature, above 0.
        entropy: also return the entropy of each token's distribution.

    Returns:
        (B,K,R) float32 in nats, 0.0 at padded positions; with `entropy`, two such tensors.

    Raises:
        UsageError: the temperature is not above 0.
    """
    if temperature <= 0:
        raise UsageError(
            f"cannot compute log-probabilities at temperature {temperature}", remedy="use one above 0"
        )
    mask = batch.response_mask
    states, targets = hidden_states(policy, batch).before[mask], batch.response[mask]
    out = torch.zeros(1 + entropy, *mask.shape, device=mask.device)
    out[:, mask] = token_logprobs(policy, states, targets, temperature, entropy)
    return (out[0], out[1]) if entropy else out[0]


def token_logprobs(
    policy: PreTrainedModel, states: Tensor, targets: Tensor, temperature: float = 1.0, entropy: bool = False
) -> Tensor:
    """Log-probabilities of tokens, given the last hidden states that predict them.

    Logits are computed in chunks of at most `LOGITS_CHUNK`, which the backward pass recomputes.

    Args:
        states: (N,d).
        targets: (N,) int64.
        entropy: add a second row with the entropy of each distribution.

    Returns:
        (1,N) float32 in nats, or (2,N).
    """
    rows = max(1, LOGITS_CHUNK // int(policy.config.vocab_size))
    pieces = list(zip(torch.split(states, rows), torch.split(targets, rows), strict=True))
    # The backward pass needs every chunk's softmax: recomputing it saves the memory.
    recompute = len(pieces) > 1 and torch.is_grad_enabled()
    values = [
        checkpoint(_token_logprobs, policy, *piece, temperature, entropy, use_reentrant=False)
        if recompute
        else _token_logprobs(policy, *piece, temperature, entropy)
        for piece in pieces
    ]
    return torch.cat(values, dim=1)


def _score(model: PreTrainedModel, states: Tensor) -> Tensor:
    """The scalar head on (...,d) states, shift applied; in fp32, which autocast would not keep."""
    shift = getattr(model.config, "reward_shift", 0.0)
    head: Tensor = cast(Any, model.score).weight[0].float()
    return (states.float() * head).sum(-1) - shift


def response_scores(reward_model: PreTrainedModel, batch: PackedBatch) -> Tensor:
    """Score of each response, read at its last real token (EOS, unless the response was cut).

    Source: OAI reward_model.py (`first_true(pad) - 1`); Huang et al. 2024, detail 12.

    Returns:
        (B,K) float32, the reference-mean shift applied; 0.0 for an absent response.
    """
    after = hidden_states(reward_model, batch).after
    lengths = batch.response_mask.sum(-1)
    last = (lengths - 1).clamp(min=0)[:, :, None, None].expand(-1, -1, 1, after.shape[-1])
    scores = _score(reward_model, after.gather(2, last).squeeze(2))
    return scores.masked_fill(lengths == 0, 0.0)


def response_values(value_model: PreTrainedModel, batch: PackedBatch) -> Tensor:
    """Value of the state before each response token (the state in which the token is chosen).

    Returns:
        (B,K,R) float32, 0.0 at padded positions.
    """
    values = _score(value_model, hidden_states(value_model, batch).before)
    return values.masked_fill(~batch.response_mask, 0.0)
