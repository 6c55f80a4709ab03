from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tldr.errors import UsageError
from tldr.models import packed
from tldr.models.attention import BLOCKED
from tldr.models.ladder import ARCHITECTURES
from tldr.models.packed import (
    PackedBatch,
    attention_mask,
    collate,
    hidden_states,
    response_logprobs,
    response_scores,
    response_values,
)
from tldr.models.reward import reward_from_policy

EOS, PAD = 0, 1
ATTENTIONS = ["eager", "sdpa", BLOCKED]


def present(rows):
    """(b, k, query, response) of every response that is there."""
    queries, responses = rows
    for b, (query, answers) in enumerate(zip(queries, responses, strict=True)):
        for k, answer in enumerate(answers):
            if answer:
                yield b, k, query, answer


def plain_logits(policy, query, answer):
    """Logits that predict each response token, from the model's ordinary forward on one unpadded row."""
    return policy(torch.tensor([query + answer])).logits[0, len(query) - 1 : -1]


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_logprobs_and_entropy_equal_the_plain_path(arch, attention, make_policy, batch, rows):
    policy = make_policy(arch)
    policy.set_attn_implementation(attention)
    logprobs, entropy = response_logprobs(policy, batch, temperature=0.7, entropy=True)
    assert logprobs.dtype == torch.float32 and logprobs.shape == batch.response.shape
    for b, k, query, answer in present(rows):
        plain = (plain_logits(policy, query, answer) / 0.7).log_softmax(-1)
        n = len(answer)
        torch.testing.assert_close(
            logprobs[b, k, :n], plain[torch.arange(n), torch.tensor(answer)], atol=1e-5, rtol=0
        )
        torch.testing.assert_close(entropy[b, k, :n], -(plain.exp() * plain).sum(-1), atol=1e-5, rtol=0)
    padding = ~batch.response_mask
    assert (logprobs[padding] == 0).all() and (entropy[padding] == 0).all()


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_scores_and_values_equal_the_plain_path(arch, attention, make_policy, batch, rows):
    reward = reward_from_policy(make_policy(arch), seed=3)
    reward.set_attn_implementation(attention)
    scores, values = response_scores(reward, batch), response_values(reward, batch)
    for b, k, query, answer in present(rows):
        plain = (
            reward.base_model(torch.tensor([query + answer])).last_hidden_state[0] @ reward.score.weight[0]
        )
        torch.testing.assert_close(scores[b, k], plain[-1], atol=1e-5, rtol=0)
        torch.testing.assert_close(values[b, k, : len(answer)], plain[len(query) - 1 : -1], atol=1e-5, rtol=0)
    assert (values[~batch.response_mask] == 0).all()
    assert scores[2, 1] == 0  # absent


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_gradients_equal_the_plain_path(arch, make_policy, batch, rows):
    policy = make_policy(arch)
    weights = torch.randn(batch.response.shape, generator=torch.Generator().manual_seed(5))
    (response_logprobs(policy, batch) * weights).sum().backward()
    fast = {name: p.grad.clone() for name, p in policy.named_parameters()}
    policy.zero_grad()
    for b, k, query, answer in present(rows):
        plain = plain_logits(policy, query, answer).log_softmax(-1)
        n = len(answer)
        (plain[torch.arange(n), torch.tensor(answer)] * weights[b, k, :n]).sum().backward()
    for name, parameter in policy.named_parameters():
        torch.testing.assert_close(fast[name], parameter.grad, atol=2e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_trap_second_response_sees_the_first(arch, attention, make_policy, batch):
    policy = make_policy(arch)
    policy.set_attn_implementation(attention)
    before = response_logprobs(policy, batch)
    changed = batch.response.clone()
    changed[:, 0] = torch.where(batch.response_mask[:, 0], 39 - changed[:, 0] % 7, changed[:, 0])
    after = response_logprobs(
        policy, PackedBatch(batch.query, batch.query_mask, changed, batch.response_mask)
    )
    torch.testing.assert_close(before[:, 1:], after[:, 1:], atol=1e-6, rtol=0)
    assert (before[:, 0] - after[:, 0]).abs().max() > 0.01


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_trap_left_padding_moves_positions(arch, make_policy, rows):
    policy = make_policy(arch)
    queries, responses = rows
    alone = response_logprobs(policy, collate(queries[1:2], responses[1:2], PAD))
    together = response_logprobs(policy, collate(queries, responses, PAD))[1:2, :2]
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)


def test_trap_score_read_at_a_pad(make_policy, batch):
    """Neither wider padding nor the pad's id may reach a score, value or log-prob."""
    reward = reward_from_policy(make_policy(), seed=0)
    wide = PackedBatch(
        torch.nn.functional.pad(batch.query, (3, 0), value=38),
        torch.nn.functional.pad(batch.query_mask, (3, 0)),
        torch.nn.functional.pad(batch.response.masked_fill(~batch.response_mask, 37), (0, 4), value=36),
        torch.nn.functional.pad(batch.response_mask, (0, 4)),
    )
    torch.testing.assert_close(
        response_scores(reward, wide), response_scores(reward, batch), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        response_values(reward, wide)[:, :, :-4], response_values(reward, batch), atol=1e-5, rtol=0
    )


def test_pad_outside_the_embedding_needs_no_resize(make_policy, rows, batch):
    policy = make_policy()
    torch.testing.assert_close(
        response_logprobs(policy, collate(*rows, pad_id=50_257)), response_logprobs(policy, batch)
    )


