"""Epochs of SFT among which a reward model has chosen (the stage `epoch`)."""

from __future__ import annotations

from typing import Any

import pandas as pd

from eval.common.io import sample_rows
from eval.common.runs import StudyRun
from eval.common.stats import Estimate, mean
from eval.common.study import StudyResults, once

SAMPLES_FILE = "epoch_samples.jsonl"
"""A run's summaries of valid1, every epoch's; they are apart from those of the reporting posts."""
SCORES = {"reward": "score.rm", "rouge": "score.rouge", "gold": "score.gold"}
"""Measure of the table -> column of the samples."""


@once
def epochs_table(study: StudyResults) -> pd.DataFrame:
    """Every epoch that was sampled: its loss on valid1, the means of its summaries' scores, and the choice.

    The intervals are over posts, of one run each. A choice is made within a run, from one draw of summaries.

    Returns:
        ``size``, ``cell``, ``variant``, ``epoch``, ``valid1 loss``, ``reward``, ``reward low``,
        ``reward high``, ``rouge`` and ``gold`` (with their bounds; in the toy world), ``posts``, ``chosen``.
    """
    rows = [row for run in study.runs.finished("epoch") for row in _of_run(run)]
    return pd.DataFrame(rows)


def _of_run(run: StudyRun) -> list[dict[str, Any]]:
    found = run.json("evaluation.json") or {}
    samples = sample_rows(run.folder / SAMPLES_FILE)
    rows = []
    for epoch in found["epochs"]:
        own = samples[samples["tag.epoch"] == epoch["epoch"]]
        row: dict[str, Any] = {"size": run.size, "cell": run.cell, "variant": run.variant}
        row |= {"epoch": epoch["epoch"], "valid1 loss": epoch["valid1_loss"]}
        for name, column in SCORES.items():
            if column in own:
                row |= _columns(name, mean(own[column], own["id"]))
        row |= {"posts": own["id"].nunique(), "chosen": "yes" if epoch["epoch"] == found["epoch"] else ""}
        rows.append(row)
    return rows


def _columns(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name} low": estimate.low, f"{name} high": estimate.high}
