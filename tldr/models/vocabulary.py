"""The ids that a policy can never write: pad, and every id that its tokenizer does not own.

A model's vocabulary is often padded beyond its tokenizer, and a pad token added to the tokenizer may lie
inside that padding. Such ids are no text. `mask_logits` sets their logits to -inf wherever logits are read,
in sampling (`tldr.models.generate`) and in every log-probability and loss (`tldr.models.packed`). So text,
ids, counts and log-probabilities agree. Plain transformers does not know of this: `suppress` tells its
`generate` when a policy is saved.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import groupby
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tldr.queries.tokenizer import text_ids

_ATTRIBUTE = "_masked_ids"


class _MaskedIds:
    """Ids as an index tensor, made once for each device."""

    def __init__(self, ids: Iterable[int]):
        self._ids = sorted(ids)
        self._tensors: dict[torch.device, Tensor] = {}

    def on(self, device: torch.device) -> Tensor:
        """The ids, (M,) int64."""
        if device not in self._tensors:
            with torch.inference_mode(False):  # autograd keeps it for the backward pass of a loss
                self._tensors[device] = torch.tensor(self._ids, device=device)
        return self._tensors[device]


def unwritable_ids(tokenizer: PreTrainedTokenizerBase, rows: int) -> list[int]:
    """Of the ids below `rows`, those that no text contains: pad, and what the tokenizer does not own."""
    return sorted(set(range(rows)) - text_ids(tokenizer))


def logit_rows(policy: PreTrainedModel) -> int:
    """The number of logits at a position: the model's vocabulary, with its padding."""
    return int(cast(Any, policy).get_output_embeddings().weight.shape[0])


def mask_ids(policy: PreTrainedModel, ids: Iterable[int]) -> None:
    """Tell a causal LM which of its ids are never written; copies of the model know it as well."""
    setattr(policy, _ATTRIBUTE, _MaskedIds(ids))


def mask_unwritable(policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Mask what no text of the tokenizer contains; see `mask_ids`."""
    mask_ids(policy, unwritable_ids(tokenizer, logit_rows(policy)))


def mask_logits(policy: PreTrainedModel, logits: Tensor) -> Tensor:
    """The logits (..., V) with those of the policy's masked ids set to -inf, in place.

    The one place where ids are masked. Of a policy whose `mask_ids` was never called, nothing is masked.
    """
    ids = _masked(policy, logits.device)
    return logits if ids is None else logits.index_fill_(-1, ids, -math.inf)


def entropies(policy: PreTrainedModel, logprobs: Tensor) -> Tensor:
    """Entropies (...) in nats of distributions given as log-probabilities (..., V).

    A masked id adds 0: its probability is 0, and 0 times -inf would be NaN.
    """
    ids = _masked(policy, logprobs.device)
    finite = logprobs if ids is None else logprobs.index_fill(-1, ids, 0.0)
    return -(logprobs.exp() * finite).sum(-1)


def writable_ids(policy: PreTrainedModel) -> list[int] | None:
    """The ids that are not masked, for a sampler that has its own logits; None if all can be written."""
    ids = _masked(policy, torch.device("cpu"))
    return None if ids is None else sorted(set(range(logit_rows(policy))) - set(ids.tolist()))


def _masked(policy: PreTrainedModel, device: torch.device) -> Tensor | None:
    """The policy's masked ids on a device; None if there are none."""
    masked: _MaskedIds | None = getattr(policy, _ATTRIBUTE, None)
    ids = None if masked is None else masked.on(device)
    return None if ids is None or not len(ids) else ids


def suppress(policy: PreTrainedModel, ids: list[int]) -> None:
    """Let `generate` of plain transformers suppress ids too (``generation_config.json``)."""
    cast(Any, policy).generation_config.suppress_tokens = ids or None


def card_note(ids: list[int]) -> str:
    """What a policy's model card says about its unwritable ids; "" where there are none."""
    if not ids:
        return ""
    return (
        f"\n\nThe model has logits for ids that are no text (pad, or without a token): {_spans(ids)}. In "
        "training and sampling they were always set to -inf. In plain transformers `generate` does the "
        "same, because `suppress_tokens` of generation_config.json names them. Other code that samples or "
        "computes log-probabilities must set them to -inf as well: otherwise it may draw them, and its "
        "log-probabilities are slightly lower."
    )


def _spans(ids: list[int]) -> str:
    """Ascending ids as text: ``1, 511-575``."""
    runs = [list(run) for _, run in groupby(enumerate(ids), key=lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{a}-{b}" if a < b else str(a) for a, b in ((run[0][1], run[-1][1]) for run in runs))
