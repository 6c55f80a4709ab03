from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from eval.agreement.text_judges import text_judges
from tldr.errors import NonFiniteError, UsageError


def pairs(*rows: tuple[str, str, str, str, str], **scores: list[float]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["id", "first", "second", "first_text", "second_text"])
    return table.assign(post="the cat sat on the mat", **scores)


TWO = pairs(("p", "a", "b", " the cat sat", " a dog"), ("q", "a", "b", " x", " the cat sat"))
POSTS = pd.DataFrame({"summary": ["the cat sat", None]}, index=["p", "q"])


def test_by_hand() -> None:
    judges = text_judges(TWO, POSTS)
    assert list(judges) == ["length (words)", "copying", "ROUGE"]
    assert judges["length (words)"].tolist() == pytest.approx([math.log(3 / 2), math.log(1 / 3)])
    assert judges["copying"].tolist() == [1.0, -1.0]
    assert judges["ROUGE"][0] == 1.0 and math.isnan(judges["ROUGE"][1]), "q has no reference"
    assert list(text_judges(TWO, unit="characters")) == ["length (characters)", "copying"]
    with pytest.raises(UsageError, match="no length unit"):
        text_judges(TWO, unit="pages")


def test_rows_keep_their_places() -> None:
    """Judged pairs in the middle, on an index of their own."""
    table = pd.concat([TWO.iloc[[1]], TWO.iloc[[0]], TWO.iloc[[1]]]).set_axis([7, 3, 9])
    judges = text_judges(table, POSTS)
    assert judges.index.tolist() == [7, 3, 9]
    assert judges["ROUGE"].fillna(-9).tolist() == [-9, 1.0, -9]


def test_the_stemmer_is_used_when_asked_for() -> None:
    table = pairs(("p", "a", "b", "he runs", "he walks"))
    posts = pd.DataFrame({"summary": ["he was running"]}, index=["p"])
    assert text_judges(table, posts)["ROUGE"].item() == 0
    assert text_judges(table, posts, stemmer=True)["ROUGE"].item() > 0


def test_trap_rouge_does_not_judge_the_reference_itself() -> None:
    """Against itself the reference always wins; but it serves to judge the post's other pairs."""
    table = pairs(
        ("p", "reference", "b", "the cat sat", "a dog"),
        ("p", "a", "b", "the cat", "a dog"),
        ("q", "b", "reference", "x", "y"),
        ("r", "a", "b", "x", "y"),
    )
    judged = text_judges(table)["ROUGE"]
    assert judged.isna().tolist() == [True, False, True, True] and judged[1] > 0
    assert text_judges(table, POSTS.rename({"q": "r"}).assign(summary="y"))["ROUGE"][3] == pytest.approx(
        -2 / 3
    )  # R-2 of one word is 0


def test_scorers_and_logprob_per_token() -> None:
    scores = {"rm_s": ([1.0, 2.0], [3.0, np.nan]), "logprob_s": ([-10.0, -5.0], [-9.0, -6.0])}
    scores["tokens"] = ([10.0, 5.0], [3.0, 6.0])
    columns = {
        f"{side}_score.{name}": both[i]
        for name, both in scores.items()
        for i, side in enumerate(("first", "second"))
    }
    judges = text_judges(pairs(*TWO.iloc[:, :5].itertuples(index=False), **columns))
    assert {"rm_s", "logprob_s", "logprob_s per token", "length (tokens)"} <= set(judges)
    assert judges["rm_s"][0] == -2 and math.isnan(judges["rm_s"][1])
    assert judges["logprob_s"].tolist() == [-1.0, 1.0]
    assert judges["logprob_s per token"].tolist() == [2.0, 0.0]  # -1 against -3 a token; -1 against -1
    assert judges["length (tokens)"].tolist() == [7.0, -1.0]
    columns["second_score.tokens"] = [0.0, 6.0]
    with pytest.raises(NonFiniteError, match="not finite"):
        text_judges(pairs(*TWO.iloc[:, :5].itertuples(index=False), **columns))
