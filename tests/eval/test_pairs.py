from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from eval.common.pairs import (
    comparison_pairs,
    in_one_order,
    judgement_pairs,
    load_comparisons,
    load_judgements,
    log_length_ratio,
    pair_key,
    read_judgements,
    reference_pairs,
    score_pairs,
    scorers_of_pairs,
)
from tldr.errors import RecordError, UsageError
from tldr.records import Comparison, Judgement, ReadReport, read_records, write_records


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


def scored(first: dict[str, float], second: dict[str, float]) -> Comparison:
    sides = [{"text": " b", "policy": "x", "scores": first}, {"text": " a", "policy": "y", "scores": second}]
    return comparison(summaries=sides)


def test_scores_of_the_summaries_become_columns_and_turn_with_them() -> None:
    pairs = comparison_pairs([scored({"rm_s": 1.0, "gold": 3.0}, {"rm_s": 2.0}), comparison((" a", " b"))])
    assert pairs["first_score.rm_s"].tolist()[0] == 1.0 and math.isnan(pairs.loc[1, "first_score.rm_s"])
    assert scorers_of_pairs(pairs) == ["rm_s"], "gold scored one side only"
    turned = in_one_order(pairs.drop(columns="first_score.gold"))
    assert turned.loc[0, ["first", "first_score.rm_s", "second_score.rm_s"]].tolist() == ["y", 2.0, 1.0]


def judgement(verdict: str, order: list[int], **more: object) -> Judgement:
    row = {"id": "p", "policies": ["ref", "ppo"], "order": order, "judge": "j", "verdict": verdict}
    return Judgement.model_validate(row | more)


def test_verdicts_speak_of_what_was_shown() -> None:
    rows = [judgement(verdict, order) for verdict in ("A", "tie", "invalid") for order in ([0, 1], [1, 0])]
    pairs = judgement_pairs([*rows, judgement("B", [1, 0], texts=["one", "two"], runs=["r1", "r2"])])
    assert pairs["preferred"].tolist()[:4] == [1.0, 0.0, 0.5, 0.5] and pairs["preferred"][4:6].isna().all()
    assert pairs["shown_first"].tolist()[:2] == ["reference", "ppo"]
    assert pairs.iloc[6][["first", "first_text", "preferred", "runs"]].tolist() == [
        "reference",
        "one",
        1.0,
        "r1 r2",
    ]
    assert pairs["first_text"][:6].isna().all()
    with pytest.raises(UsageError, match="no judgements"):
        judgement_pairs([])


def test_files_become_pairs(tmp_path: Path) -> None:
    file = write_records(tmp_path / "batch.jsonl", [comparison(), comparison(choice=1)])
    file.write_text(file.read_text() + "{broken\n")
    with pytest.raises(RecordError, match=r"batch\.jsonl:3"):
        load_comparisons(file)
    reports: list[ReadReport] = []
    assert len(load_comparisons(tmp_path, on_error="skip", reports=reports)) == 2
    assert [len(report.bad) for report in reports] == [1]
    verdicts = write_records(tmp_path / "by" / "judge.jsonl", [judgement("A", [0, 1])])
    assert load_judgements(verdicts)["preferred"].tolist() == [1.0]
    assert read_judgements(verdicts)[0].runs == ["judge"], "what names no run is filed under its file"
    with pytest.raises(UsageError, match="no such file"):
        load_comparisons(tmp_path / "absent.jsonl")


def test_policies_are_set_against_each_other_by_their_scores() -> None:
    table = pd.DataFrame(
        {
            "id": ["p", "p", "p", "q", "q"],
            "cell": "0",
            "score.rm": [1.0, 2.0, 1.5, 0.0, None],
            "score.rm_reference": [1.0, 1.0, 1.0, 4.0, 4.0],
        }
    )
    names = pd.Series(["a", "a", "b", "a", "b"])
    pairs = score_pairs(table, "rm", names).set_index(["id", "first", "second"])["preferred"]
    assert pairs.to_dict() == {
        ("p", "a", "b"): 0.5,  # one of a's two samples is better than b's
        ("p", "a", "reference"): 0.75,  # a tie and a win
        ("p", "b", "reference"): 1.0,
        ("q", "a", "reference"): 0.0,
    }
