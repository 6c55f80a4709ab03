"""Random ragged batches with poison in the padding."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

Ragged = Callable[..., tuple[Tensor, list[Tensor]]]


@pytest.fixture(scope="session")
def ragged() -> Ragged:
    """A function giving (mask, tensors): right-padded, 1 to T real tokens a row, NaN as padding."""

    def make(
        seed: int, how_many: int, shape: tuple[int, ...] = (5, 7), dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, list[Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(1, shape[-1] + 1, shape[:-1], generator=generator)
        mask = torch.arange(shape[-1]) < lengths[..., None]
        tensors = [torch.randn(shape, generator=generator, dtype=dtype) for _ in range(how_many)]
        return mask, [tensor.masked_fill(~mask, math.nan) for tensor in tensors]

    return make
