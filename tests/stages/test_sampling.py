"""Policies that are only sampled from: in bf16 where it multiplies, in batches that a cache has room for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import OPTConfig

from tldr.models.packed import collate, response_logprobs
from tldr.plan.models import model_config
from tldr.settings.models import ModelSpec
from tldr.stages.shared.batches import INFERENCE_TOKENS
from tldr.stages.shared.device import Device
from tldr.stages.shared.networks import open_policy, open_sampler
from tldr.stages.shared.sampling import Sampling, sample_responses, sampling_tokens
from tldr.stages.shared.tokenizers import open_tokenizer

QUERIES = [[5, 6, 7, 8], [9, 10], [11] * 30]


def test_a_batchs_cache_is_no_larger_than_its_room() -> None:
    wide = OPTConfig(hidden_size=5120, num_hidden_layers=40, num_attention_heads=40)
    token = 40 * 2 * 5120  # layers, keys and values
    assert sampling_tokens(wide, 2) == 20 * 2**30 // (2 * token) == 26214
    assert sampling_tokens(wide, 4) == 13107
    assert sampling_tokens(OPTConfig(), 2) == 4 * INFERENCE_TOKENS, "others are as large as decoding wants"


def test_heads_that_share_their_keys_take_less_of_it() -> None:
    spec = {"arch": "llama", "d_model": 4096, "layers": 64, "heads": 32}
    plain = model_config(ModelSpec.model_validate(spec), 64)
    plain.num_key_value_heads = 32
    few = model_config(ModelSpec.model_validate(spec), 64)
    few.num_key_value_heads = 16
    assert 2 * sampling_tokens(plain, 4) == sampling_tokens(few, 4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_samples_are_drawn_from_the_policy(lab: Path, precision: str) -> None:
    """Rounded to bf16 or not: its log-probabilities are those with which a token was drawn."""
    device = Device(torch.device("cpu"), precision)
    sampler, policy = (load(lab / "sft", device) for load in (open_sampler, open_policy))
    assert policy.dtype == torch.float32
    assert sampler.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
    tokenizer = open_tokenizer(lab / "sft")
    how = Sampling(n=64, temperature=1.0)
    rows = sample_responses(sampler, tokenizer, QUERIES, how, max_new_tokens=6, seed=0, device=device)
    assert [len(row) for row in rows] == [64] * 3
    batch = collate(QUERIES, [[draw.ids for draw in row] for row in rows], 1)
    with torch.no_grad():
        logprobs, entropy = response_logprobs(policy, batch, entropy=True)
    surprise = -(logprobs + entropy).sum() / batch.response_mask.sum()
    # The mean of -log p of what was drawn is the entropy: 0 to within the error of some thousand tokens.
    assert abs(float(surprise)) < 0.1
