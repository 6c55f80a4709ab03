from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from eval.common.tables import result_table
from eval.texts.measure import (
    MEASURES,
    add_measures,
    baselines,
    distinct_estimate,
    distinct_results,
    distinct_table,
    length_results,
)
from eval.texts.overlap import distinct_ngrams

POSTS = pd.DataFrame(
    {
        "id": ["a", "b"],
        "title": [" A title ", "T"],
        "post": ["One two three. Four. Five.", "x y"],
        "summary": ["w " * 4, None],
    }
).set_index("id")


def samples(**columns: object) -> pd.DataFrame:
    base = {
        "policy": "p", "run": "r", "cell": "0", "temperature": 1.0, "top_p": 1.0, "n": 1,
        "tokens": 4, "stopped": True, "logprob": -3.0, "logprob_sft": -5.0,
    }  # fmt: skip
    return pd.DataFrame({"id": ["a", "a"], "text": [" one two ", ""]} | columns).assign(
        **{name: value for name, value in base.items() if name not in columns}
    )


def test_measures_by_hand() -> None:
    table = add_measures(
        samples(stopped=[True, False], logprob=[-3.0, -4.0], logprob_sft=[-5.0, -3.5]), POSTS
    )
    assert list(table["words"]) == [2, 0] and list(table["characters"]) == [7, 0]
    assert list(table["stop_rate"]) == [1, 0]
    assert list(table["kl_to_sft"]) == [2.0, -0.5]
    assert list(table["copying"]) == [1.0, 0.0]
    assert table["log_length_ratio"].tolist() == pytest.approx([math.log(2 / 4), math.log(0.5 / 4)])


def test_results_carry_their_units() -> None:
    rows = result_table(length_results(add_measures(samples(), POSTS))).set_index("measure")
    assert dict(rows["unit"]) == MEASURES
    assert rows.loc["kl_to_sft", "value"] == 2.0
    assert rows.loc["tokens", "value"] == 4.0


def test_what_was_not_measured_is_left_out_not_zero() -> None:
    bare = samples(tokens=np.nan, stopped=None, logprob=np.nan, logprob_sft=np.nan)
    names = {result.measure for result in length_results(add_measures(bare))}
    assert names == {"words", "characters", "repeated_4grams"}


def test_baselines_are_samples_of_their_own() -> None:
    table = baselines(POSTS)
    texts = {(row["policy"], row["id"]): row["text"] for _, row in table.iterrows()}
    assert texts["lead-2", "a"] == "One two three. Four."
    assert texts["lead-3", "a"] == "One two three. Four. Five."
    assert texts["title", "a"] == "A title"
    assert ("reference", "a") in texts and ("reference", "b") not in texts
    assert set(table["run"]) == {"posts"}
    results = result_table(length_results(add_measures(table)))
    assert results.set_index(["method", "measure"]).loc[("lead-2", "words"), "value"] == 3.0


def test_distinct_is_by_policy_and_names_its_runs() -> None:
    both = pd.concat([samples(text=["a b", "a c"]), samples(text=["z", "z"], policy="q", run="r2")])
    table = distinct_table(both).set_index("policy")
    assert table.loc["p", "distinct_1"] == 0.75 and table.loc["q", "distinct_1"] == 0.5
    assert table.loc["q", "runs"] == "r2"


def test_distinct_has_an_interval_from_leaving_posts_out() -> None:
    texts, posts = pd.Series(["a b", "a c", "c d", "a a a"]), pd.Series(["p", "p", "q", "r"])
    estimate = distinct_estimate(texts, posts, 1)
    assert estimate is not None
    assert estimate.value == distinct_ngrams(list(texts), 1) == pytest.approx(4 / 9)
    left = [distinct_ngrams(list(texts[posts != post]), 1) for post in "pqr"]  # 3/5, 3/7, 4/6
    assert estimate.se == pytest.approx(np.sqrt(2 / 3 * np.square(left - np.mean(left)).sum()))
    assert (estimate.n, estimate.clusters) == (4, 3)
    assert distinct_estimate(pd.Series(["a"]), pd.Series(["p"]), 2) is None
    rows = result_table(distinct_results(samples(text=["a b", "a c"], id=["a", "b"]))).set_index("measure")
    assert rows["value"].to_dict() == {"distinct_1": 0.75, "distinct_2": 1.0} and set(rows["runs"]) == {"r"}
