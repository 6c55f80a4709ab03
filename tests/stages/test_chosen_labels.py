"""Training labels of named batches, and selection on confident labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.stages import lab as laboratory
from tldr.errors import UsageError
from tldr.inputs.posts import load_comparisons
from tldr.records import Extra, Ranking, write_records
from tldr.stages.reward.chosen import confident, of_batches
from tldr.stages.reward.settings import RewardSettings


def ranking(batch: str = "batch3", confidence: int | None = None) -> Ranking:
    summaries = [{"text": text, "policy": "a"} for text in ("one", "two")]
    row = {"info": {"id": "p", "post": "A post."}, "summaries": summaries, "rank": [1, 2], "worker": "w"}
    return Ranking.model_validate(
        row | {"batch": batch, "split": "train", "extra": {"confidence": confidence}}
    )


def test_labels_of_some_batches_keep_their_order() -> None:
    rows = [ranking(batch) for batch in ("batch5", "batch3", "batch9", "batch5")]
    assert of_batches(rows, None) is rows
    assert [row.batch for row in of_batches(rows, ["batch3", "batch5"])] == ["batch5", "batch3", "batch5"]
    with pytest.raises(UsageError, match="of batch batch13") as caught:
        of_batches(rows, ["batch3", "batch13"])
    assert "batch3, batch5, batch9" in str(caught.value)


def test_trap_confidence_is_a_signed_slider() -> None:
    """1 is as certain as 9, and a label without a confidence is not a certain one."""
    rows = [ranking(confidence=value) for value in (1, 2, 4, 6, 8, 9, None)]
    assert confident(rows, None) is rows
    assert [row.extra.confidence for row in confident(rows, 3)] == [1, 2, 8, 9]
    assert [row.extra.confidence for row in confident(rows, 1)] == [1, 2, 4, 6, 8, 9]
    with pytest.raises(UsageError, match="no label of valid1 has a confidence"):
        confident(rows[2:4], 2)


def test_settings_that_choose_labels() -> None:
    assert RewardSettings().naming() == RewardSettings(batches=None, select_confidence=None).naming()
    assert "batches" not in RewardSettings().naming() and "batches" in RewardSettings(batches=["a"]).naming()
    refused: list[dict[str, object]] = [{"batches": []}, {"batches": ["a", "a"]}, {"select_confidence": 5}]
    for wrong in refused:
        with pytest.raises(ValidationError):
            RewardSettings.model_validate(wrong)


def test_a_reward_model_trains_and_selects_on_chosen_labels(lab: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    for name in ("train", "valid1", "valid2"):
        rows = load_comparisons(lab / "labels" / f"{name}.jsonl")
        marked = [
            row.model_copy(
                update={"batch": f"batch{number % 3}", "extra": Extra(confidence=(1, 4, 6, 9)[number % 4])}
            )
            for number, row in enumerate(rows)
        ]
        write_records(labels / f"{name}.jsonl", marked)
    settings = laboratory.changed("reward", {"batches": ["batch0", "batch2"], "select_confidence": 4})
    ctx = laboratory.context("reward", lab, tmp_path / "rm", settings=settings)
    laboratory.run(laboratory.rewired(ctx, labels=labels), "reward")
    evaluation = json.loads((tmp_path / "rm" / "evaluation.json").read_text())
    counts = {name: len(load_comparisons(labels / f"{name}.jsonl")) for name in ("train", "valid1", "valid2")}
    assert evaluation["train_rankings"] == -(-counts["train"] * 2 // 3)
    assert evaluation["valid1_pairs"] == counts["valid1"] // 2
    assert evaluation["valid2_pairs"] == counts["valid2"], "what is reported stays whole"
