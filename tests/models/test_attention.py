"""Our CPU attention against transformers' plain one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import eager_attention_forward

from tldr.models import attention
from tldr.models.attention import BLOCKED, blocked_attention
from tldr.models.ladder import build_policy
from tldr.models.packed import attention_mask, response_logprobs
from tldr.settings.models import ModelSpec


class Module(nn.Module):
    """What the attention reads of its module."""

    def __init__(self, groups: int):
        super().__init__()
        self.num_key_value_groups = groups


def inputs(rows: int, length: int, groups: int, seed: int, width: int = 6) -> tuple[list[Tensor], Tensor]:
    """Queries of four heads, keys and values of 4 / groups; left padding, a query and two responses."""
    draw = torch.Generator().manual_seed(seed)
    shapes = [(rows, 4, length, width)] + 2 * [(rows, 4 // groups, length, width)]
    parts = [torch.randn(shape, generator=draw).requires_grad_() for shape in shapes]
    real = torch.arange(length) >= torch.randint(0, length, (rows, 1), generator=draw)
    segment = torch.arange(length) * 3 // length
    return parts, attention_mask(real, segment, torch.float32)


def results(function, groups: int, parts: list[Tensor], mask: Tensor | None, **changes) -> list[Tensor]:
    """Output and the three gradients of a random combination of it."""
    out, _ = function(Module(groups), *parts, mask, **{"scaling": 0.4, **changes})
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    return [out, *torch.autograd.grad((out.float() * weights).sum(), parts)]


@settings(max_examples=60)
@given(
    rows=st.integers(1, 3),
    length=st.integers(2, 14),
    groups=st.sampled_from([1, 2, 4]),
    block=st.integers(1, 16),
    seed=st.integers(0, 99),
    width=st.sampled_from([6, attention.NARROW, attention.WIDE]),
)
def test_output_and_gradients_are_the_plain_ones(rows, length, groups, block, seed, width):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "WIDE_BLOCK" if width == attention.WIDE else "BLOCK", block)
        parts, mask = inputs(rows, length, groups, seed, width)
        ours = results(blocked_attention, groups, parts, mask, scaling=width**-0.5)
        plain = results(eager_attention_forward, groups, parts, mask, scaling=width**-0.5)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_gradients_are_the_finite_differences(groups):
    parts, mask = inputs(1, 7, groups, 0)
    double = [part.detach().double().requires_grad_() for part in parts]

    def run(*tensors):
        # The softmax is in float32 otherwise, too rough for differences.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "softmax", lambda x, dim, dtype: x.softmax(dim))
            return blocked_attention(Module(groups), *tensors, mask.double(), scaling=0.4)[0]

    assert torch.autograd.gradcheck(run, double)


def test_bf16_is_as_near_to_fp32_as_the_plain_one():
    parts, mask = inputs(2, 14, 2, 3)
    exact = results(eager_attention_forward, 2, parts, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = results(blocked_attention, 2, parts, mask)
        plain = results(eager_attention_forward, 2, parts, mask)
    assert ours[0].dtype == plain[0].dtype == torch.bfloat16
    for a, b, c in zip(ours, plain, exact, strict=True):
        assert (a - c).norm() < 1.3 * (b - c).norm() < 0.02 * c.norm()


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("queries", [1, 3])
def test_queries_behind_a_cache(queries, groups):
    parts, mask = inputs(2, 14, groups, 5)
    query, mask = parts[0][:, :, -queries:], mask[:, :, -queries:]
    products = torch.get_float32_matmul_precision()
    with torch.no_grad():
        ours, _ = blocked_attention(Module(groups), query, *parts[1:], mask, scaling=0.4)
        plain, _ = eager_attention_forward(Module(groups), query, *parts[1:], mask, scaling=0.4)
        alone, _ = blocked_attention(Module(groups), query[:, :, -1:], *parts[1:], None, scaling=0.4)
        free, _ = eager_attention_forward(Module(groups), query[:, :, -1:], *parts[1:], None, scaling=0.4)
    torch.testing.assert_close(ours, plain, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(alone, free, atol=1e-6, rtol=1e-5)
    assert torch.get_float32_matmul_precision() == products


def test_long_training_sequences_keep_no_scores(monkeypatch):
    parts, mask = inputs(2, 14, 2, 0)
    plain = results(eager_attention_forward, 2, parts, mask)
    monkeypatch.setattr(attention._Blocked, "forward", lambda *_: pytest.fail("kept its scores"))
    monkeypatch.setattr(attention, "LONGEST", 13)
    ours = results(blocked_attention, 2, parts, mask)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "width"), [("BLOCK", 6), ("WIDE_BLOCK", attention.WIDE)])
def test_half_of_the_products_are_left_out(name, width):
    def flops(block: int) -> int:
        parts, mask = inputs(1, 64, 1, 0, width)
        with pytest.MonkeyPatch.context() as patch, FlopCounterMode(display=False) as counter:
            patch.setattr(attention, name, block)
            results(blocked_attention, 1, parts, mask)
        return counter.get_total_flops()

    assert flops(8) / flops(64) == pytest.approx((8 + 1) / 16)


@pytest.mark.parametrize("start", [1, 4, 9, 13])
def test_blocks_that_nobody_reads_are_left_out(start):
    parts, mask = inputs(2, 14, 2, 0)
    module = Module(2)

    def run(function) -> list[Tensor]:
        out, _ = function(module, *parts, mask, scaling=0.4)
        return [out[:, start:], *torch.autograd.grad(out[:, start:].square().sum(), parts)]

    plain = run(eager_attention_forward)
    with attention.read_from(module, start):
        ours = run(blocked_attention)
        out, _ = blocked_attention(module, *parts, mask, scaling=0.4)
    assert not out[:, : start // 4 * 4].any()  # blocks are of four
    assert not hasattr(module, "read_from")
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_recomputed_layers_have_the_same_gradients(batch):
    spec = ModelSpec(arch="gpt_neox", d_model=16, layers=2, heads=2, context=64)

    def gradients(recomputed: bool) -> list[Tensor]:
        policy = build_policy(spec, vocab_size=40, eos_id=0, pad_id=1, seed=0)
        assert policy.config._attn_implementation == BLOCKED
        if recomputed:
            policy.train()
            policy.gradient_checkpointing_enable({"use_reentrant": False})
        response_logprobs(policy, batch).sum().backward()
        return [p.grad for p in policy.parameters()]

    for a, b in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(a, b)


def test_a_saved_model_does_not_name_it(tmp_path, make_policy):
    """A plain transformers program knows no attention of ours."""
    make_policy().save_pretrained(tmp_path)
    assert BLOCKED not in (tmp_path / "config.json").read_text()
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config._attn_implementation == "sdpa"
