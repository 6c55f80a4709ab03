"""Random token lists with the lengths of TL;DR posts and summaries, and random models: no data, no hub."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from tldr.models.ladder import choose_attention, disable_dropout
from tldr.models.vocabulary import mask_ids

EOS, PAD, FIRST = 0, 1, 2
"""The two special tokens; texts use the ids from `FIRST` on."""
MEAN, SPREAD = 315 / 512, 0.5
"""Query lengths are lognormal, with this mean as a fraction of the window, and cut at the window."""

TokenLists = list[list[int]]


def made_up_queries(count: int, window: int, vocab: int, seed: int) -> TokenLists:
    """Queries of 1 to `window` tokens; for 512 the mean is 298, as for TL;DR without its longest posts."""
    draw = np.random.default_rng([seed, 0])
    lengths = draw.lognormal(math.log(MEAN * window) - SPREAD**2 / 2, SPREAD, count)
    return [_text(draw, vocab, length) for length in lengths.round().clip(1, window).astype(int)]


def made_up_responses(count: int, window: int, vocab: int, seed: int) -> TokenLists:
    """Responses between half and all of the window, EOS included: 24 to 48 tokens for 48."""
    draw = np.random.default_rng([seed, 1])
    lengths = draw.integers(max(1, window // 2), window, count, endpoint=True)
    return [[*_text(draw, vocab, length - 1), EOS] for length in lengths]


def _text(draw: np.random.Generator, vocab: int, length: int) -> list[int]:
    tokens: list[int] = draw.integers(FIRST, vocab, length).tolist()
    return tokens


def bare_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with only EOS and pad, for code that reads their ids."""
    words = Tokenizer(WordLevel({"<eos>": EOS, "<pad>": PAD}, unk_token="<pad>"))
    fast: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = fast(tokenizer_object=words, eos_token="<eos>", pad_token="<pad>")
    return made


def random_policy(config: PreTrainedConfig, device: torch.device, seed: int) -> PreTrainedModel:
    """A causal LM with random weights, created on the device: fp32, no dropout; it never writes `PAD`."""
    policy = _random(AutoModelForCausalLM, config, device, seed)
    mask_ids(policy, [PAD])
    return policy


def random_reward(config: PreTrainedConfig, device: torch.device, seed: int) -> PreTrainedModel:
    """A classifier with one label and random weights, created on the device: fp32, no dropout."""
    config = copy.deepcopy(config)
    config.num_labels = 1
    return _random(AutoModelForSequenceClassification, config, device, seed)


def _random(auto: Any, config: PreTrainedConfig, device: torch.device, seed: int) -> PreTrainedModel:
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.device(device):
        torch.manual_seed(seed)
        attention = choose_attention(device)
        model: PreTrainedModel = auto.from_config(
            copy.deepcopy(config), dtype=torch.float32, attn_implementation=attention
        )
    disable_dropout(model)
    return model
