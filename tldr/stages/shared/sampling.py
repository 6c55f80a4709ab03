"""Responses that a policy writes: drawn for many queries, in batches that the memory has room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from tldr.models.cache import cache_width
from tldr.models.generate import generate
from tldr.queries.encode import decode_response
from tldr.queries.zero_shot import newline_ids
from tldr.stages.shared.batches import INFERENCE_TOKENS, inference_batches, left_pad
from tldr.stages.shared.device import Device
from tldr.stages.shared.tokenizers import eos_id, pad_id
from tldr.train.rng import generator

CACHE = 20 * 2**30
"""Bytes of keys and values that are kept while responses are sampled; reached from 6.7B on."""


@dataclass(frozen=True)
class Draw:
    """One sampled response: tokens with EOS, text without it, and whether it ended with EOS."""

    ids: list[int]
    text: str
    stopped: bool


@dataclass(frozen=True)
class Sampling:
    """How responses are sampled: temperature 0 is greedy; `stop_newline` ends a summary at a newline."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    stop_newline: bool = False


def sampling_tokens(config: PreTrainedConfig, width: int) -> int:
    """Tokens of the queries and responses that are sampled together: `CACHE` of keys and values at most.

    Args:
        width: bytes of a number.
    """
    token = width * int(config.num_hidden_layers) * cache_width(config)
    return max(1, min(4 * INFERENCE_TOKENS, CACHE // token))


def sample_responses(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    queries: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    max_new_tokens: int,
    seed: int,
    device: Device,
) -> list[list[Draw]]:
    """Draw `sampling.n` responses for every query, in the order of `queries`.

    Queries are batched by length; each batch has a generator of its own derived from `seed`, so a
    result does not depend on what was drawn before it, nor on which process draws it (`Device.crew`).
    """
    found: dict[int, list[Draw]] = {}
    stops = {eos_id(tokenizer)}
    if sampling.stop_newline:
        stops |= newline_ids(tokenizer)
    widths = [len(query) + sampling.n * max_new_tokens for query in queries]
    batches = list(inference_batches(widths, sampling_tokens(policy.config, policy.dtype.itemsize)))
    for batch in device.crew.own(batches):
        ids, mask = left_pad([queries[index] for index in batch], pad_id(tokenizer))
        with device.autocast():
            drawn = generate(
                policy,
                ids.to(device.device),
                mask.to(device.device),
                n=sampling.n,
                max_new_tokens=max_new_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                eos_id=eos_id(tokenizer),
                pad_id=pad_id(tokenizer),
                generator=generator(seed, "sample", batch[0], device=device.device.type),
                stop_ids=stops,
            )
        for row, index in enumerate(batch):
            for k in range(sampling.n):
                kept = drawn.response[row, k][drawn.mask[row, k]].tolist()
                text, _ = decode_response(tokenizer, kept)
                if sampling.stop_newline:
                    text = text.split("\n")[0]
                found.setdefault(index, []).append(Draw(kept, text, bool(drawn.stopped[row, k])))
    found = device.crew.all_of(found)
    return [found[index] for index in range(len(queries))]
