from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from eval.common.pairs import comparison_pairs
from eval.common.stats import share, wilson
from eval.reward.measure import accuracy, calibration, hits, length_bias
from tldr.errors import NonFiniteError, UsageError
from tldr.records import Comparison, read_records


def pairs(margins: list[float], preferred: list[float], **columns: object) -> pd.DataFrame:
    table = pd.DataFrame({"first_score": margins, "second_score": 0.0, "preferred": preferred})
    base = {"id": [f"p{number}" for number in range(len(table))], "first": "a", "second": "b"}
    texts = {"first_text": "one two three", "second_text": "one"}
    return table.assign(**(base | texts | columns))


def test_hits_by_hand() -> None:
    table = hits(pairs([2, -1, 0, 1, -3], [1, 1, 0, 0.5, 0]))
    assert table["hit"].tolist() == [1, 0, 0.5, 1], "equal scores are half right; indifferent labels left out"
    assert set(table["policies"]) == {"a / b"}


def test_accuracy_by_group() -> None:
    table = pairs(
        [1, 1, -1, -1],
        [1, 0, 0, 0],
        batch=["x", "x", "y", "y"],
        strength=[1, 4, 4, np.nan],
        first=["a", "b", "a", "b"],
        second=["b", "a", "b", "a"],
        subreddit=None,
    )
    result = accuracy(table).set_index(["breakdown", "group"])["value"]
    assert result["all", ""] == 0.75
    assert result["batch", "x"] == 0.5 and result["batch", "y"] == 1.0
    assert result["strength", 4.0] == 0.5 and ("strength", 1.0) in result
    assert result["policies", "a / b"] == 0.75, "the pair of policies has no order"
    assert "subreddit" not in result.index.get_level_values(0)


def test_intervals_do_not_vanish_where_all_are_right() -> None:
    row = accuracy(pairs([1.0] * 8, [1.0] * 8)).iloc[0]
    assert row["value"] == 1 and row["low"] == pytest.approx(wilson(8, 8).low)


def test_share_is_wilson_widened_for_posts() -> None:
    outcomes = np.array([1.0, 0, 1, 1, 0, 1, 1, 0])
    alone = share(outcomes)
    assert (alone.low, alone.high) == pytest.approx((wilson(5, 8).low, wilson(5, 8).high), abs=0.02)
    copied = share(np.repeat(outcomes, 5), np.repeat(np.arange(8), 5))
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high), abs=0.02)
    assert copied.n == 40 and copied.clusters == 8
    with pytest.raises(UsageError, match="between 0 and 1"):
        share([2.0])


def test_share_covers_a_clustered_truth() -> None:
    inside = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        chance = draw.beta(4, 1.5, size=60)  # mean 0.7273 a post
        codes = np.repeat(np.arange(60), 5)
        estimate = share(draw.random(300) < chance[codes], codes)
        inside += estimate.low <= 4 / 5.5 <= estimate.high
    assert 0.90 <= inside / 200 <= 0.99


def planted(count: int, scale: float) -> pd.DataFrame:
    """Labels drawn with P = sigma(margin); the model claims sigma(scale * margin)."""
    draw = np.random.default_rng(4)
    margin = draw.normal(scale=1.5, size=count)
    return pairs(list(scale * margin), list((draw.random(count) < expit(margin)).astype(float)))


def test_a_calibrated_model_is_found_calibrated() -> None:
    good, bold = calibration(planted(4000, 1.0)), calibration(planted(4000, 3.0))
    assert good.ece < 0.025 and bold.ece > 0.1
    assert good.log_loss < bold.log_loss and good.brier < bold.brier
    assert (
        (good.curve["low"] <= good.curve["claimed"]) & (good.curve["claimed"] <= good.curve["high"])
    ).sum() >= 8
    assert good.curve["n"].tolist() == [400] * 10
    assert (bold.curve["observed"] < bold.curve["claimed"]).tail(5).all()


def test_calibration_by_hand() -> None:
    result = calibration(pairs([0.0, 0.0, np.log(3), -np.log(3)], [1, 0, 1, 1]), bins=2)
    assert result.curve["claimed"].tolist() == pytest.approx([0.5, 0.75])
    assert result.curve["observed"].tolist() == [0.5, 0.5]
    assert result.ece == pytest.approx(0.125)
    assert result.log_loss == pytest.approx((2 * np.log(2) - np.log(0.75) - np.log(0.25)) / 4)
    assert result.brier == pytest.approx((0.25 + 0.25 + 0.0625 + 0.5625) / 4)
    with pytest.raises(UsageError, match="do not fill"):
        calibration(pairs([1.0], [1.0]))


def test_length_bias_by_hand() -> None:
    table = pairs([1, 1, 1, -1], [1, 0, 0, 0], second_text=["x", "x", "x", "one two three"])
    bias = length_bias(table)
    assert bias.labelers_longer.n == 3 and bias.labelers_longer.value == pytest.approx(1 / 3)
    assert bias.model_longer.value == 1.0
    assert bias.accuracy_longer_chosen and bias.accuracy_longer_chosen.value == 1.0
    assert bias.accuracy_shorter_chosen and bias.accuracy_shorter_chosen.value == 0.0
    with pytest.raises(UsageError, match="differ in length"):
        length_bias(pairs([1.0], [1.0], second_text="a b c"))


def test_bad_scores_are_refused() -> None:
    with pytest.raises(NonFiniteError, match="1 of 2 pairs"):
        accuracy(pairs([1.0, np.nan], [1, 1]))
    with pytest.raises(UsageError, match="no pair with a choice"):
        accuracy(pairs([1.0], [0.5]))


def test_length_as_a_reward_model_on_real_labels(shared_data: Path) -> None:
    table = comparison_pairs(read_records(shared_data / "comparisons" / "batch13.json", Comparison))
    scored = table.assign(
        first_score=table["first_text"].str.len(), second_score=table["second_text"].str.len()
    )
    result = accuracy(scored).set_index(["breakdown", "group"])
    assert 0.5 < result.loc[("all", ""), "value"] < 0.72
    assert set(result.loc["split"].index) == {"valid1", "valid2"}
    assert set(result.loc["strength"].index) == {1, 2, 3, 4} and result.loc["strength", "n"].sum() == 850
    assert result.loc[("all", ""), "posts"] == 715
    bias = length_bias(scored, unit="characters")
    assert bias.model_longer.value == 1 and bias.correlation > 0.9
