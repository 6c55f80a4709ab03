"""PPO's losses and diagnostics."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from tldr.errors import UsageError
from tldr.mathematics.ppo import policy_loss, policy_stats, ppo_loss, reinforce_loss, value_loss, value_stats

FOUR = torch.ones(1, 4, dtype=torch.bool)
RATIO = torch.tensor([[1.5, 0.5, 0.9, 1.1]])
ADVANTAGES = torch.tensor([[1.0, -1.0, 1.0, -1.0]])


def test_policy_loss_by_hand():
    # clip 0.2: 1.5 is capped at 1.2, 0.5 floored at 0.8, 0.9 and 1.1 are left alone:
    # (-1.2 + 0.8 - 0.9 + 1.1) / 4 = -0.05
    logprobs = RATIO.log().requires_grad_()
    loss = policy_loss(logprobs, torch.zeros(1, 4), ADVANTAGES, FOUR, clip=0.2)
    assert loss.item() == pytest.approx(-0.05)
    # no gradient where clipped, -A rho / 4 elsewhere
    loss.backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([[0.0, 0.0, -0.225, 0.275]]))
    stats = policy_stats(logprobs, torch.zeros(1, 4), ADVANTAGES, FOUR, clip=0.2)
    assert stats["clip_fraction"].item() == 0.5
    assert stats["ratio_mean"].item() == pytest.approx(1.0)
    assert stats["ratio_min"].item() == pytest.approx(0.5)
    assert stats["ratio_max"].item() == pytest.approx(1.5)


def test_a_ratio_on_the_other_side_is_not_clipped():
    # With the signs turned the unclipped term is the larger: (1.5 - 0.5 + 0.9 - 1.1) / 4 = 0.2
    loss = policy_loss(RATIO.log(), torch.zeros(1, 4), -ADVANTAGES, FOUR, clip=0.2)
    assert loss.item() == pytest.approx(0.2)
    stats = policy_stats(RATIO.log(), torch.zeros(1, 4), -ADVANTAGES, FOUR, clip=0.2)
    assert stats["clip_fraction"].item() == 0.0


def test_pads_and_zero_advantages_are_not_counted_in_the_stats():
    # ratios 2 and 1/2, each beside a pad (whose ratio would be 1); an advantage of 0 has nothing to clip
    mask, zeros = torch.tensor([[True, False]]), torch.zeros(1, 2)
    up = policy_stats(torch.tensor([[math.log(2), 0.0]]), zeros, zeros, mask, clip=0.2)
    assert up["ratio_min"].item() == pytest.approx(2.0)
    down = policy_stats(torch.tensor([[-math.log(2), 0.0]]), zeros, zeros, mask, clip=0.2)
    assert down["ratio_max"].item() == pytest.approx(0.5)
    assert (up["clip_fraction"].item(), down["clip_fraction"].item()) == (0.0, 0.0)


def test_kl_stats_by_hand():
    # one token twice as likely as before: d = log old - log new = -ln 2
    # k1 = -0.693147, k2 = 0.693147^2 / 2 = 0.240227, k3 = 2 - 1 - 0.693147 = 0.306853
    one = torch.ones(1, 1, dtype=torch.bool)
    stats = policy_stats(torch.tensor([[math.log(2)]]), torch.zeros(1, 1), torch.ones(1, 1), one, clip=0.2)
    assert stats["kl_k1"].item() == pytest.approx(-0.693147, abs=1e-6)
    assert stats["kl_k2"].item() == pytest.approx(0.240227, abs=1e-6)
    assert stats["kl_k3"].item() == pytest.approx(0.306853, abs=1e-6)


def test_trap_ratio_exactly_one_and_kl_zero_when_logprobs_equal(ragged):
    mask, (logprobs, advantages) = ragged(1, 2)
    stats = policy_stats(logprobs, logprobs, advantages, mask, clip=0.2)
    assert [stats[f"ratio_{name}"].item() for name in ("mean", "min", "max")] == [1.0, 1.0, 1.0]
    assert [stats[f"kl_{name}"].item() for name in ("k1", "k2", "k3")] == [0.0, 0.0, 0.0]
    assert stats["clip_fraction"].item() == 0.0
    # the loss is minus the mean advantage, and its gradient the policy gradient's
    logprobs.requires_grad_()
    loss = policy_loss(logprobs, logprobs.detach(), advantages, mask, clip=0.2)
    loss.backward()
    torch.testing.assert_close(loss.detach(), -advantages[mask].mean())
    torch.testing.assert_close(logprobs.grad, -advantages.masked_fill(~mask, 0.0) / mask.sum())


def test_a_ratio_beyond_float32_gives_the_capped_loss_and_no_gradient():
    logprobs = torch.tensor([[1000.0, -1000.0, 1000.0, 0.0]], requires_grad=True)
    advantages = torch.tensor([[1.0, -1.0, 0.0, 0.0]])
    loss = policy_loss(logprobs, torch.zeros(1, 4), advantages, FOUR, clip=0.2)
    loss.backward()
    # -1.2 for A = 1, +0.8 for A = -1, 0 for A = 0
    assert loss.item() == pytest.approx((-1.2 + 0.8) / 4)
    assert logprobs.grad is not None and (logprobs.grad == 0).all()


def test_value_loss_by_hand():
    # old 0, clip 0.2. 0.5 -> 1: 0.25, clipped 0.8^2 = 0.64. 0.1 -> 1: 0.81 both.
    # -0.5 -> 0: 0.25, clipped 0.04. Half of (0.64 + 0.81 + 0.25) / 3 = 0.283333
    values, returns = torch.tensor([[0.5, 0.1, -0.5]]), torch.tensor([[1.0, 1.0, 0.0]])
    mask, old = torch.ones(1, 3, dtype=torch.bool), torch.zeros(1, 3)
    assert value_loss(values, old, returns, mask, clip=0.2).item() == pytest.approx(1.7 / 6)
    stats = value_stats(values, old, returns, mask, clip=0.2)
    assert stats["clip_fraction"].item() == pytest.approx(1 / 3)
    assert stats["error"].item() == pytest.approx((0.25 + 0.81 + 0.25) / 3)


def test_explained_variance_by_hand():
    # residuals -1, 0, 1 (variance 2/3) of returns 0, 2, 4 (variance 8/3): 1 - 1/4; the pad is far off
    values, returns = torch.tensor([[1.0, 2.0, 3.0, 50.0]]), torch.tensor([[0.0, 2.0, 4.0, -50.0]])
    mask = torch.tensor([[True, True, True, False]])
    stats = value_stats(values, values, returns, mask, clip=0.2)
    assert stats["explained_variance"].item() == pytest.approx(0.75)
    assert value_stats(returns, values, returns, mask, clip=9.0)["explained_variance"].item() == 1.0


def test_ppo_loss_by_hand():
    policy, value, pretrain = torch.tensor([0.5, 2.0, 3.0])
    coefficients = {"vf_coef": 0.1, "ptx_coef": 27.8}
    assert ppo_loss(policy, value, pretrain, **coefficients).item() == pytest.approx(84.1)  # + 27.8 * 3
    assert ppo_loss(policy, value, None, **coefficients).item() == pytest.approx(0.7)
    assert ppo_loss(policy, None, None, **coefficients).item() == 0.5


def test_reinforce_loss_by_hand():
    logprobs = torch.tensor([[-1.0, -2.0, -9.0]], requires_grad=True)
    advantages, mask = torch.tensor([[2.0, -1.0, 5.0]]), torch.tensor([[True, True, False]])
    loss = reinforce_loss(logprobs, advantages, mask)
    assert loss.item() == pytest.approx((2.0 - 2.0) / 2)  # -(2 * -1 + -1 * -2) / 2
    loss.backward()
    assert logprobs.grad.tolist() == [[-1.0, 0.5, 0.0]]
    assert reinforce_loss(logprobs, advantages, mask, count=4.0).item() == 0.0


def test_padding_reaches_no_loss_no_gradient_and_no_stat(ragged):
    mask, tensors = ragged(6, 4, dtype=torch.float64)
    clean = [tensor.nan_to_num(0.0) for tensor in tensors]
    for loss in (policy_loss, value_loss):
        poisoned = tensors[0].clone().requires_grad_()
        result = loss(poisoned, *tensors[1:3], mask, clip=0.2)
        result.backward()
        torch.testing.assert_close(result.detach(), loss(*clean[:3], mask, clip=0.2))
        assert poisoned.grad is not None
        assert poisoned.grad.isfinite().all() and (poisoned.grad[~mask] == 0).all()
    for stats in (policy_stats, value_stats):
        ours = stats(*tensors[:3], mask, clip=0.2)
        wide = [torch.nn.functional.pad(x, (0, 3), value=math.inf) for x in tensors[:3]]
        padded = stats(*wide, torch.nn.functional.pad(mask, (0, 3)), clip=0.2)
        for name, value in ours.items():
            assert value.isfinite(), name
            torch.testing.assert_close(padded[name], value)


def test_micro_batches_with_the_whole_count_add_up(ragged):
    mask, tensors = ragged(9, 3, shape=(6, 7), dtype=torch.float64)
    for loss in (policy_loss, value_loss):
        parts = [
            loss(*(x[i : i + 2] for x in tensors), mask[i : i + 2], clip=0.2, count=mask.sum())
            for i in range(0, 6, 2)
        ]
        torch.testing.assert_close(sum(parts), loss(*tensors, mask, clip=0.2))


def test_gradients_by_finite_differences(ragged):
    mask, tensors = ragged(12, 3, dtype=torch.float64)
    moving, old, target = (tensor.nan_to_num(0.0) for tensor in tensors)
    for loss in (policy_loss, value_loss):
        assert gradcheck(lambda x, loss=loss: loss(x, old, target, mask, clip=0.2), moving.requires_grad_())


def test_unequal_shapes_are_refused():
    with pytest.raises(UsageError, match="advantages: shape"):
        policy_loss(RATIO, RATIO, torch.ones(1), FOUR, clip=0.2)
    with pytest.raises(UsageError, match="old_values: shape"):
        value_loss(RATIO, torch.zeros(1, 1), RATIO, FOUR, clip=0.2)
