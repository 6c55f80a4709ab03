from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eval.rouge.measure
from eval.common.io import load_posts, load_samples
from eval.common.tables import result_table
from eval.rouge.measure import resolve_backend, rouge, rouge_results
from tests.eval.oracles import bootstrap_mean
from tldr.errors import UsageError

fast = pytest.mark.skipif(
    resolve_backend() != "rouge-score-rs", reason="the fast-rouge extra is not installed"
)


def test_by_hand() -> None:
    # 3 of 4 words shared, in order; bigrams "the cat" of 3 and 3
    row = rouge(["the cat sat down"], ["the cat lay down"]).iloc[0]
    assert row["rouge1_p"] == row["rouge1_r"] == row["rougeL_f"] == 0.75
    assert row["rouge2_f"] == pytest.approx(1 / 3)
    assert row["rouge_mean"] == pytest.approx((0.75 + 0.75 + 1 / 3) / 3)


def test_precision_is_over_the_prediction() -> None:
    row = rouge(["a b c d"], ["a b"]).iloc[0]
    assert (row["rouge1_p"], row["rouge1_r"]) == (1.0, 0.5)


def test_the_stemmer_is_off_unless_asked_for() -> None:
    pair = (["he was running"], ["he was runs"])
    assert rouge(*pair)["rouge1_f"].item() == pytest.approx(2 / 3)
    assert rouge(*pair, stemmer=True)["rouge1_f"].item() == 1


def test_empty_texts_score_zero() -> None:
    scores = rouge(["", "a b", "é è", ""], ["x", "", "é è", ""])
    assert (scores == 0).all(axis=None) and len(scores) == 4
    assert list(rouge([], []).columns)[:3] == ["rouge1_p", "rouge1_r", "rouge1_f"]


def test_sentences_matter_to_lsum_alone() -> None:
    reference, prediction = "One two. Three four.", "Three four. One two."
    whole = rouge([reference], [prediction]).iloc[0]
    split = rouge([reference], [prediction], split_sentences=True).iloc[0]
    assert whole["rougeLsum_f"] == whole["rougeL_f"] == split["rougeL_f"] == 0.5
    assert split["rougeLsum_f"] == 1.0


def test_without_the_extra_the_plain_backend_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.rouge.measure.find_spec", lambda name: None)
    assert resolve_backend() == "rouge-score"
    assert rouge(["a b"], ["a b"])["rouge_mean"].item() == 1
    with pytest.raises(UsageError, match="install the extra: fast-rouge"):
        rouge(["a"], ["a"], backend="rouge-score-rs")


def test_bad_requests() -> None:
    with pytest.raises(UsageError, match="2 references but 1"):
        rouge(["a", "b"], ["a"])


def test_equals_rouge_155(shared_data: Path) -> None:
    fixture = json.loads((shared_data / "rouge155_fixtures.json").read_text())
    for stemmer, key in ((False, "no_stemmer"), (True, "stemmer")):
        scores = rouge(fixture["targets"], fixture["predictions"], stemmer=stemmer)
        for number, expected in enumerate(fixture[key]):
            for variant, values in expected.items():
                ours = scores.loc[number, [f"{variant}_{part}" for part in "prf"]]
                assert ours.tolist() == pytest.approx(values, abs=1e-5)
    multi = fixture["multi"]
    row = rouge([multi["target"]], [multi["prediction"]], stemmer=True).iloc[0]
    assert [row[f"rougeLsum_{part}"] for part in "prf"] == pytest.approx(multi["rougeLsum_stemmer"], abs=1e-5)


PUBLISHED = {
    False: {"rouge1_f": 0.331, "rouge2_f": 0.112, "rougeL_f": 0.248, "rouge_mean": 0.230},
    True: {"rouge1_f": 0.346, "rouge2_f": 0.118, "rougeL_f": 0.257, "rouge_mean": 0.240},
}
"""paper.md 4.4, on 1,945 samples of OpenAI's 1.3B PPO policy, without and with the stemmer."""