def test_attention_mask_by_hand():
    """Query (pad, a), then two responses of two tokens, the last one padded."""
    real = torch.tensor([[False, True, True, True, True, False]])
    mask = attention_mask(real, torch.tensor([0, 0, 1, 1, 2, 2]), torch.float32)
    rows = ["x.....", ".x....", ".xx...", ".xxx..", ".x..x.", ".x..xx"]
    assert torch.equal(mask[0, 0] == 0, torch.tensor([[mark == "x" for mark in row] for row in rows]))
    assert mask.min() == torch.finfo(torch.float32).min


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_no_nan_from_padding(attention, bf16, make_policy):
    policy = make_policy()
    policy.set_attn_implementation(attention)
    batch = collate([[5, 6, 7], [8]], [[[9, EOS]], []], PAD)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        logprobs = response_logprobs(policy, batch)
        states = hidden_states(policy, batch)
    logprobs.sum().backward()
    assert torch.isfinite(states.before).all() and torch.isfinite(states.after).all()
    assert all(torch.isfinite(p.grad).all() for p in policy.parameters())


@pytest.mark.parametrize("entropy", [False, True])
def test_chunked_logits_equal_whole(entropy, make_policy, batch, monkeypatch):
    policy = make_policy()

    def run():
        policy.zero_grad()
        out = response_logprobs(policy, batch, 0.8, entropy=entropy)
        logprobs, more = out if entropy else (out, torch.zeros(()))
        (logprobs.square().sum() + more.sum()).backward()
        return logprobs.detach(), [p.grad.clone() for p in policy.parameters()]

    whole, whole_grads = run()
    monkeypatch.setattr(packed, "LOGITS_CHUNK", 3 * policy.config.vocab_size)
    largest = []
    policy.lm_head.register_forward_hook(lambda _module, _args, out: largest.append(len(out)))
    chunked, grads = run()
    assert max(largest) == 3 and sum(largest) == 2 * int(batch.response_mask.sum())  # forward and again
    torch.testing.assert_close(chunked, whole)
    torch.testing.assert_close(grads, whole_grads, atol=1e-5, rtol=1e-4)


def test_logits_only_at_real_response_tokens(make_policy, batch):
    policy, seen = make_policy(), []
    policy.lm_head.register_forward_hook(lambda _module, _args, out: seen.append(len(out)))
    response_logprobs(policy, batch)
    assert seen == [int(batch.response_mask.sum())]


def test_bf16_autocast_keeps_logprobs_in_fp32(make_policy, batch):
    policy = make_policy()
    exact = response_logprobs(policy, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logprobs = response_logprobs(policy, batch)
        scores = response_scores(reward_from_policy(policy, seed=0), batch)
    assert logprobs.dtype == scores.dtype == torch.float32
    # bf16 has 8 bits: a product taken in it would leave at most 256 values in an octave.
    assert not torch.equal(logprobs, logprobs.bfloat16().float())
    assert not torch.equal(scores, scores.bfloat16().float())
    torch.testing.assert_close(logprobs, exact, atol=0.1, rtol=0.05)


def test_temperature_must_be_above_zero(make_policy, batch):
    with pytest.raises(UsageError, match="temperature 0"):
        response_logprobs(make_policy(), batch, temperature=0.0)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_context_is_measured_on_real_tokens(arch, make_policy):
    policy = make_policy(arch, context=8)
    fits = collate([[5] * 6, [5]], [[[6, EOS]], [[6] * 6 + [EOS]]], PAD)  # padded 6 + 7, real 8 and 8
    assert torch.isfinite(response_logprobs(policy, fits)).all()
    with pytest.raises(UsageError, match="have 9 tokens together, the model's context is 8"):
        response_logprobs(policy, collate([[5] * 6, [5]], [[[6, 6, EOS]], [[6, EOS]]], PAD))


def test_collate_refuses_what_it_cannot_hold():
    with pytest.raises(UsageError, match="a query has no tokens"):
        collate([[5], []], [[[6]], [[7]]], PAD)
    with pytest.raises(UsageError, match="2 queries and 1 lists"):
        collate([[5], [6]], [[[7]]], PAD)
    with pytest.raises(UsageError, match="0 queries"):
        collate([], [], PAD)
    with pytest.raises(UsageError, match="the batch has no response"):
        collate([[5]], [[[]]], PAD)


tokens = st.lists(st.integers(2, 39), max_size=5)
examples = st.lists(
    st.tuples(tokens.filter(bool), st.lists(tokens, min_size=1, max_size=3)), min_size=1, max_size=4
).filter(lambda items: any(answer for _, answers in items for answer in answers))


@settings(max_examples=60)
@given(examples)
def test_collate_round_trip(items):
    queries, responses = [list(q) for q, _ in items], [r for _, r in items]
    batch = collate(queries, responses, PAD)
    assert batch.tokens == sum(map(len, queries)) + sum(len(r) for rs in responses for r in rs)
    assert batch.positions == batch.query.numel() + batch.response.numel()
    assert len(batch) == len(items) and (batch.query[~batch.query_mask] == PAD).all()
    assert batch.query_mask[:, -1].all()  # left padding: the last column is real
    one = batch.select(torch.tensor([len(items) - 1]))
    assert one.query[0][one.query_mask[0]].tolist() == queries[-1]
    for k, answer in enumerate(responses[-1]):
        assert one.response[0, k][one.response_mask[0, k]].tolist() == answer
        assert one.response[0, k, : len(answer)].tolist() == answer  # right padding


def test_to_moves_every_part(batch):
    moved = batch.to("meta")
    parts = (moved.query, moved.query_mask, moved.response, moved.response_mask)
    assert all(part.device.type == "meta" for part in parts)
