"""Means and whitening over real entries."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tldr.errors import UsageError
from tldr.mathematics.masking import masked_mean, masked_var, real_entries, require_right_padded, whiten

VALUES = torch.tensor([[1.0, 2.0, 99.0], [6.0, 99.0, 99.0]])
MASK = torch.tensor([[True, True, False], [True, False, False]])


def test_mean_and_variance_by_hand():
    # (1 + 2 + 6) / 3 = 3; ((1-3)^2 + (2-3)^2 + (6-3)^2) / 3 = 14/3
    assert masked_mean(VALUES, MASK).item() == 3.0
    assert masked_var(VALUES, MASK).item() == pytest.approx(14 / 3)


def test_whiten_by_hand():
    # sqrt(14/3) = 2.160247; (1-3, 2-3, 6-3) / 2.160247 = -0.925820, -0.462910, 1.388730
    shifted = torch.tensor([[-0.925820, -0.462910, 0.0], [1.388730, 0.0, 0.0]])
    torch.testing.assert_close(whiten(VALUES, MASK), shifted, atol=1e-6, rtol=0)
    # without the shift the mean 3 stays: 2.074180, 2.537090, 4.388730
    kept = torch.tensor([[2.074180, 2.537090, 0.0], [4.388730, 0.0, 0.0]])
    torch.testing.assert_close(whiten(VALUES, MASK, shift_mean=False), kept, atol=1e-6, rtol=0)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_whitened_real_entries_have_mean_0_and_variance_1(ragged, seed, scale, shift):
    mask, (values,) = ragged(seed, 1, dtype=torch.float64)
    white = whiten(values * scale + shift, mask)
    if mask.sum() > 1:
        assert white[mask].mean().item() == pytest.approx(0, abs=1e-6)
        assert white[mask].var(correction=0).item() == pytest.approx(1, abs=1e-3)
    assert (white[~mask] == 0).all()
    kept = whiten(values * scale + shift, mask, shift_mean=False)
    torch.testing.assert_close(kept[mask].mean(), (values * scale + shift)[mask].mean())


def test_trap_padded_positions_in_no_mean():
    # A padded log-probability filled with 1.0 (INVALID_LOGPROB of N+ and the former TRL PPO) takes
    # 1 nat off the entropy for each pad; here the entropy is (0.7 + 0.5 + 0.3) / 3 = 0.5 nats.
    entropy = torch.tensor([[0.7, 0.5, -1.0], [0.3, -1.0, -1.0]])
    assert masked_mean(entropy, MASK).item() == pytest.approx(0.5)
    poisoned = entropy.masked_fill(~MASK, math.nan)
    assert masked_mean(poisoned, MASK).item() == pytest.approx(0.5)
    assert masked_var(poisoned, MASK).item() == pytest.approx(((0.2**2) + 0 + (0.2**2)) / 3)


def test_trap_advantages_whitened_over_real_tokens_only(ragged):
    mask, (values,) = ragged(3, 1)
    real = values[mask].double()
    expected = (real - real.mean()) / real.std(correction=0)
    torch.testing.assert_close(whiten(values, mask)[mask].double(), expected, atol=1e-5, rtol=1e-5)
    over_all = values.nan_to_num(0.0)
    wrong = (over_all - over_all.mean()) / over_all.std(correction=0)
    assert (wrong[mask] - expected.float()).abs().max() > 0.05


@pytest.mark.parametrize("width", [1, 5])
def test_appended_padding_changes_nothing(ragged, width):
    mask, (values,) = ragged(11, 1)
    wide_mask = torch.nn.functional.pad(mask, (0, width))
    wide = torch.nn.functional.pad(values, (0, width), value=math.inf)
    torch.testing.assert_close(masked_mean(wide, wide_mask), masked_mean(values, mask))
    torch.testing.assert_close(whiten(wide, wide_mask)[:, :7], whiten(values, mask))
    assert (whiten(wide, wide_mask)[:, 7:] == 0).all()


def test_micro_batches_with_the_whole_count_add_up_to_the_mean(ragged):
    mask, (values,) = ragged(5, 1, shape=(6, 7), dtype=torch.float64)
    parts = [masked_mean(v, m, count=mask.sum()) for v, m in zip(values.split(2), mask.split(2), strict=True)]
    torch.testing.assert_close(sum(parts), masked_mean(values, mask))
    mean_of_means = sum(masked_mean(v, m) for v, m in zip(values.split(2), mask.split(2), strict=True)) / 3
    assert abs(mean_of_means - masked_mean(values, mask)) > 1e-3


def test_equal_values_whiten_to_zero_and_nothing_has_no_mean():
    constant = torch.full((2, 3), 0.5)
    assert (whiten(constant, MASK) == 0).all()
    assert masked_mean(constant, torch.zeros_like(MASK)).isnan()


def test_arithmetic_is_float32_for_bfloat16_and_stays_float64():
    half = torch.full((4, 300), 1.0078125, dtype=torch.bfloat16)
    mask = torch.ones(4, 300, dtype=torch.bool)
    assert masked_mean(half, mask).item() == 1.0078125
    for function in (masked_mean, masked_var, whiten):
        assert function(half, mask).dtype == torch.float32
        assert function(half.double(), mask).dtype == torch.float64


def test_whiten_carries_no_gradient_into_padding(ragged):
    mask, (values,) = ragged(8, 1)
    values.requires_grad_()
    (whiten(values, mask) ** 3).sum().backward()
    assert values.grad is not None
    assert values.grad.isfinite().all()
    assert (values.grad[~mask] == 0).all()


def test_bad_masks_and_shapes_are_refused():
    with pytest.raises(UsageError, match=r"mask is torch\.int64"):
        masked_mean(VALUES, MASK.long())
    with pytest.raises(UsageError, match=r"entropy: shape \(2, 2\) differs"):
        real_entries(MASK, values=VALUES, entropy=VALUES[:, :2])
    with pytest.raises(UsageError, match="a real token follows a padded one"):
        require_right_padded(~MASK)
    require_right_padded(torch.tensor([[False, False], [True, False], [True, True]]))
