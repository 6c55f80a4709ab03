"""OPT-350m differs from its siblings: norms after the sublayers, embeddings narrower than the layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, OPTConfig, PreTrainedModel

from tldr.models.generate import generate
from tldr.models.packed import PackedBatch, collate, response_logprobs, response_scores
from tldr.models.reward import apply_shift, reward_from_policy

QUERIES = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14]]
RESPONSES = [[[20, 21, 2], [23, 2]], [[28, 29, 30, 31, 2]], [[33, 34, 2], [35, 2]]]


@pytest.fixture
def policy() -> PreTrainedModel:
    config = OPTConfig(
        vocab_size=40,
        hidden_size=16,
        ffn_dim=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        word_embed_proj_dim=8,
        do_layer_norm_before=False,
        dropout=0.0,
    )
    torch.manual_seed(0)
    auto: Any = AutoModelForCausalLM
    model: PreTrainedModel = auto.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def batch() -> PackedBatch:
    return collate(QUERIES, RESPONSES, 1)


def test_packed_equals_plain(policy: PreTrainedModel, batch: PackedBatch) -> None:
    reward = reward_from_policy(policy, seed=3)
    logprobs, scores = response_logprobs(policy, batch), response_scores(reward, batch)
    assert reward.score.in_features == 8
    for b, (query, answers) in enumerate(zip(QUERIES, RESPONSES, strict=True)):
        for k, answer in enumerate(answers):
            ids = torch.tensor([query + answer])
            plain = policy(ids).logits[0, len(query) - 1 : -1].log_softmax(-1)
            expected = plain[torch.arange(len(answer)), torch.tensor(answer)]
            torch.testing.assert_close(logprobs[b, k, : len(answer)], expected, atol=1e-5, rtol=0)
            torch.testing.assert_close(scores[b, k], reward(ids).logits[0, 0], atol=1e-5, rtol=0)


def test_the_shift_is_kept_though_no_norm_can_carry_it(policy: PreTrainedModel, batch: PackedBatch) -> None:
    reward = reward_from_policy(policy, seed=3)
    before = response_scores(reward, batch)
    assert apply_shift(reward, 0.75) == "config"
    present = batch.response_mask.any(-1)
    torch.testing.assert_close((before - response_scores(reward, batch))[present], torch.full((5,), 0.75))


def test_rollout_logprobs_are_those_of_the_packed_forward(
    policy: PreTrainedModel, batch: PackedBatch
) -> None:
    drawn = generate(
        policy,
        batch.query,
        batch.query_mask,
        n=2,
        max_new_tokens=6,
        temperature=0.8,
        top_p=1.0,
        eos_id=2,
        pad_id=1,
        generator=torch.Generator().manual_seed(1),
    )
    again = PackedBatch(batch.query, batch.query_mask, drawn.response, drawn.mask)
    torch.testing.assert_close(response_logprobs(policy, again, 0.8), drawn.logprobs, atol=1e-5, rtol=0)
