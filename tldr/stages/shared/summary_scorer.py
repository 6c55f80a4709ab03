"""Scores of summaries: reward model, log-probabilities, the toy world's gold utility."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tldr.errors import RecordError
from tldr.models.packed import PackedBatch, collate, response_logprobs, response_scores, response_values
from tldr.queries.encode import encode_responses
from tldr.queries.tokenizer import text_ids
from tldr.records import Sample
from tldr.settings.models import Lengths
from tldr.stages.shared.batches import inference_batches
from tldr.stages.shared.device import Device
from tldr.stages.shared.tokenizers import pad_id

TokenIds = list[int]

TOGETHER = 8
"""Summaries of a post in one forward pass: more share its encoding, but attention grows quadratically."""


@dataclass(frozen=True)
class SummaryScorer:
    """Encodes summaries once and runs any model over them in length-sorted batches, shared by `Device.crew`.

    Attributes:
        queries: tokens of each prompt, one an item.
        responses: tokens of each item's K summaries (K may differ between items).
    """

    tokenizer: PreTrainedTokenizerBase
    queries: Sequence[TokenIds]
    responses: Sequence[Sequence[TokenIds]]
    device: Device

    def _tokens(self, function: Callable[[PackedBatch], torch.Tensor]) -> list[list[list[float]]]:
        """`_map` for functions of tokens (batch -> (B,K,R)); padding is cut off."""
        return [
            [values[: len(tokens)] for values, tokens in zip(row, options, strict=True)]
            for row, options in zip(self._map(function), self.responses, strict=True)
        ]

    def _map(self, function: Callable[[PackedBatch], torch.Tensor]) -> list[list[Any]]:
        """Apply `function` (batch -> (B,K,...)) and hand the values back in the items' order."""
        parts = [
            (item, options[start : start + TOGETHER])
            for item, options in enumerate(self.responses)
            for start in range(0, len(options), TOGETHER)
        ]
        widths = [len(self.queries[i]) + len(options) * max(map(len, options)) for i, options in parts]
        values: dict[int, list[Any]] = {}
        for rows in self.device.crew.own(list(inference_batches(widths))):
            batch = collate(
                [self.queries[parts[row][0]] for row in rows],
                [list(parts[row][1]) for row in rows],
                pad_id(self.tokenizer),
            )
            with torch.inference_mode(), self.device.autocast():
                out = function(batch.to(self.device.device)).float().cpu()
            for position, row in enumerate(rows):
                values[row] = out[position, : len(parts[row][1])].tolist()
        values = self.device.crew.all_of(values)
        joined: list[list[Any]] = [[] for _ in self.queries]
        for part, (item, _) in enumerate(parts):
            joined[item] += values[part]
        return joined

    def rewards(self, reward: PreTrainedModel) -> list[list[float]]:
        """Reward-model score of every summary, read at its EOS, shift applied."""
        return self._map(lambda batch: response_scores(reward, batch))

    def logprobs(self, policy: PreTrainedModel) -> list[list[float]]:
        """Summed log-probability (nats, temperature 1) of every summary."""
        return [[sum(row) for row in rows] for rows in self.token_logprobs(policy)]

    def token_logprobs(self, policy: PreTrainedModel) -> list[list[list[float]]]:
        """Log-probability (nats, temperature 1) of every token of every summary."""
        return self._tokens(lambda batch: response_logprobs(policy, batch))

    def token_values(self, value: PreTrainedModel) -> list[list[list[float]]]:
        """A value network's estimate before every token of every summary."""
        return self._tokens(lambda batch: response_values(value, batch))


def sample_ids(sample: Sample, tokenizer: PreTrainedTokenizerBase, lengths: Lengths) -> TokenIds:
    """The exact tokens drawn, or the text encoded anew for samples from elsewhere.

    Raises:
        RecordError: a token is pad or has no text in this tokenizer: tokens and text part ways.
    """
    if sample.response_ids:
        if strange := set(sample.response_ids).difference(text_ids(tokenizer)):
            raise RecordError(
                f"response_ids has the token {min(strange)}, which is pad or unknown to the tokenizer",
                where=f"sample of post {sample.id} by {sample.policy}",
                remedy="sample the policy again, or leave response_ids out to score the text",
            )
        return sample.response_ids
    return encode_responses(tokenizer, [sample.text], lengths.rm_response)[0]
