"""Named random streams: every random draw has its own stream, and no generator state is saved.

A stream is the run's seed plus names: purpose, update, process rank
(``derive(seed, "dropout", update, rank)``). A resumed run derives the same streams again, so its
state needs no generator. No two purposes or processes share a stream.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(seed: int, *names: str | int) -> int:
    """A seed in [0, 2**63) for the named stream: sha256 of the seed and the names."""
    digest = hashlib.sha256(json.dumps([seed, *names]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *names: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """A fresh generator at the start of the named stream."""
    return torch.Generator(device).manual_seed(derive(seed, *names))


def permutation(n: int, seed: int, *names: str | int) -> torch.Tensor:
    """The numbers 0..n-1 in the named stream's order: (n,) int64 on the CPU."""
    return torch.randperm(n, generator=generator(seed, *names))


@contextmanager
def seeded(seed: int, *names: str | int) -> Iterator[None]:
    """Inside, torch's global generators (used by dropout) are seeded; they are restored afterwards."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive(seed, *names))
        yield
