"""Tiny policies with weights large enough that every part of them matters."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tldr.models import attention
from tldr.models.ladder import build_policy
from tldr.models.packed import PackedBatch, collate
from tldr.settings.models import ModelSpec

VOCAB, EOS, PAD = 40, 0, 1


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks in sequences as short as these."""
    monkeypatch.setattr(attention, "BLOCK", 4)


def _make(arch: str = "gpt_neox", *, context: int = 32, seed: int = 0, d_model: int = 16) -> PreTrainedModel:
    spec = ModelSpec(arch=arch, d_model=d_model, layers=2, heads=2, context=context)
    model = build_policy(spec, vocab_size=VOCAB, eos_id=EOS, pad_id=PAD, seed=seed)
    noise = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms too: their init hides mistakes
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=noise))
    return model


@pytest.fixture
def make_policy() -> Callable[..., PreTrainedModel]:
    return _make


QUERIES = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14]]
RESPONSES = [
    [[20, 21, 22, EOS], [23, EOS], [24, 25, 26]],
    [[27, EOS], [28, 29, 30, 31, 32, EOS]],
    [[33, 34, EOS], [], [35, EOS]],
]


@pytest.fixture
def rows() -> tuple[list[list[int]], list[list[list[int]]]]:
    """Three queries, up to three responses: unequal lengths, one cut without EOS, two absent."""
    return QUERIES, RESPONSES


@pytest.fixture
def batch() -> PackedBatch:
    return collate(QUERIES, RESPONSES, PAD)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    words = {"<|endoftext|>": EOS, "<|pad|>": PAD} | {f"w{i}": i for i in range(2, VOCAB)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w2")),
        eos_token="<|endoftext|>",
        pad_token="<|pad|>",
    )
