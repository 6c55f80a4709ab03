"""The KL of best-of-n, and its expected worth from a pool."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tldr.errors import NonFiniteError, UsageError
from tldr.measures.best_of_n import (
    best_of_n_kl,
    best_of_n_weights,
    best_of_n_worth,
    doublings,
    first_best,
    pool_choosers,
)


@pytest.mark.parametrize(
    ("n", "printed"), [(8, 1.2), (63, 3.2), (64, 3.2), (128, 3.9), (256, 4.5), (512, 5.2)]
)
def test_best_of_n_kl_is_table_10(n: int, printed: float) -> None:
    assert round(float(best_of_n_kl(n)), 1) == printed


def test_trap_kl_uses_natural_log() -> None:
    # ln 2 - 1/2 = 0.193147; with log2 it would be 0.5. Gao et al.: n = 1000 is 5.9 nats, 60,000 is 10.
    assert best_of_n_kl(2) == pytest.approx(0.193147, abs=1e-6)
    assert best_of_n_kl(1) == 0.0
    assert best_of_n_kl(1000) == pytest.approx(5.9, abs=0.05)
    assert best_of_n_kl(60_000) == pytest.approx(10.0, abs=0.05)
    with pytest.raises(UsageError, match="best of 0"):
        best_of_n_kl(0)


def test_best_of_n_kl_in_nats() -> None:
    assert best_of_n_kl([1, 2, 1000]) == pytest.approx([0, np.log(2) - 0.5, 5.9088], abs=1e-4)
    with pytest.raises(UsageError, match="best of 0"):
        best_of_n_kl([3, 0])


def worth_of(choice: list[float], worth: list[float]) -> list[float]:
    """The expected worth of one pool, for every n."""
    every = range(1, len(choice) + 1)
    made: list[float] = best_of_n_worth(np.array([choice]), np.array([worth]), every)[0].tolist()
    return made


def brute_force(choice: list[float], worth: list[float]) -> list[float]:
    """Mean over all subsets of the mean worth among the subset's winners."""
    result = []
    for n in range(1, len(choice) + 1):
        outcomes = []
        for subset in combinations(range(len(choice)), n):
            best = max(choice[i] for i in subset)
            winners = [worth[i] for i in subset if choice[i] == best]
            outcomes.append(sum(winners) / len(winners))
        result.append(sum(outcomes) / len(outcomes))
    return result


def test_by_hand() -> None:
    # worths 10, 0, 4 in the order of choice. n = 1: 14/3. n = 2: {1,2} -> 0, {1,3} -> 4, {2,3} -> 4: 8/3.
    # n = 3: 4
    assert worth_of([3.0, 1.0, 2.0], [4.0, 10.0, 0.0]) == pytest.approx([14 / 3, 8 / 3, 4])


def test_ties_are_broken_fairly_by_hand() -> None:
    # The two best by choice tie: n = 2: {1,2} -> 0, {1,3} -> 4, {2,3} -> (0 + 4) / 2: 2. n = 3: 2
    for order in ([0, 1, 2], [0, 2, 1], [2, 1, 0]):
        choice, worth = ([side[i] for i in order] for side in ([1.0, 2.0, 2.0], [10.0, 0.0, 4.0]))
        assert worth_of(choice, worth) == pytest.approx([14 / 3, 2, 2])


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 7).flatmap(
        lambda pool: st.lists(
            st.tuples(
                st.lists(st.integers(0, 4).map(float), min_size=pool, max_size=pool),
                st.lists(st.floats(-5, 5), min_size=pool, max_size=pool),
            ),
            min_size=1,
            max_size=3,
        )
    )
)
def test_equals_the_enumeration_of_all_subsets(posts: list[tuple[list[float], list[float]]]) -> None:
    choice, worth = (np.array(side) for side in zip(*posts, strict=True))
    estimate = best_of_n_worth(choice, worth, range(1, choice.shape[1] + 1))
    for row, (scores, values) in zip(estimate.tolist(), posts, strict=True):
        assert row == pytest.approx(brute_force(scores, values), abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), pool=st.integers(1, 60))
