"""The whole chain from scores to PPO losses, against plain Python that walks token by token.

The oracle knows no tensors, no masks and no padding: a response is a list of its real tokens.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tldr.mathematics.advantages import gae, reinforce_advantages, rloo_advantages
from tldr.mathematics.kl import sequence_kl
from tldr.mathematics.masking import whiten
from tldr.mathematics.ppo import policy_loss, policy_stats, value_loss, value_stats
from tldr.mathematics.rewards import token_rewards

Rows = list[list[float]]


def rows(tensor: Tensor, mask: Tensor) -> Rows:
    return [
        [value for value, real in zip(values, reals, strict=True) if real]
        for values, reals in zip(tensor.flatten(0, -2).tolist(), mask.flatten(0, -2).tolist(), strict=True)
    ]


def flat(lists: Rows) -> list[float]:
    return [x for row in lists for x in row]


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def slow_rewards(scores: list[float], logprobs: Rows, ref_logprobs: Rows, beta: float) -> Rows:
    result = []
    for score, new, ref in zip(scores, logprobs, ref_logprobs, strict=True):
        rewards = []
        for t in range(len(new)):
            reward = -beta * (new[t] - ref[t])
            if t == len(new) - 1:
                reward += score
            rewards.append(reward)
        result.append(rewards)
    return result


def slow_gae(rewards: Rows, values: Rows, gamma: float, lam: float) -> tuple[Rows, Rows]:
    advantages, returns = [], []
    for reward, value in zip(rewards, values, strict=True):
        advantage, following, later = [0.0] * len(reward), 0.0, 0.0
        for t in reversed(range(len(reward))):
            delta = reward[t] + gamma * following - value[t]
            later = delta + gamma * lam * later
            advantage[t], following = later, value[t]
        advantages.append(advantage)
        returns.append([a + v for a, v in zip(advantage, value, strict=True)])
    return advantages, returns


def slow_whiten(lists: Rows, shift_mean: bool) -> Rows:
    numbers = flat(lists)
    centre = mean(numbers)
    deviation = math.sqrt(mean([(x - centre) ** 2 for x in numbers]) + 1e-8)
    return [[(x - centre) / deviation + (0.0 if shift_mean else centre) for x in row] for row in lists]


def slow_policy_loss(new: Rows, old: Rows, advantages: Rows, clip: float) -> tuple[float, float]:
    losses, clipped = [], 0
    for a, b, advantage in zip(flat(new), flat(old), flat(advantages), strict=True):
        ratio = math.exp(a - b)
        plain = -advantage * ratio
        limited = -advantage * min(max(ratio, 1 - clip), 1 + clip)
        losses.append(max(plain, limited))
        clipped += limited > plain
    return mean(losses), clipped / len(losses)


def slow_value_loss(new: Rows, old: Rows, returns: Rows, clip: float) -> tuple[float, float]:
    losses, clipped = [], 0
    for a, b, target in zip(flat(new), flat(old), flat(returns), strict=True):
        plain = (a - target) ** 2
        limited = (min(max(a, b - clip), b + clip) - target) ** 2
        losses.append(max(plain, limited))
        clipped += limited > plain
    return 0.5 * mean(losses), clipped / len(losses)


def near(tensor: Tensor, mask: Tensor, expected: Rows) -> None:
    for ours, theirs in zip(rows(tensor, mask), expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-10)
    assert (tensor[~mask] == 0).all()


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    gamma=st.sampled_from([1.0, 0.9]),
    lam=st.sampled_from([0.0, 0.95, 1.0]),
    beta=st.sampled_from([0.0, 0.05, 0.5]),
)
def test_the_chain_equals_the_oracle(ragged, seed, gamma, lam, beta):
    mask, (old, ref, new, values, new_values) = ragged(seed, 5, shape=(2, 3, 6), dtype=torch.float64)
    scores = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

    rewards = token_rewards(scores, old, ref, mask, beta=beta)
    slow = slow_rewards(scores.flatten().tolist(), rows(old, mask), rows(ref, mask), beta)
    near(rewards, mask, slow)
    near(whiten(rewards, mask, shift_mean=False), mask, slow_whiten(slow, shift_mean=False))

    advantages, returns = gae(rewards, values, mask, gamma=gamma, lam=lam)
    slow_advantages, slow_returns = slow_gae(slow, rows(values, mask), gamma, lam)
    near(advantages, mask, slow_advantages)
    near(returns, mask, slow_returns)
    advantages = whiten(advantages, mask)
    slow_advantages = slow_whiten(slow_advantages, shift_mean=True)
    near(advantages, mask, slow_advantages)

    loss, clipped = slow_policy_loss(rows(new, mask), rows(old, mask), slow_advantages, 0.2)
    assert policy_loss(new, old, advantages, mask, clip=0.2).item() == pytest.approx(loss)
    stats = policy_stats(new, old, advantages, mask, clip=0.2)
    assert stats["clip_fraction"].item() == pytest.approx(clipped)
    ratios = [math.exp(a - b) for a, b in zip(flat(rows(new, mask)), flat(rows(old, mask)), strict=True)]
    assert stats["ratio_mean"].item() == pytest.approx(mean(ratios))
    assert (stats["ratio_min"].item(), stats["ratio_max"].item()) == pytest.approx((min(ratios), max(ratios)))
    assert stats["kl_k2"].item() == pytest.approx(mean([math.log(r) ** 2 / 2 for r in ratios]))
    assert stats["kl_k3"].item() == pytest.approx(mean([r - 1 - math.log(r) for r in ratios]))

    loss, clipped = slow_value_loss(rows(new_values, mask), rows(values, mask), slow_returns, 0.2)
    assert value_loss(new_values, values, returns, mask, clip=0.2).item() == pytest.approx(loss)
    assert value_stats(new_values, values, returns, mask, clip=0.2)["clip_fraction"].item() == pytest.approx(
        clipped
    )


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_reinforce_rloo_and_kl_equal_the_oracle(ragged, seed):
    mask, (rewards, logprobs, ref) = ragged(seed, 3, shape=(2, 4, 6), dtype=torch.float64)
    near(
        reinforce_advantages(rewards, mask, gamma=0.9),
        mask,
        [
            [sum(0.9**k * r for k, r in enumerate(row[t:])) for t in range(len(row))]
            for row in rows(rewards, mask)
        ],
    )
    totals = [sum(row) for row in rows(rewards, mask)]
    expected = []
    for i, row in enumerate(rows(rewards, mask)):
        first = i - i % 4
        others = [totals[j] for j in range(first, first + 4) if j != i]
        expected.append([totals[i] - mean(others)] * len(row))
    near(rloo_advantages(rewards, mask), mask, expected)
    kl = [
        sum(a - b for a, b in zip(new, old, strict=True))
        for new, old in zip(rows(logprobs, mask), rows(ref, mask), strict=True)
    ]
    assert sequence_kl(logprobs, ref, mask).flatten().tolist() == pytest.approx(kl)
