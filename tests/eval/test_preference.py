from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from eval.common.tables import POOLED, result_table
from eval.preference.measure import (
    GOLD,
    RM,
    PreferenceScorer,
    length_bins,
    pair_shares,
    paired_tests,
    policy_label,
    preference,
    preference_by,
    reference_scorers,
    scorers_of,
    wins,
)
from tests.eval.oracles import paired_difference
from tldr.errors import UsageError


def samples(**columns: object) -> pd.DataFrame:
    base = {"policy": "ppo-s", "run": "r", "cell": "0", "temperature": 0.0, "top_p": 1.0, "n": 1}
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


def test_a_scorer_without_scores_of_the_references_is_refused() -> None:
    table = samples(id=["b", "a"], **{"score.x": [1.0, 1.0]})
    with pytest.raises(UsageError, match=r"score\.x_reference"):
        wins(table, PreferenceScorer("x"))


def test_every_cell_counts_the_same_and_shares_its_posts() -> None:
    seeds = [
        samples(id=["a", "b"], **{"score.rm": score, "score.rm_reference": [0.0, 0.0]}).assign(
            cell=str(seed), run=f"r{seed}"
        )
        for seed, score in enumerate([[1.0, -1.0], [1.0, 1.0]])
    ]
    rows = result_table(preference(pd.concat(seeds), RM, by=POOLED)).set_index("measure")
    row = rows.loc["preference"]
    assert (row["value"], row["n"], row["posts"], row["cells"], row["runs"]) == (0.75, 4, 2, 2, "r0 r1")
    assert row["cell_sd"] == pytest.approx(np.std([0.5, 1.0], ddof=1))
    assert row["cell_values"] == "0=0.5; 1=1.0"
    # t(0.975, 1) = 12.7062; the standard error is |1 - 0.5| / 2.
    assert row["high"] - row["value"] == pytest.approx(12.7062 * 0.25, rel=1e-5)


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


def test_any_scorer_with_references_is_found() -> None:
    columns = {f"score.{name}{end}": [1.0] for name in ("rm_l", "judge") for end in ("", "_reference")}
    found = reference_scorers(samples(id=["a"], **columns, **{"score.gold": [1.0]}))
    assert found == [PreferenceScorer("rm_l", tau=1.0), PreferenceScorer("judge")]


def test_breakdown_by_a_property_of_the_post() -> None:
    table = samples(
        id=list("abcd"), **{"score.rm": [1.0, 1.0, 0.0, 5.0], "score.rm_reference": [0.0, 2.0, 1.0, 1.0]}
    )
    groups = pd.Series(["pets", "pets", "advice", None], name="subreddit")
    rows = preference_by(table, RM, groups).query("measure == 'preference'").set_index("group")
    assert rows["value"].to_dict() == {"advice": 0.0, "pets": 0.5} and rows["n"].to_dict() == {
        "advice": 1,
        "pets": 2,
    }
    assert set(rows["breakdown"]) == {"subreddit"}
    with pytest.raises(UsageError, match="no sample has a subreddit"):
        preference_by(table, RM, groups.iloc[3:])


def test_length_bins_are_equal_in_number_and_name_their_unit() -> None:
    table = pd.DataFrame({"text": ["w " * n for n in (10, 1, 2, 9, 3, 4, 8, 7)]}, index=range(5, 13))
    bins = length_bins(table)
    assert bins.name == "length (words)" and bins.index.tolist() == table.index.tolist()
    assert list(bins.cat.categories) == ["1-2", "3-4", "7-8", "9-10"], "in order of length, not of spelling"
    assert bins.tolist() == ["9-10", "1-2", "1-2", "9-10", "3-4", "3-4", "7-8", "7-8"]
    assert set(length_bins(table.assign(text="a b"))) == {"2-2"}
    with pytest.raises(UsageError, match="no length unit 'pages'"):
        length_bins(table, unit="pages")


