"""GAE, REINFORCE, RLOO."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tldr.errors import UsageError
from tldr.mathematics.advantages import discounted_sum, gae, reinforce_advantages, rloo_advantages


def test_gae_by_hand():
    # gamma 1, lambda 1/2: delta = 0.4 - 0.5, 0.2 - 0.4, 1 - 0.2 = -0.1, -0.2, 0.8
    # A_2 = 0.8, A_1 = -0.2 + 0.8 / 2 = 0.2, A_0 = -0.1 + 0.2 / 2 = 0; the pad's 9s are not seen
    rewards, values = torch.tensor([[0.0, 0.0, 1.0, 9.0]]), torch.tensor([[0.5, 0.4, 0.2, 9.0]])
    mask = torch.tensor([[True, True, True, False]])
    advantages, returns = gae(rewards, values, mask, gamma=1.0, lam=0.5)
    torch.testing.assert_close(advantages, torch.tensor([[0.0, 0.2, 0.8, 0.0]]))
    torch.testing.assert_close(returns, torch.tensor([[0.5, 0.6, 1.0, 0.0]]))


@pytest.mark.parametrize("length", [1, 2, 3, 8, 13])
@pytest.mark.parametrize("factor", [0.0, 0.5, 0.95, 1.0])
def test_discounted_sum_is_the_sum_written_out(length, factor):
    values = torch.randn(2, length, dtype=torch.float64, generator=torch.Generator().manual_seed(length))
    expected = torch.zeros_like(values)
    for t in range(length):
        for k in range(length - t):
            expected[:, t] += factor**k * values[:, t + k]
    torch.testing.assert_close(discounted_sum(values, factor), expected)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), gamma=st.floats(0.5, 1.0))
def test_gae_with_lambda_1_is_return_minus_value_and_with_0_the_one_step_error(ragged, seed, gamma):
    mask, (rewards, values) = ragged(seed, 2, dtype=torch.float64)
    advantages, returns = gae(rewards, values, mask, gamma=gamma, lam=1.0)
    to_go = reinforce_advantages(rewards, mask, gamma=gamma)
    torch.testing.assert_close(advantages, to_go - values.masked_fill(~mask, 0.0))
    torch.testing.assert_close(returns, to_go)
    one_step, _ = gae(rewards, values, mask, gamma=gamma, lam=0.0)
    real = values.masked_fill(~mask, 0.0)
    following = torch.cat([real[:, 1:], torch.zeros(5, 1, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(one_step[mask], (rewards + gamma * following - real)[mask])


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), extra=st.integers(1, 20))
def test_appended_padding_changes_no_bit(ragged, seed, extra):
    mask, (rewards, values) = ragged(seed, 2)
    wide_mask = torch.nn.functional.pad(mask, (0, extra))
    wide = [torch.nn.functional.pad(x, (0, extra), value=math.inf) for x in (rewards, values)]
    plain = (
        *gae(rewards, values, mask, gamma=0.99, lam=0.95),
        reinforce_advantages(rewards, mask, gamma=0.99),
    )
    padded = (
        *gae(*wide, wide_mask, gamma=0.99, lam=0.95),
        reinforce_advantages(wide[0], wide_mask, gamma=0.99),
    )
    for a, b in zip(plain, padded, strict=True):
        assert torch.equal(a, b[:, :7])
        assert (b[:, 7:] == 0).all() and (a[~mask] == 0).all()


def test_an_absent_response_has_no_advantage():
    mask = torch.tensor([[False, False], [True, False]])
    advantages, returns = gae(torch.ones(2, 2), torch.ones(2, 2), mask, gamma=1.0, lam=0.95)
    assert advantages.tolist() == [[0, 0], [0, 0]]
    assert returns.tolist() == [[0, 0], [1, 0]]


def test_reinforce_by_hand():
    # rewards -1, 0, 4 with gamma 1/2: 4; 0 + 2; -1 + 1
    mask = torch.tensor([[True, True, True, False]])
    rewards = torch.tensor([[-1.0, 0.0, 4.0, 9.0]])
    assert reinforce_advantages(rewards, mask, gamma=0.5).tolist() == [[0.0, 2.0, 4.0, 0.0]]


def test_rloo_by_hand():
    # Response totals 1 + 2 = 3, 6, 0. Against the mean of the others: 3 - 3, 6 - 1.5, 0 - 4.5
    rewards = torch.tensor([[[1.0, 2.0], [6.0, 9.0], [-1.0, 1.0]]])
    mask = torch.tensor([[[True, True], [True, False], [True, True]]])
    assert rloo_advantages(rewards, mask).tolist() == [[[0.0, 0.0], [4.5, 0.0], [-4.5, -4.5]]]


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), k=st.integers(2, 5), shift=st.floats(-10, 10))
def test_rloo_sums_to_zero_over_siblings_and_ignores_a_shift(ragged, seed, k, shift):
    mask, (rewards,) = ragged(seed, 1, shape=(3, k, 4), dtype=torch.float64)
    advantages = rloo_advantages(rewards, mask)
    torch.testing.assert_close(advantages[..., 0].sum(1), torch.zeros(3, dtype=torch.float64))
    shifted = rewards.clone()
    shifted[..., 0] += shift
    torch.testing.assert_close(rloo_advantages(shifted, mask), advantages)
    assert (advantages[~mask] == 0).all()


def test_bad_input_is_refused():
    ones, mask = torch.ones(2, 2), torch.tensor([[False, True], [True, True]])
    with pytest.raises(UsageError, match="right-pad"):
        gae(ones, ones, mask, gamma=1.0, lam=0.95)
    with pytest.raises(UsageError, match="right-pad"):
        reinforce_advantages(ones, mask, gamma=1.0)
    single = torch.ones(2, 1, 4)
    with pytest.raises(UsageError, match="cannot leave one out"):
        rloo_advantages(single, single > 0)
    pair = torch.ones(1, 2, 4)
    absent = torch.tensor([[[True] * 4, [False] * 4]])
    with pytest.raises(UsageError, match="cannot leave one out"):
        rloo_advantages(pair, absent)
