from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eval.agreement import agreement, agreement_matrix, labeler_agreement, labeler_columns
from eval.pairs import comparison_pairs, log_length_ratio
from eval.stats import bootstrap_mean
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


def test_real_labels(shared_data: Path) -> None:
    pairs = comparison_pairs(read_records(shared_data / "comparisons" / "cnndm0.json", Comparison))
    between = labeler_agreement(pairs).iloc[0]
    # the paper has 66.9 % between labelers on CNN/DM
    assert between["n"] == 168 and between["low"] < 0.72 and between["high"] > 0.62
    turned = labeler_columns(pairs)
    judges = turned[["labeler"]].assign(length=log_length_ratio(turned, "characters"))
    longer = agreement(judges, turned["id"]).iloc[0]
    assert 0.5 < longer["value"] < 0.75 and longer["low"] < longer["value"] < longer["high"]