def test_n_1_is_the_mean_and_n_all_is_the_top(seed: int, pool: int) -> None:
    draw = np.random.default_rng(seed)
    choice = np.stack([draw.permutation(pool) for _ in range(4)]).astype(float)
    worth = draw.normal(size=(4, pool))
    estimate = best_of_n_worth(choice, worth, range(1, pool + 1))
    np.testing.assert_allclose(estimate[:, 0], worth.mean(axis=1), atol=1e-9)
    np.testing.assert_allclose(estimate[:, -1], worth[np.arange(4), choice.argmax(axis=1)], atol=1e-9)
    # choosing by worth itself never gets worse with more to choose from
    own = best_of_n_worth(worth, worth, range(1, pool + 1))
    assert (np.diff(own, axis=1) >= -1e-9).all()


@pytest.mark.parametrize("pool", [1, 2, 5, 300, 2048])
def test_weights_are_probabilities_and_exact(pool: int) -> None:
    for n, i in {(1, 1), (1, pool), (pool, pool), ((pool + 1) // 2, pool - pool // 4), (min(8, pool), pool)}:
        weights = best_of_n_weights(n, pool)
        assert weights.sum() == pytest.approx(1, abs=1e-9)
        exact = float(Fraction(math.comb(i - 1, n - 1), math.comb(pool, n)))
        assert weights[i - 1] == pytest.approx(exact, rel=1e-9)
        assert (weights[: n - 1] == 0).all()


def test_bad_pools_are_refused() -> None:
    with pytest.raises(UsageError, match=r"choose by \(2, 3\), scores that count \(2, 4\)"):
        best_of_n_worth(np.zeros((2, 3)), np.zeros((2, 4)), [1])
    with pytest.raises(UsageError, match="N >= 1"):
        best_of_n_worth(np.zeros((2, 0)), np.zeros((2, 0)), [1])
    with pytest.raises(UsageError, match="between 1 and the pool's 3"):
        best_of_n_worth(np.zeros((2, 3)), np.zeros((2, 3)), [4])
    with pytest.raises(NonFiniteError, match="finite scores to choose by"):
        best_of_n_worth(np.array([[0.0, math.nan]]), np.zeros((1, 2)), [1])


def test_the_n_that_a_pool_is_read_at() -> None:
    assert [doublings(total) for total in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


def test_the_first_best_by_hand_and_the_first_wins_a_tie() -> None:
    choice = np.array([[0.0, 2.0, 2.0, 3.0], [5.0, 1.0, 5.0, 4.0]])
    assert first_best(choice, [1, 2, 3, 4]).tolist() == [[0, 1, 1, 3], [0, 0, 0, 0]]
    with pytest.raises(UsageError, match="between 1 and the pool's 4"):
        first_best(choice, [1, 5])
    with pytest.raises(NonFiniteError, match="finite scores"):
        first_best(np.array([[np.nan, 1.0]]), [1])


def test_over_all_orders_of_a_pool_the_first_best_is_worth_what_the_estimate_says() -> None:
    draw = np.random.default_rng(3)
    choice, worth = draw.random(4), draw.random(4)
    orders = np.array(list(permutations(range(4))))
    found = first_best(choice[orders], [1, 2, 3, 4])
    mean = np.take_along_axis(worth[orders], found, axis=1).mean(axis=0)
    assert mean == pytest.approx(best_of_n_worth(choice[None], worth[None], [1, 2, 3, 4])[0])


def test_what_a_pool_s_samples_can_be_chosen_by() -> None:
    names = ["rm_m", "gold", "gold_preference", "rm", "rm_reference", "rm_s_n-100", "rouge", "id"]
    assert pool_choosers(names) == ["rm", "rouge", "gold", "rm_m", "rm_s_n-100"]