def two_policies(count: int = 80) -> pd.DataFrame:
    """Two policies on the same posts, one better, and one policy on posts of its own."""
    draw = np.random.default_rng(3)
    parts = []
    for name, level, first in (("a", 0.8, 0), ("b", 0.0, 0), ("c", 0.0, 1000)):
        ids = [f"p{first + number}" for number in range(count)]
        scores = {"score.x": level + draw.normal(size=count).round(), "score.x_reference": 0.0}
        parts.append(samples(id=ids, **scores).assign(policy=name, run=f"run-{name}"))
    return pd.concat(parts, ignore_index=True)


def test_policies_are_paired_by_post() -> None:
    table, scorer = two_policies(), PreferenceScorer("x")
    tests = paired_tests(table, scorer)
    assert len(tests) == 1, "c was sampled on other posts"
    row = tests.iloc[0]
    hard = table.assign(hard=wins(table, scorer)["hard"])
    one, other = (hard[hard["policy"] == name] for name in "ab")
    direct = paired_difference(one, other, "hard")
    assert (row["difference"], row["low"], row["high"]) == pytest.approx(
        (direct.value, direct.low, direct.high)
    )
    assert (row["first"], row["second"], row["runs"], row["posts"]) == ("a T=0", "b T=0", "run-a run-b", 80)
    difference = one["hard"].to_numpy() - other["hard"].to_numpy()
    theirs = scipy_stats.permutation_test(
        (difference,), np.mean, permutation_type="samples", rng=np.random.default_rng(1)
    )
    assert row["p_value"] == pytest.approx(theirs.pvalue, abs=0.004)
    decided = (one["hard"].to_numpy() != 0.5) & (other["hard"].to_numpy() != 0.5)
    won = ((difference > 0) & decided).sum()
    lost = ((difference < 0) & decided).sum()
    assert row["mcnemar"] == pytest.approx(scipy_stats.binomtest(int(won), int(won + lost)).pvalue)
    with pytest.raises(UsageError, match="no two policies were sampled on the same posts"):
        paired_tests(table[table["policy"] != "a"], scorer)


def test_many_comparisons_are_corrected() -> None:
    table = two_policies()
    same = table[table["policy"] == "b"]
    tests = paired_tests(
        pd.concat([table[table["policy"] != "c"], same.assign(policy="d"), same.assign(policy="e")]),
        PreferenceScorer("x"),
    )
    assert len(tests) == 6 and (tests["p_holm"] >= tests["p_value"]).all()
    assert tests["p_holm"].min() == pytest.approx(6 * tests["p_value"].min())
    equal = tests[tests["second"].isin(["d T=0", "e T=0"]) & tests["first"].isin(["b T=0", "d T=0"])]
    assert len(equal) == 3 and (equal["p_value"] == 1).all() and (equal["difference"] == 0).all()


def test_pair_shares_turn_to_the_reference_and_count_the_invalid() -> None:
    rows = [("p", "reference", "b", 0.0), ("q", "b", "reference", 0.5), ("q", "b", "reference", np.nan),
            ("p", "b", "a", 1.0), ("p", "a", "a", 1.0)]  # fmt: skip
    table = pair_shares(pd.DataFrame(rows, columns=["id", "first", "second", "preferred"]))
    assert table[["first", "second", "value", "n", "invalid"]].to_numpy().tolist() == [
        ["a", "b", 0.0, 1, 0],
        ["b", "reference", 0.75, 2, 1],
    ]
    assert table["ties"].tolist() == [0.0, 0.5]
    with pytest.raises(UsageError, match="no pair of two different policies"):
        pair_shares(pd.DataFrame(rows[4:], columns=["id", "first", "second", "preferred"]))


def test_labels_tell_policies_apart() -> None:
    names = {
        "policy": "ppo-l",
        "variant": "kl-0.3",
        "selected_by": "rm",
        "n": 16,
        "temperature": 0.7,
        "top_p": 0.9,
    }
    assert policy_label(names) == "ppo-l kl-0.3 rm N=16 T=0.7 top_p=0.9"
    assert policy_label({"policy": "x", "n": 1, "temperature": None, "top_p": 1.0}) == "x"
    assert policy_label({"method": "sft", "size": "s"}) == "sft s"
