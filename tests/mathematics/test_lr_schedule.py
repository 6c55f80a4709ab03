"""The learning-rate multiplier."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tldr.errors import UsageError
from tldr.mathematics.schedule import lr_multiplier


def course(updates, **kwargs):
    return [lr_multiplier(update, updates, **kwargs) for update in range(updates)]


def test_shapes_by_hand():
    assert course(4, schedule="linear") == [1.0, 0.75, 0.5, 0.25]
    # (1 + cos(0, pi/4, pi/2, 3 pi/4)) / 2
    assert course(4, schedule="cosine") == pytest.approx([1.0, 0.853553, 0.5, 0.146447], abs=1e-6)
    assert course(4, schedule="constant", final=0.1) == [1.0, 1.0, 1.0, 1.0]
    # halfway between 1 and 0.1
    assert lr_multiplier(2, 4, schedule="linear", final=0.1) == pytest.approx(0.55)
    assert lr_multiplier(4, 4, schedule="cosine", final=0.1) == pytest.approx(0.1)


def test_warm_up_by_hand():
    # InstructGPT: 10 iterations from 0.1 of the peak to the peak, then constant
    assert course(12, schedule="constant", warmup=10) == pytest.approx(
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0, 1.0]
    )
    # a share: 0.5 of 8 updates; the decay runs over the other 4
    assert course(8, schedule="linear", warmup=0.5) == [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25]


def test_cosine_is_torchs():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20, eta_min=0.1)
    theirs = []
    for _ in range(20):
        theirs.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert course(20, schedule="cosine", final=0.1) == pytest.approx(theirs)


@settings(max_examples=50)
@given(
    updates=st.integers(1, 200),
    schedule=st.sampled_from(["cosine", "linear", "constant"]),
    share=st.floats(0, 0.99),
    final=st.floats(0, 1),
)
def test_rises_to_the_peak_then_falls_no_lower_than_final(updates, schedule, share, final):
    warm = round(share * updates)
    values = course(updates, schedule=schedule, warmup=share, final=final)
    assert all(0 < value <= 1 for value in values)
    assert values[: warm + 1] == sorted(values[: warm + 1])
    assert values[warm:] == sorted(values[warm:], reverse=True)
    assert max(values) == 1.0
    assert min(values[warm:], default=1.0) >= final - 1e-12


def test_bad_requests_are_refused():
    with pytest.raises(UsageError, match="update 5 of 4"):
        lr_multiplier(5, 4, schedule="linear")
    with pytest.raises(UsageError, match="update -1 of 4"):
        lr_multiplier(-1, 4, schedule="linear")
    with pytest.raises(UsageError, match="10 warm-up updates in a run of 4"):
        lr_multiplier(0, 4, schedule="linear", warmup=10)
    with pytest.raises(UsageError, match="unknown schedule 'step'"):
        lr_multiplier(0, 4, schedule="step")
