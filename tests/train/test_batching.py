"""Which examples make which update."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tldr.errors import UsageError
from tldr.train.batching import BatchPlan, epoch_order, micro_batches

LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=300)


def padding(batches: list[list[int]], lengths: list[int]) -> float:
    """Share of a padded forward pass that is padding."""
    real = sum(lengths[i] for batch in batches for i in batch)
    return 1 - real / sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)


@settings(max_examples=60)
@given(LENGTHS, st.integers(1, 40), st.integers(1, 60), st.integers(0, 3))
def test_every_example_exactly_once(lengths: list[int], batch: int, window: int, epoch: int) -> None:
    batches = epoch_order(lengths, batch, 1, epoch, window=window)
    assert Counter(i for b in batches for i in b) == Counter(range(len(lengths)))
    assert all(len(b) == batch for b in batches[:-1]) and 0 < len(batches[-1]) <= batch
    assert all([lengths[i] for i in b] == sorted(lengths[i] for i in b) for b in batches if batch <= window)
    dropped = epoch_order(lengths, batch, 1, epoch, window=window, keep_last=False)
    assert dropped == [b for b in batches if len(b) == batch]
    assert batches == epoch_order(lengths, batch, 1, epoch, window=window)


def test_epochs_and_seeds_differ() -> None:
    lengths = list(range(64))
    orders = [epoch_order(lengths, 8, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


def test_padding_falls_and_batches_stay_shuffled() -> None:
    draw = random.Random(0)
    lengths = [min(512, max(20, round(draw.lognormvariate(5.6, 0.5)))) for _ in range(4096)]
    shuffled = epoch_order(lengths, 8, 0, 0, window=1)  # a window of one batch: nothing to sort
    sorted_ = epoch_order(lengths, 8, 0, 0)
    assert 0.30 < padding(shuffled, lengths) < 0.42
    assert padding(sorted_, lengths) < 0.03
    # Neighbouring updates are not of neighbouring lengths.
    means = [sum(lengths[i] for i in b) / 8 for b in sorted_]
    rising = sum(b > a for a, b in pairwise(means))
    assert 0.4 < rising / len(means) < 0.6


def test_what_is_left_over_is_no_sample_of_the_longest() -> None:
    lengths = list(range(100))
    left = [epoch_order(lengths, 9, 0, epoch)[-1] for epoch in range(200)]
    assert all(len(batch) == 1 for batch in left)
    assert 40 < sum(batch[0] for batch in left) / 200 < 60


@settings(max_examples=40)
@given(st.integers(1, 50), st.integers(1, 12), st.floats(0.05, 3.5), st.booleans())
def test_plan_is_the_epochs_laid_end_to_end(n: int, batch: int, epochs: float, keep: bool) -> None:
    lengths = [(7 * i) % 23 + 1 for i in range(n)]
    if n < batch and not keep:
        with pytest.raises(UsageError, match="do not fill"):
            BatchPlan(lengths, batch, 2, epochs=epochs, keep_last=keep)
        return
    plan = BatchPlan(lengths, batch, 2, epochs=epochs, keep_last=keep)
    laid = [b for epoch in range(4) for b in epoch_order(lengths, batch, 2, epoch, keep_last=keep)]
    assert [plan.batch(i) for i in range(plan.total_updates)] == laid[: plan.total_updates]
    # Any update alone, without those before it.
    last = plan.total_updates - 1
    assert BatchPlan(lengths, batch, 2, epochs=epochs, keep_last=keep).batch(last) == laid[last]
    assert epochs * plan.per_epoch <= plan.total_updates < epochs * plan.per_epoch + 1 + 1e-6


def test_plan_lengths() -> None:
    assert BatchPlan([1] * 10, 4, 0, epochs=1).total_updates == 3
    assert BatchPlan([1] * 10, 4, 0, epochs=1, keep_last=False).total_updates == 2
    assert BatchPlan([1] * 300, 10, 0, epochs=0.1).total_updates == 3  # 0.1 * 30 is 3.0000000000000004
    assert BatchPlan([1] * 10, 4, 0, updates=7).total_updates == 7
    with pytest.raises(UsageError, match="either in epochs or in updates"):
        BatchPlan([1] * 10, 4, 0)
    with pytest.raises(UsageError, match="2 examples cannot be shared by 4"):
        BatchPlan([1] * 10, 4, 0, epochs=1, processes=4)
    with pytest.raises(UsageError, match="0 examples"):
        BatchPlan([], 4, 0, epochs=1)


@given(st.integers(1, 60), st.integers(1, 10), st.integers(1, 6))
def test_processes_share_a_batch_evenly(n: int, size: int, processes: int) -> None:
    if n < processes:
        with pytest.raises(UsageError):
            micro_batches(range(n), size, 0, processes)
        return
    shares = [micro_batches(range(n), size, rank, processes) for rank in range(processes)]
    assert sorted(i for share in shares for part in share for i in part) == list(range(n))
    assert len({len(share) for share in shares}) == 1
    sizes = [len(part) for share in shares for part in share]
    assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1
    assert max(sizes) <= size or (size == 1 and n % processes and max(sizes) == 2)


def test_micro_batches_by_hand() -> None:
    assert micro_batches([3, 1, 4, 1, 5], 2) == [[3], [1, 4], [1, 5]]
    assert micro_batches([3, 1, 4, 1, 5]) == [[3, 1, 4, 1, 5]]
    assert micro_batches(list(range(8)), 2, rank=1, processes=2) == [[2, 3], [6, 7]]
