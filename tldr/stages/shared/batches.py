"""Batches of forward passes: a process's share of an update, and passes without gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from accelerate import Accelerator

from tldr.settings.base import scalar
from tldr.settings.training import Training
from tldr.train.batching import micro_batches

INFERENCE_TOKENS = 16384
"""Tokens of one forward pass without gradients: keeps peak memory flat whatever the lengths are."""
ATTENTION_PAIRS = 2**26
"""Positions times positions of one such pass: its attention mask (4 bytes each) outgrows the rest from
about a thousand tokens on."""


def share(rows: Sequence[int], settings: Training, accelerator: Accelerator) -> list[Sequence[int]]:
    """This process's examples of an update, in the forward passes that `micro_batch` asks for."""
    size = None if settings.micro_batch is None else scalar(settings.micro_batch)
    return micro_batches(rows, size, accelerator.process_index, accelerator.num_processes)


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
