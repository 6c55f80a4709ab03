"""Expected gold of best-of-n from a pool."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tldr.errors import UsageError
from tldr.mathematics.best_of_n import best_of_n_gold, best_of_n_weights


def brute_force(proxy: list[float], gold: list[float]) -> list[float]:
    """Mean over all subsets of the mean gold among the subset's proxy winners."""
    result = []
    for n in range(1, len(proxy) + 1):
        outcomes = []
        for subset in combinations(range(len(proxy)), n):
            best = max(proxy[i] for i in subset)
            winners = [gold[i] for i in subset if proxy[i] == best]
            outcomes.append(sum(winners) / len(winners))
        result.append(sum(outcomes) / len(outcomes))
    return result


def test_by_hand():
    # golds 10, 0, 4 in proxy order. n = 1: 14/3. n = 2: {1,2} -> 0, {1,3} -> 4, {2,3} -> 4: 8/3. n = 3: 4
    estimate = best_of_n_gold(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([4.0, 10.0, 0.0]))
    assert estimate.tolist() == pytest.approx([14 / 3, 8 / 3, 4])


def test_ties_are_broken_fairly_by_hand():
    # The two best by proxy tie: n = 2: {1,2} -> 0, {1,3} -> 4, {2,3} -> (0 + 4) / 2: 2. n = 3: 2
    for order in ([0, 1, 2], [0, 2, 1], [2, 1, 0]):
        proxy, gold = torch.tensor([1.0, 2.0, 2.0])[order], torch.tensor([10.0, 0.0, 4.0])[order]
        assert best_of_n_gold(proxy, gold).tolist() == pytest.approx([14 / 3, 2, 2])


@settings(max_examples=40)
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
def test_equals_the_enumeration_of_all_subsets(posts):
    proxy, gold = (torch.tensor(list(side), dtype=torch.float64) for side in zip(*posts, strict=True))
    estimate = best_of_n_gold(proxy, gold)
    for row, (scores, golds) in zip(estimate.tolist(), posts, strict=True):
        assert row == pytest.approx(brute_force(scores, golds), abs=1e-9)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), pool=st.integers(1, 60))
def test_n_1_is_the_mean_and_n_all_is_the_top(seed, pool):
    generator = torch.Generator().manual_seed(seed)
    proxy = torch.stack([torch.randperm(pool, generator=generator) for _ in range(4)]).float()
    gold = torch.randn(4, pool, generator=generator)
    estimate = best_of_n_gold(proxy, gold)
    torch.testing.assert_close(estimate[:, 0], gold.double().mean(-1))
    top = gold.double().gather(-1, proxy.argmax(-1, keepdim=True)).squeeze(-1)
    torch.testing.assert_close(estimate[:, -1], top)
    # picking by gold itself never gets worse with more to pick from
    own = best_of_n_gold(gold, gold)
    assert (own.diff(dim=-1) >= -1e-9).all()


@pytest.mark.parametrize("pool", [1, 2, 5, 300, 2048])
def test_weights_are_probabilities_and_exact(pool):
    weights = best_of_n_weights(pool)
    torch.testing.assert_close(weights.sum(1), torch.ones(pool, dtype=torch.float64), atol=1e-9, rtol=0)
    for n, i in {(1, 1), (1, pool), (pool, pool), ((pool + 1) // 2, pool - pool // 4), (min(8, pool), pool)}:
        exact = float(Fraction(math.comb(i - 1, n - 1), math.comb(pool, n)))
        assert weights[n - 1, i - 1].item() == pytest.approx(exact, rel=1e-9)
    assert (weights.tril(-1) == 0).all()


def test_bad_pools_are_refused():
    with pytest.raises(UsageError, match=r"proxy scores \(2, 3\), gold scores \(2, 4\)"):
        best_of_n_gold(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(UsageError, match="N >= 1"):
        best_of_n_gold(torch.zeros(2, 0), torch.zeros(2, 0))
    with pytest.raises(UsageError, match="NaN or infinite"):
        best_of_n_gold(torch.tensor([0.0, math.nan]), torch.zeros(2))
