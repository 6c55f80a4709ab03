from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eval.agreement.measure import (
    agreement,
    agreement_matrix,
    comparison_agreement,
    labeler_agreement,
    labeler_columns,
)
from eval.common.pairs import comparison_pairs, log_length_ratio
from tests.eval.oracles import bootstrap_mean
from tldr.errors import UsageError
from tldr.records import Comparison, read_records


def test_agreement_by_hand_leaves_the_indifferent_out() -> None:
    judges = pd.DataFrame({"a": [1, -2, 3, 0, np.nan], "b": [0.5, 1, 2, 1, 1], "c": [-1, -1, 0, -1, -1]})
    posts = pd.Series(["p", "q", "r", "s", "t"])
    table = agreement(judges, posts).set_index(["first", "second"])
    assert table.loc[("a", "b"), ["value", "n", "posts", "left_out"]].tolist() == [
        pytest.approx(2 / 3),
        3,
        3,
        1,
    ]
    assert table.loc[("a", "c"), ["value", "n", "left_out"]].tolist() == [0.5, 2, 2]
    assert table.loc[("b", "c"), "value"] == 0.0
    matrix = agreement_matrix(table.reset_index())
    assert matrix.loc["b", "a"] == matrix.loc["a", "b"] == pytest.approx(2 / 3)
    assert np.isnan(matrix.loc["a", "a"]) and list(matrix) == ["a", "b", "c"]


def test_intervals_are_those_of_a_clustered_mean() -> None:
    draw = np.random.default_rng(1)
    posts = pd.Series(draw.integers(0, 80, 400).astype(str))
    judges = pd.DataFrame({"a": draw.choice([-1, 1], 400), "b": draw.choice([-1, 1], 400)})
    row = agreement(judges, posts).iloc[0]
    direct = bootstrap_mean(judges["a"] == judges["b"], posts, draws=2000)
    assert (row["value"], row["low"], row["high"], row["se"]) == pytest.approx(
        (direct.value, direct.low, direct.high, direct.se)
    )


def test_judges_with_nothing_in_common() -> None:
    with pytest.raises(UsageError, match="no two judges"):
        agreement(pd.DataFrame({"a": [1, np.nan], "b": [np.nan, 1]}), pd.Series(["p", "q"]))


def labels(*rows: tuple[str, str, str, str, float]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["id", "worker", "first_text", "second_text", "preferred"])
    return table.assign(first="x", second="y")


def test_labelers_of_one_pair_by_hand() -> None:
    # p: w1 and w2 both choose "a", though shown in different orders; w3 chooses "b": 1 of 3 pairs agree
    table = labels(
        ("p", "w1", "a", "b", 1), ("p", "w2", "b", "a", 0), ("p", "w3", "a", "b", 0), ("q", "w1", "a", "b", 1)
    )
    row = labeler_agreement(table).iloc[0]
    assert (row["value"], row["n"], row["posts"]) == (pytest.approx(1 / 3), 3, 1)
    with pytest.raises(UsageError, match="no pair was labelled by two"):
        labeler_agreement(table.tail(1))
    with pytest.raises(UsageError, match="1 labels are a worker's second"):
        labeler_agreement(pd.concat([table, table.head(1)], ignore_index=True))


def test_trap_the_ensemble_leaves_out_the_worker_it_is_compared_with() -> None:
    table = labels(*[("p", f"w{number}", "a", "b", float(number < 2)) for number in range(4)])
    turned = labeler_columns(table)
    # two choose a, two choose b: to each, the other three side with the other camp
    assert turned["labeler"].tolist() == [1, 1, -1, -1]
    assert turned["labeler ensemble"].tolist() == [-1, -1, 1, 1]
    assert labeler_columns(table.head(3))["labeler ensemble"].isna().all(), "three others are needed"
    split = labeler_columns(table.head(3), ensemble_of=2)["labeler ensemble"]
    assert split.tolist() == [0, 0, 1], "an even split is indifferent"


def labelled() -> pd.DataFrame:
    """Two posts labelled by four workers each, one by one; summaries of one policy but on post r."""
    choices = {"p": [1, 1, 1, 0], "q": [0, 0, 0, 0], "r": [1]}
    rows = [
        (post, f"w{number}", f"{post} long text", f"{post} x", float(choice))
        for post, made in choices.items()
        for number, choice in enumerate(made)
    ]
    table = labels(*rows).assign(post="long text", first="sft T=0.7", second="sft T=0.7")
    table.loc[table["id"] == "r", "second"] = "ppo"
    return table.assign(
        **{"first_score.rm": 1.0, "second_score.rm": table["id"].map({"p": 0.0, "q": 2.0, "r": 1.0})}
    )


def test_the_matrix_by_hand() -> None:
    table = comparison_agreement(labelled()).set_index(["first", "second"])
    # p: 3 of 6 pairs of labels agree, q: 6 of 6
    assert table.loc[("labeler", "another labeler"), ["value", "n", "posts"]].tolist() == [0.75, 12, 2]
    # p: 3 of 4 agree with the other three's majority (of two to one the fourth's); q: all
    assert table.loc[("labeler", "labeler ensemble"), ["value", "n"]].tolist() == [7 / 8, 8]
    assert table.loc[("labeler", "length (words)"), ["value", "n"]].tolist() == [4 / 9, 9]
    # rm is indifferent on r; p: 3 of 4, q: 4 of 4
    assert table.loc[("labeler", "rm"), ["value", "n", "left_out"]].tolist() == [7 / 8, 8, 1]
    assert ("labeler", "ROUGE") not in table.index, "nobody knows a reference"


def test_pairs_labelled_often_count_once_between_texts() -> None:
    row = comparison_agreement(labelled()).set_index(["first", "second"]).loc[("length (words)", "rm")]
    assert (row["value"], row["n"], row["left_out"]) == (0.5, 2, 1)


def test_only_pairs_of_one_policy_when_asked_for() -> None:
    table = comparison_agreement(labelled(), same_policy=True).set_index(["first", "second"])
    assert table.loc[("labeler", "length (words)"), "n"] == 8 and table["posts"].max() == 2
    alone = labelled().assign(first="reference", second="reference")
    with pytest.raises(UsageError, match="no comparison is between two samples of one policy"):
        comparison_agreement(alone, same_policy=True)


def test_cells_may_be_texts() -> None:
    table = agreement(pd.DataFrame({"a": [1, -1], "b": [1, 1]}), pd.Series(["p", "q"]))
    matrix = agreement_matrix(table.assign(cell="50 %"), "cell")
    assert matrix.loc["b", "a"] == "50 %" and pd.isna(matrix.loc["a", "a"])


def test_real_labels(shared_data: Path) -> None:
    pairs = comparison_pairs(read_records(shared_data / "comparisons" / "cnndm0.json", Comparison))
    between = labeler_agreement(pairs).iloc[0]
    # the paper has 66.9 % between labelers on CNN/DM
    assert between["n"] == 168 and between["low"] < 0.72 and between["high"] > 0.62
    turned = labeler_columns(pairs)
    judges = turned[["labeler"]].assign(length=log_length_ratio(turned, "characters"))
    longer = agreement(judges, turned["id"]).iloc[0]
    assert 0.5 < longer["value"] < 0.75 and longer["low"] < longer["value"] < longer["high"]
