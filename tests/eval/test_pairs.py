from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from eval.pairs import comparison_pairs, in_one_order, log_length_ratio, pair_key, reference_pairs
from tldr.errors import UsageError
from tldr.records import Comparison, read_records


def comparison(texts: tuple[str, str] = (" long one", " b"), **changes: object) -> Comparison:
    row = {
        "info": {"id": "p", "post": "text", "subreddit": "r"},
        "summaries": [{"text": texts[0], "policy": "sup4_6b_t0.7"}, {"text": texts[1], "policy": "ref"}],
        "choice": 0, "worker": "w", "batch": "b1", "split": "valid2", "extra": {"confidence": 2},
    }  # fmt: skip
    return Comparison.model_validate(row | changes)


def test_choice_zero_prefers_the_first() -> None:
    row = comparison_pairs([comparison()]).iloc[0]
    assert (row["preferred"], row["first"], row["second"], row["batch"]) == (
        1.0,
        "sup4_6b_t0.7",
        "reference",
        "b1",
    )
    assert comparison_pairs([comparison(choice=1)]).iloc[0]["preferred"] == 0.0


def test_trap_confidence_is_signed_and_strength_is_its_distance_from_five() -> None:
    sure, unsure, none = comparison_pairs(
        [
            comparison(extra={"confidence": 1}),
            comparison(choice=1, extra={"confidence": 6}),
            comparison(extra={}),
        ]
    ).to_dict("records")
    assert (sure["strength"], unsure["strength"]) == (4, 1)
    assert math.isnan(none["strength"])


def test_real_sliders_agree_with_the_choice(shared_data: Path) -> None:
    pairs = comparison_pairs(read_records(shared_data / "comparisons" / "batch13.json", Comparison))
    assert len(pairs) == 850
    assert ((pairs["confidence"] < 5) == (pairs["preferred"] == 1)).all()


def test_posts_without_an_id_are_told_apart_by_their_text(shared_data: Path) -> None:
    pairs = comparison_pairs(read_records(shared_data / "comparisons" / "edit_b2_eval_test.json", Comparison))
    assert pairs["id"].str.fullmatch("x_[0-9a-f]{12}").all() and pairs["id"].nunique() > 1


def test_trap_length_units_are_named() -> None:
    pairs = comparison_pairs([comparison(("one two three ", " four"))])
    assert log_length_ratio(pairs, "words").item() == pytest.approx(math.log(3))
    assert log_length_ratio(pairs, "characters").item() == pytest.approx(math.log(13 / 4))
    with pytest.raises(UsageError, match="no length unit 'tokens'"):
        log_length_ratio(pairs, "tokens")
    assert log_length_ratio(comparison_pairs([comparison(("", "a b"))])).item() == pytest.approx(
        math.log(0.25)
    )


def test_one_order_turns_choice_and_names() -> None:
    both = comparison_pairs([comparison((" b", " a")), comparison((" a", " b"), choice=1)])
    turned = in_one_order(both)
    assert turned["first_text"].tolist() == [" a", " a"]
    assert turned["preferred"].tolist() == [0.0, 0.0]
    assert turned["first"].tolist() == ["reference", "sup4_6b_t0.7"]
    assert pair_key(both).nunique() == 1
    assert in_one_order(turned).equals(turned)


def test_samples_against_their_references() -> None:
    samples = pd.DataFrame({"id": ["q", "p"], "text": ["mine q", "mine p"]}, index=[7, 3])
    posts = pd.DataFrame({"id": ["p", "q"], "summary": ["ref p", "ref q"]}).set_index("id")
    pairs = reference_pairs(samples, posts, pd.Series([1.0, 0.25]), pd.Series(["x", "y"]))
    assert pairs["second_text"].tolist() == ["ref q", "ref p"]
    assert pairs["first"].tolist() == ["x", "y"] and pairs["preferred"].tolist() == [1.0, 0.25]


def test_no_comparisons_is_an_error() -> None:
    with pytest.raises(UsageError):
        comparison_pairs([])
