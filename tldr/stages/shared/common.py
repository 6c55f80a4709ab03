"""What several stages share: opening parents, encoding posts, sampling, inference batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from tldr.errors import UsageError
from tldr.models.cache import cache_width
from tldr.models.generate import generate
from tldr.models.ladder import load_policy
from tldr.models.reward import load_reward
from tldr.queries.encode import decode_response
from tldr.queries.tokenizer import load_tokenizer
from tldr.queries.zero_shot import newline_ids
from tldr.records import Post, read_records
from tldr.settings.base import Precision, scalar
from tldr.settings.training import Training
from tldr.train.batching import micro_batches
from tldr.train.precision import prepare_cpu, resolve_precision
from tldr.train.rng import generator

INFERENCE_TOKENS = 16384
"""Tokens of one forward pass without gradients: keeps peak memory flat whatever the lengths are."""
CACHE = 20 * 2**30
"""Bytes of keys and values that are kept while responses are sampled; reached from 6.7B on."""
ATTENTION_PAIRS = 2**26
"""Positions times positions of one such pass: its attention mask (4 bytes each) outgrows the rest from
about a thousand tokens on."""


def checkpoint_folder(place: Path) -> Path:
    """A run folder's ``checkpoint/``, or the folder itself when it is a checkpoint."""
    inner = Path(place) / "checkpoint"
    return inner if inner.is_dir() else Path(place)


@dataclass(frozen=True)
class Device:
    """Where and in what precision a stage computes; resolved once a run."""

    device: torch.device
    precision: str

    @classmethod
    def open(cls, precision: Precision) -> Device:
        """The GPU when there is one, else the CPU with its fast and exact settings."""
        prepare_cpu()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return cls(device, resolve_precision(precision, device))

    def autocast(self) -> AbstractContextManager[object]:
        """bf16 compute over fp32 weights, or nothing in fp32."""
        if self.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()


def moved(model: PreTrainedModel, device: Device) -> PreTrainedModel:
    """The model on the device, in inference mode (dropout off)."""
    nn.Module.to(model, device.device)
    model.train(False)
    return model


def as_model(module: nn.Module) -> PreTrainedModel:
    """A stepper's module as what it is, a transformers model."""
    assert isinstance(module, PreTrainedModel)
    return module


def share(rows: Sequence[int], settings: Training, accelerator: Accelerator) -> list[Sequence[int]]:
    """This process's examples of an update, in the forward passes that `micro_batch` asks for."""
    size = None if settings.micro_batch is None else scalar(settings.micro_batch)
    return micro_batches(rows, size, accelerator.process_index, accelerator.num_processes)


def open_policy(place: Path, device: Device) -> PreTrainedModel:
    """A policy ready for inference."""
    return moved(load_policy(checkpoint_folder(place)), device)


def open_sampler(place: Path, device: Device) -> PreTrainedModel:
    """A policy to sample from, in bf16 where it multiplies in it.

    Half the memory, and no cast of every weight at every token: autocast keeps none in inference mode.
    """
    dtype = torch.bfloat16 if device.precision == "bf16" else torch.float32
    return moved(load_policy(checkpoint_folder(place), dtype=dtype), device)


def open_reward(place: Path, device: Device) -> PreTrainedModel:
    """A reward model ready for inference; its reference-mean shift is applied."""
    return moved(load_reward(checkpoint_folder(place)), device)


def open_tokenizer(place: Path) -> PreTrainedTokenizerBase:
    """The tokenizer saved beside a checkpoint, or in a data folder's ``tokenizer/``."""
    place = Path(place)
    return load_tokenizer(place / "tokenizer" if (place / "tokenizer").is_dir() else checkpoint_folder(place))


def eos_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The tokenizer's EOS id; `load_tokenizer` has made sure that there is one."""
    assert tokenizer.eos_token_id is not None
    return int(tokenizer.eos_token_id)


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The tokenizer's pad id, distinct from EOS."""
    assert tokenizer.pad_token_id is not None
    return int(tokenizer.pad_token_id)


def read_posts(place: Path, name: str, *, references: bool = False) -> list[Post]:
    """The posts of a data folder's ``<name>.jsonl``.

    Raises:
        UsageError: the file is missing or empty, or a reference is asked for and absent.
    """
    path = Path(place) / f"{name}.jsonl"
    posts = read_records(path, Post)
    if not posts:
        raise UsageError("holds no posts", where=path, remedy="give a file with at least one Post a line")
    if references:
        for number, post in enumerate(posts, start=1):
            if not (post.summary or "").strip():
                raise UsageError(
                    f"post {post.id} has no reference summary",
                    where=f"{path}:{number}",
                    remedy="posts without a summary belong in the PPO file",
                )
    return posts


def left_pad(queries: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries (B,Q) int64 padded on the left, and their mask (B,Q) bool."""
    width = max(len(query) for query in queries)
    ids = torch.full((len(queries), width), pad, dtype=torch.int64)
    mask = torch.zeros((len(queries), width), dtype=torch.bool)
    for row, query in enumerate(queries):
        ids[row, width - len(query) :] = torch.tensor(query, dtype=torch.int64)
        mask[row, width - len(query) :] = True
    return ids, mask


def inference_batches(lengths: Sequence[int], budget: int = INFERENCE_TOKENS) -> Iterator[list[int]]:
    """Indices in batches of like length, each at most `budget` padded tokens and `ATTENTION_PAIRS` (at
    least one row)."""
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    batch: list[int] = []
    for index in order:
        rows, length = len(batch) + 1, lengths[index]
        if batch and (rows * length > budget or rows * length**2 > ATTENTION_PAIRS):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


@dataclass(frozen=True)
class Draw:
    """One sampled response: its tokens incl. EOS, its text without, and how it came about."""

    ids: list[int]
    text: str
    stopped: bool


@dataclass(frozen=True)
class Sampling:
    """How to draw: temperature 0 is greedy; `stop_newline` ends zero-shot summaries at a newline."""

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
    result does not depend on what was drawn before it.
    """
    results: list[list[Draw]] = [[] for _ in queries]
    stops = {eos_id(tokenizer)}
    if sampling.stop_newline:
        stops |= newline_ids(tokenizer)
    widths = [len(query) + sampling.n * max_new_tokens for query in queries]
    for batch in inference_batches(widths, budget=sampling_tokens(policy.config, policy.dtype.itemsize)):
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
                results[index].append(Draw(kept, text, bool(drawn.stopped[row, k])))
    return results
