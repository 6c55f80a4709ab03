from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.io import load_posts
from eval.rouge import resolve_backend, rouge
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
    monkeypatch.setattr("eval.rouge.find_spec", lambda name: None)
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


def test_real_ppo_samples(shared_data: Path) -> None:
    """paper.md 4.4: 0.331 / 0.112 / 0.248 on 1,945 samples, of which 1,514 are here."""
    posts = load_posts(shared_data / "tldr_posts.jsonl")
    lines = (shared_data / "openai_1p3b_ppo_samples.jsonl").read_text().splitlines()[:600]
    rows = [json.loads(line) for line in lines]
    means = rouge([posts.loc[row["id"], "summary"] for row in rows], [row["text"] for row in rows]).mean()
    assert means["rouge1_f"] == pytest.approx(0.331, abs=0.012)
    assert means["rouge2_f"] == pytest.approx(0.112, abs=0.012)
    assert means["rougeL_f"] == pytest.approx(0.248, abs=0.012)


texts = st.lists(
    st.sampled_from(["cat", "running", "runs", "a", "I'm", "\n", "Straße", "4", "-", "\x00"]), max_size=12
)


@fast
@settings(max_examples=60, deadline=None)
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
