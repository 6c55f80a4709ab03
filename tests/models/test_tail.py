"""The last layer left out where nobody reads it: the same numbers, fewer products."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tldr.models import attention, packed
from tldr.models.ladder import ARCHITECTURES
from tldr.models.packed import hidden_states, response_logprobs
from tldr.models.tail import spared_entries

OUTPUTS = ("mlp", ".fc", "attention.dense", "attn.c_proj", "o_proj", "out_proj")


def whole(monkeypatch):
    monkeypatch.setattr(packed, "last_layer_from", lambda *_: nullcontext())


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_what_is_read_and_its_gradients_are_the_same(arch, make_policy, batch, monkeypatch):
    policy = make_policy(arch)

    def run():
        policy.zero_grad()
        logprobs = response_logprobs(policy, batch)
        logprobs.square().sum().backward()
        return [logprobs.detach(), *(p.grad.clone() for p in policy.parameters())]

    ours = run()
    whole(monkeypatch)
    for a, b in zip(ours, run(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_products_of_the_query_are_spared(arch, make_policy, batch, monkeypatch):
    policy = make_policy(arch)
    monkeypatch.setattr(attention, "BLOCK", 64)  # one block, of which nothing is left out

    def flops() -> int:
        with FlopCounterMode(display=False) as counter:
            hidden_states(policy, batch).after.sum().backward()
        return counter.get_total_flops()

    ours = flops()
    whole(monkeypatch)
    rows, width = batch.query.shape
    entries = sum(
        p.numel()
        for name, p in policy.named_parameters()
        if p.ndim > 1 and ".1." in name and any(part in name for part in OUTPUTS)
    )
    assert spared_entries(policy) == entries
    assert flops() - ours == 3 * 2 * rows * (width - 1) * entries


def test_hooks_are_gone_afterwards(make_policy, batch):
    policy = make_policy()
    with pytest.raises(ZeroDivisionError), packed.last_layer_from(policy, 3, 2):
        assert any(m._forward_hooks for m in policy.modules())
        raise ZeroDivisionError
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in policy.modules())


def test_recomputed_layers_are_whole(make_policy, batch):
    policy = make_policy()
    plain = response_logprobs(policy, batch)
    plain.sum().backward()
    wanted = [p.grad.clone() for p in policy.parameters()]
    policy.zero_grad()
    policy.train()
    policy.gradient_checkpointing_enable({"use_reentrant": False})
    again = response_logprobs(policy, batch)
    again.sum().backward()
    torch.testing.assert_close(again, plain, atol=1e-5, rtol=1e-5)
    for a, p in zip(wanted, policy.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, atol=1e-5, rtol=1e-5)