@pytest.mark.parametrize("stemmer", [False, True])
def test_published_rouge_of_a_real_policy(shared_data: Path, stemmer: bool) -> None:
    """1,514 of the 1,945 are here: the whole's figure lies within the interval of the part."""
    posts = load_posts(shared_data / "tldr_posts.jsonl")
    samples = load_samples(shared_data / "openai_1p3b_ppo_samples.jsonl", policy="ppo")
    scores = rouge(posts.loc[samples["id"], "summary"].tolist(), samples["text"].tolist(), stemmer=stemmer)
    for name, published in PUBLISHED[stemmer].items():
        estimate = bootstrap_mean(scores[name], draws=1000)
        assert estimate.low <= published <= estimate.high, name
        assert estimate.high - estimate.low < 0.015


def made_up(count: int) -> tuple[list[str], list[str]]:
    """References and predictions of 20 to 40 words."""
    draw = random.Random(1)
    vocabulary = ["".join(draw.choices("abcdefghij", k=draw.randint(2, 7))) for _ in range(300)]
    sides = [[" ".join(draw.choices(vocabulary, k=draw.randint(20, 40))) for _ in range(count)] for _ in "12"]
    return sides[0], sides[1]


@fast
def test_the_fast_backend_takes_a_whole_test_set_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = eval.rouge.measure._scorer("rouge_score_rs", stemmer=True)
    sizes: list[int] = []

    class Counted:
        def score_batch(self, references: list[str], predictions: list[str]) -> Any:
            sizes.append(len(references))
            return scorer.score_batch(references, predictions)

    monkeypatch.setattr("eval.rouge.measure._scorer", lambda module, stemmer: Counted())
    assert len(rouge(*made_up(6553), stemmer=True)) == 6553
    assert sizes == [6553]


def test_processes_give_the_same_rows_in_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = made_up(60)
    alone = rouge(*sides, backend="rouge-score", stemmer=True)
    monkeypatch.setattr("eval.rouge.measure._CHUNK", 8)
    monkeypatch.setattr("eval.rouge.measure._POOLED_FROM", 20)
    monkeypatch.setattr("eval.rouge.measure._workers", lambda: 2)
    started: list[int] = []
    pool = eval.rouge.measure.ProcessPoolExecutor
    monkeypatch.setattr("eval.rouge.measure.ProcessPoolExecutor", lambda *a: started.append(a[0]) or pool(*a))
    assert rouge(*sides, backend="rouge-score", stemmer=True).equals(alone)
    assert started == [2]


def test_trap_rouge_results_name_the_stemmer() -> None:
    samples = pd.DataFrame(
        {"id": ["p", "q"], "policy": "a", "run": "r", "cell": "0", "n": 1, "temperature": 0.0}
    )
    samples = samples.assign(top_p=1.0, text=["he was running", "no"])
    posts = pd.DataFrame({"summary": ["he was runs", "no"]}, index=["p", "q"])
    plain, stemmed = (
        result_table(rouge_results(samples, posts, stemmer=stemmer)).set_index("measure")
        for stemmer in (False, True)
    )
    assert plain.loc["rouge1_f", "value"] == pytest.approx((2 / 3 + 1) / 2)
    assert stemmed.loc["rouge1_f_stemmed", "value"] == 1
    assert stemmed.index.str.endswith("_stemmed").all() and not plain.index.str.endswith("_stemmed").any()
    with pytest.raises(UsageError, match="1 samples are of posts without a reference"):
        rouge_results(samples, posts.assign(summary=["x", None]))


texts = st.lists(
    st.sampled_from(["cat", "running", "runs", "a", "I'm", "\n", "Straße", "4", "-", "\x00"]), max_size=12
)


@fast
@settings(max_examples=60)
@given(texts, texts, st.booleans())
def test_fast_equals_plain(first: list[str], second: list[str], stemmer: bool) -> None:
    pair = ([" ".join(first)], [" ".join(second)])
    plain = rouge(*pair, stemmer=stemmer, backend="rouge-score")
    assert np.array_equal(plain, rouge(*pair, stemmer=stemmer, backend="rouge-score-rs"))


@fast
def test_fast_equals_plain_on_real_text(shared_data: Path) -> None:
    posts = load_posts(shared_data / "tldr_posts.jsonl").head(100)
    pair = (posts["summary"].tolist(), posts["title"].tolist())
    for stemmer in (False, True):
        plain = rouge(*pair, stemmer=stemmer, backend="rouge-score")
        assert np.array_equal(plain, rouge(*pair, stemmer=stemmer, backend="rouge-score-rs"))
