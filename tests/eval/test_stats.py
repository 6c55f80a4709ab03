from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from eval.common.stats import (
    _CHUNK_CELLS,
    FloatArray,
    _resamples,
    bootstrap_means,
    bootstrap_totals,
    from_draws,
    jackknife,
    mcnemar_p,
    mean,
    sign_flip,
    wilson,
)
from tests.eval.oracles import bootstrap_mean, paired_difference
from tldr.errors import NonFiniteError, UsageError


def clustered(seed: int, groups: int = 60, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Observations whose clusters (of 1 to 8) share a random part."""
    draw = np.random.default_rng(seed)
    codes = np.repeat(np.arange(groups), draw.integers(1, 9, groups))
    return spread * draw.normal(size=groups)[codes] + draw.normal(size=len(codes)), codes


def test_mean_by_hand() -> None:
    estimate = mean([1.0, 2.0, 3.0, 6.0])
    assert estimate.value == 3.0 and estimate.n == estimate.clusters == 4
    assert estimate.se == pytest.approx(np.sqrt(14 / 3) / 2)
    assert estimate.high - 3 == pytest.approx(3.182446 * estimate.se, rel=1e-6)  # t, 3 degrees of freedom


def test_clustered_mean_by_hand() -> None:
    # cluster sums of residuals about 2.5: (1-2.5)+(2-2.5) = -2 and (3-2.5)+(4-2.5) = 2
    assert mean([1.0, 2.0, 3.0, 4.0], ["a", "a", "b", "b"]).se == pytest.approx(np.sqrt(2 / 1 * 8) / 4)


def test_clustered_mean_equals_statsmodels() -> None:
    values, codes = clustered(3)
    fit = sm.OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": codes}, use_t=True)
    ours = mean(values, codes)
    assert ours.value == pytest.approx(fit.params[0])
    assert ours.se == pytest.approx(fit.bse[0], rel=1e-9)
    assert (ours.low, ours.high) == pytest.approx(tuple(fit.conf_int()[0]), rel=1e-6)


def test_bootstrap_equals_scipy_without_clusters() -> None:
    values = np.random.default_rng(1).exponential(size=300)
    theirs = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(2)
    )
    ours = bootstrap_mean(values)
    assert ours.se == pytest.approx(theirs.standard_error, rel=0.03)
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.06 * ours.se + 0.003)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.06 * ours.se + 0.003)


def test_trap_judgements_of_one_post_are_not_independent() -> None:
    values, codes = clustered(5, spread=3.0)
    naive, honest = bootstrap_mean(values), bootstrap_mean(values, codes)
    assert honest.se > 1.8 * naive.se
    assert honest.se == pytest.approx(mean(values, codes).se, rel=0.06)


def test_few_clusters_widen_the_interval_to_the_t_interval() -> None:
    """Hesterberg 2015: expanded percentiles of normal draws are the t interval with s / sqrt(n)."""
    groups, se = 6, 0.5
    draws = np.sqrt((groups - 1) / groups) * se * scipy_stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    estimate = from_draws(0.0, draws, 6, groups)
    assert estimate.high == pytest.approx(scipy_stats.t.ppf(0.975, groups - 1) * se, rel=1e-3)
    assert estimate.low == pytest.approx(-estimate.high)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("infinite", "low"), [(2, 0.0), (100, -np.inf)])
def test_infinite_draws_move_a_bound_and_leave_no_standard_error(infinite: int, low: float) -> None:
    """100 clusters: the bounds are the draws at 2.3 % and 97.7 %; 2 infinite ones of 1,000 lie outside."""
    draws = np.concatenate([np.full(infinite, -np.inf), np.zeros(500), np.ones(500 - infinite)])
    estimate = from_draws(0.4, draws, 100, 100)
    assert (estimate.low, estimate.high) == (low, 1.0)
    assert np.isnan(estimate.se)


def test_seeded_and_independent_of_row_order() -> None:
    values, codes = clustered(7)
    assert bootstrap_mean(values, codes, seed=4) == bootstrap_mean(values, codes, seed=4)
    assert bootstrap_mean(values, codes, seed=4) != bootstrap_mean(values, codes, seed=5)


def test_columns_share_their_resamples() -> None:
    values, codes = clustered(8)
    alone, twice = bootstrap_means(np.column_stack([values, 2 * values]), codes, draws=400)
    assert twice.low == pytest.approx(2 * alone.low)
    assert alone.low == pytest.approx(bootstrap_mean(values, codes, draws=400).low)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(1, 50))
def test_totals_resample_whole_clusters(codes: list[int], draws: int) -> None:
    """With a column of ones and a column of cluster marks every draw holds each cluster wholly or not."""
    marks = pd.get_dummies(pd.Series(codes)).to_numpy(dtype=float)
    totals = bootstrap_totals(marks, codes, draws=draws)
    times = totals / marks.sum(axis=0)
    assert np.allclose(times, times.round())
    assert (times.sum(axis=1) == len(set(codes))).all()


@pytest.mark.parametrize("posts", [5_000, 20_000])
def test_resamples_are_drawn_in_few_chunks_of_bounded_size(
    posts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand draws on twenty thousand judgements: by post, and no array of all draws at once."""
    shapes: list[tuple[int, int]] = []

    def resamples(groups: int, rows: int, seed: int, chunk: int) -> FloatArray:
        shapes.append((rows, groups))
        return _resamples(groups, rows, seed, chunk)

    monkeypatch.setattr("eval.common.stats._resamples", resamples)
    draw = np.random.default_rng(0)
    bootstrap_mean(draw.random(20_000), draw.permutation(20_000) % posts, draws=10_000)
    assert sum(rows for rows, _ in shapes) == 10_000
    assert {groups for _, groups in shapes} == {posts}
    assert max(rows * groups for rows, groups in shapes) <= _CHUNK_CELLS
    assert len(shapes) == -(-10_000 * posts // _CHUNK_CELLS)


def test_resamples_of_the_same_posts_are_drawn_once() -> None:
    _resamples.cache_clear()
    for column in range(3):
        bootstrap_totals(np.full((6, 1), column), [0, 0, 1, 1, 2, 2], draws=50)
    assert _resamples.cache_info().misses == 1


def test_paired_difference_by_hand() -> None:
    first = pd.DataFrame({"id": ["a", "a", "b"], "x": [1.0, 3.0, 5.0]})
    second = pd.DataFrame({"id": ["b", "a"], "x": [4.0, 0.0]})
    estimate = paired_difference(first, second, "x")
    assert estimate.value == pytest.approx((2.0 + 1.0) / 2)
    assert estimate.n == 2
    same = paired_difference(first, first, "x")
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_pairing_is_sharper_than_two_separate_means() -> None:
    draw = np.random.default_rng(2)
    hard = draw.normal(scale=3, size=200)
    tables = [
        pd.DataFrame({"id": np.arange(200), "x": hard + shift + draw.normal(scale=0.3, size=200)})
        for shift in (0.2, 0)
    ]
    assert paired_difference(*tables, "x").se < 0.15 * bootstrap_mean(tables[0]["x"]).se


def test_paired_difference_wants_the_same_posts() -> None:
    first, second = pd.DataFrame({"id": ["a"], "x": [1.0]}), pd.DataFrame({"id": ["b"], "x": [1.0]})
    with pytest.raises(UsageError, match="2 posts occur in only one"):
        paired_difference(first, second, "x")


def test_a_missing_value_is_not_averaged_away() -> None:
    with pytest.raises(NonFiniteError, match="1 of 3"):
        mean([1.0, np.nan, 2.0])
    table = pd.DataFrame({"id": ["a", "a"], "x": [1.0, np.nan]})
    with pytest.raises(NonFiniteError):
        paired_difference(table, table, "x")


def test_bad_input_is_refused() -> None:
    with pytest.raises(UsageError, match="no observations"):
        mean([])
    with pytest.raises(UsageError, match="3 values but 2"):
        mean([1.0, 2.0, 3.0], ["a", "b"])
    with pytest.raises(UsageError, match="no cluster label"):
        mean([1.0, 2.0], ["a", None])


def test_one_cluster_has_no_interval() -> None:
    for estimate in (mean([1.0, 2.0], ["a", "a"]), bootstrap_mean([1.0, 2.0], ["a", "a"])):
        assert estimate.value == 1.5 and np.isnan([estimate.low, estimate.high, estimate.se]).all()


def test_wilson_by_hand() -> None:
    estimate = wilson(8, 10)
    assert (estimate.low, estimate.high) == pytest.approx((0.49016, 0.94332), abs=1e-5)
    assert wilson(0, 10).low == pytest.approx(0, abs=1e-12) and wilson(0, 10).high > 0.2
    assert wilson(0.5, 1).value == 0.5
    with pytest.raises(UsageError):
        wilson(3, 2)


def test_sign_flips_equal_scipy() -> None:
    draw = np.random.default_rng(4)
    differences = np.column_stack([draw.choice([-1, -0.5, 0, 0.5, 1], 80), draw.normal(0.25, 1, 80)])
    ours = sign_flip(differences, draws=40_000)
    for column, p_value in zip(differences.T, ours, strict=True):
        theirs = scipy_stats.permutation_test(
            (column,), np.mean, permutation_type="samples", n_resamples=40_000, rng=np.random.default_rng(5)
        )
        assert p_value == pytest.approx(theirs.pvalue, abs=0.01)


def test_sign_flips_by_hand() -> None:
    # of the 8 sign patterns of 1, 2, 4 only two have a sum as far from 0 as 7
    assert sign_flip(np.array([[1.0], [2.0], [4.0]]), draws=40_000)[0] == pytest.approx(2 / 8, abs=0.01)
    assert sign_flip(np.zeros((5, 1)), draws=10).tolist() == [1.0]
    assert sign_flip(np.full((60, 1), 0.1), draws=999).tolist() == [1 / 1000], "never zero"


def test_sign_flips_reject_as_often_as_they_say() -> None:
    nothing = np.random.default_rng(6).normal(size=(40, 2000))
    assert np.mean(sign_flip(nothing, draws=2000) <= 0.05) == pytest.approx(0.05, abs=0.015)


def test_mcnemar_by_hand() -> None:
    # 1 post that only the first wins and 7 that only the second does: binomial, two-sided
    first, second = [1] + [0] * 7 + [1] * 5 + [0.5], [0] + [1] * 7 + [1] * 5 + [1]
    assert mcnemar_p(first, second) == pytest.approx(scipy_stats.binomtest(1, 8).pvalue)
    assert mcnemar_p([0.3, 1], [0, 1]) is None, "shares are no outcomes"


def test_jackknife_of_a_mean_is_its_t_interval() -> None:
    values = np.array([1.0, 2.0, 3.0, 6.0])
    ours, plain = jackknife(3.0, (values.sum() - values) / 3, 4), mean(values)
    assert (ours.low, ours.high, ours.se) == pytest.approx((plain.low, plain.high, plain.se))
    assert np.isnan(jackknife(3.0, [np.nan], 1).low)
