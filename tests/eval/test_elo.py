from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from eval.elo.measure import elo, fit_strengths
from tldr.errors import NonFiniteError, UsageError


def games(*rows: tuple[str, str, float]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["first", "second", "preferred"])
    return table.assign(id=[f"p{number}" for number in range(len(table))], first_text="a", second_text="b")


def simulated(strengths: dict[str, float], count: int, seed: int) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    names = list(strengths)
    first, second = np.array([draw.choice(len(names), 2, replace=False) for _ in range(count)]).T
    values = np.array(list(strengths.values()))
    won = draw.random(count) < expit(values[first] - values[second])
    return pd.DataFrame(
        {
            "id": [f"p{number}" for number in range(count)],
            "first": [names[number] for number in first],
            "second": [names[number] for number in second],
            "preferred": won.astype(float),
        }
    )


def test_two_policies_by_hand() -> None:
    # 3 wins of 4: odds 3, strength ln 3, Elo 400 log10(3) = 190.85
    table = elo(games(("a", "b", 1), ("a", "b", 1), ("b", "a", 0), ("a", "b", 0)), base="b").set_index(
        "policy"
    )
    assert table.loc["a", "elo"] == pytest.approx(1000 + 400 * np.log10(3))
    assert table.loc["b", "elo"] == 1000 and np.isnan(table.loc["b", "low"])
    assert table.loc["a", ["pairs", "wins"]].tolist() == [4, 0.75]


def test_ties_are_half_a_win() -> None:
    fit = fit_strengths(games(("a", "b", 0.5), ("a", "b", 0.5)), base="b")
    assert fit.contrast({"a": 1}).value == pytest.approx(0, abs=1e-9)


def test_order_of_showing_does_not_matter() -> None:
    one = simulated({"a": 0.0, "b": 0.5, "c": 1.0}, 300, seed=1)
    other = one.assign(first=one["second"], second=one["first"], preferred=1 - one["preferred"])
    assert np.allclose(fit_strengths(one, base="a").coefficients, fit_strengths(other, base="a").coefficients)


def test_intervals_cover_planted_strengths() -> None:
    truth = {"a": 0.0, "b": 0.4, "c": -0.8, "d": 1.2}
    inside = []
    for seed in range(60):
        fit = fit_strengths(simulated(truth, 400, seed), base="a")
        for name in "bcd":
            estimate = fit.contrast({name: 1.0})
            inside.append(estimate.low <= truth[name] <= estimate.high)
    assert 0.89 <= np.mean(inside) <= 0.99


def test_repeated_labels_of_a_post_widen_the_interval() -> None:
    table = simulated({"a": 0.0, "b": 0.5}, 100, seed=2)
    repeated = pd.concat([table] * 4, ignore_index=True)
    once, four = (fit_strengths(one, base="a").contrast({"b": 1.0}) for one in (table, repeated))
    assert four.se == pytest.approx(once.se, rel=0.03) and four.n == 400 and four.clusters == 100


def test_unconnected_policies_are_named() -> None:
    with pytest.raises(UsageError, match=r"never compared with one another: a, b \| c, d"):
        elo(games(("a", "b", 1), ("b", "a", 1), ("c", "d", 1), ("d", "c", 1)), base="a")


def test_an_unbeaten_policy_has_no_rating() -> None:
    with pytest.raises(
        UsageError, match=r"always win or always lose against the others: (c \| a, b|a, b \| c)"
    ):
        elo(games(("a", "b", 1), ("b", "a", 1), ("c", "a", 1), ("c", "b", 1)), base="a")


def test_bad_requests() -> None:
    table = games(("a", "b", 1), ("b", "a", 1))
    with pytest.raises(UsageError, match="no pair with 'x'"):
        elo(table, base="x")
    with pytest.raises(UsageError, match="about one post"):
        elo(table.assign(id="p"), base="a")
    with pytest.raises(NonFiniteError, match="1 of 2 pairs have no preference"):
        elo(table.assign(preferred=[1.0, np.nan]), base="a")
    with pytest.raises(NonFiniteError, match="lacks a feature"):
        fit_strengths(table, base="a", features=pd.DataFrame({"x": [1.0, np.nan]}))


def test_a_feature_that_separates_the_pairs_is_refused() -> None:
    table = games(("a", "b", 1), ("a", "b", 0), ("a", "b", 1), ("a", "b", 0))
    with pytest.raises(NonFiniteError, match="no finite fit"):
        fit_strengths(table, base="b", features=pd.DataFrame({"x": [1.0, -1.0, 2.0, -2.0]}))
