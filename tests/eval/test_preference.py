from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from eval.preference import GOLD, RM, PreferenceScorer, preference, scorers_of, wins
from eval.tables import POOLED, result_table
from tldr.errors import UsageError


def samples(**columns: object) -> pd.DataFrame:
    base = {"policy": "ppo-s", "run": "r", "seed": 0, "temperature": 0.0, "top_p": 1.0, "n": 1}
    return pd.DataFrame(columns).assign(**base, **{"tag.method": "ppo", "tag.size": "s", "tag.params": 10})


def test_hard_and_expected_by_hand() -> None:
    table = samples(
        id=["a", "b", "c", "d"],
        **{"score.rm": [2.0, 0.0, 1.0, 1.0], "score.rm_reference": [1.0, 1.0, 1.0, 3.0]},
    )
    columns = wins(table, RM)
    assert list(columns["hard"]) == [1, 0, 0.5, 0]
    assert list(columns["tie"]) == [False, False, True, False]
    assert columns["expected"].tolist() == pytest.approx([0.7310586, 0.2689414, 0.5, 0.1192029])
    rows = result_table(preference(table, RM)).set_index("measure")
    assert rows.loc["preference", "value"] == 0.375
    assert rows.loc["ties", "value"] == 0.25
    assert rows.loc["expected_preference", "value"] == pytest.approx(0.4048007)
    assert set(rows["runs"]) == {"r"} and set(rows["n"]) == {4} and set(rows["scorer"]) == {"rm"}


def test_a_policy_that_always_wins_still_has_an_interval() -> None:
    table = samples(id=list("abcdefgh"), **{"score.rm": 1.0, "score.rm_reference": 0.0})
    row = result_table(preference(table, RM)).set_index("measure").loc["preference"]
    assert row["value"] == row["high"] == 1.0 and row["low"] == pytest.approx(
        0.6756, abs=1e-3
    )  # Wilson, 8 of 8


def test_tau_divides_the_difference() -> None:
    table = samples(id=["a"], **{"score.x": [1.5], "score.x_reference": [0.0]})
    assert wins(table, PreferenceScorer("x", tau=0.75))["expected"].tolist() == pytest.approx(
        [1 / (1 + np.exp(-2))]
    )
    assert wins(table, PreferenceScorer("x"))["expected"].isna().all(), "differences mean order only"


def test_planted_preference_is_taken_as_it_is() -> None:
    table = samples(
        id=["a", "b"],
        **{"score.gold": [1.0, 1.0], "score.gold_reference": [0.0, 2.0], "score.gold_preference": [0.9, 0.2]},
    )
    rows = result_table(preference(table, GOLD)).set_index("measure")
    assert rows.loc["expected_preference", "value"] == pytest.approx(0.55)
    assert rows.loc["preference", "value"] == 0.5


def test_references_may_be_samples_of_their_own() -> None:
    table = samples(id=["b", "a"], **{"score.x": [1.0, 1.0]})
    references = samples(id=["a", "b"], **{"score.x": [0.0, 2.0]})
    assert list(wins(table, PreferenceScorer("x"), references)["hard"]) == [0, 1]
    with pytest.raises(UsageError, match="scored references: 1 of 2 posts are missing: b"):
        wins(table, PreferenceScorer("x"), references.iloc[:1])
    with pytest.raises(UsageError, match=r"score\.x_reference"):
        wins(table, PreferenceScorer("x"))


def test_seeds_are_pooled_over_the_same_posts() -> None:
    seeds = [
        samples(id=["a", "b"], **{"score.rm": score, "score.rm_reference": [0.0, 0.0]}).assign(
            seed=seed, run=f"r{seed}"
        )
        for seed, score in enumerate([[1.0, -1.0], [1.0, 1.0]])
    ]
    rows = result_table(preference(pd.concat(seeds), RM, by=POOLED)).set_index("measure")
    row = rows.loc["preference"]
    assert (row["value"], row["n"], row["posts"], row["seeds"], row["runs"]) == (0.75, 4, 2, 2, "r0 r1")
    assert row["seed_sd"] == pytest.approx(np.std([0.5, 1.0], ddof=1))


def test_a_policy_half_scored_is_refused_and_one_unscored_left_out() -> None:
    table = samples(id=["a", "b"], **{"score.rm": [1.0, np.nan], "score.rm_reference": [0.0, 0.0]})
    with pytest.raises(UsageError, match="missing for 1 of 2 samples"):
        preference(table, RM)
    other = samples(id=["a"]).assign(policy="unscored")
    names = result_table(preference(pd.concat([table.iloc[:1], other], ignore_index=True), RM))["policy"]
    assert set(names) == {"ppo-s"}


def test_known_scorers_are_found_by_their_columns() -> None:
    table = samples(id=["a"], **{"score.rm": [1.0], "score.rm_reference": [0.0], "score.gold": [1.0]})
    assert scorers_of(table) == [RM]
