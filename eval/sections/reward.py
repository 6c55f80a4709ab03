"""Reward models on held-out pairs: the paper's Fig. 6."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from eval.figures.reward import reward_accuracy
from eval.runs import Run, StudyRuns
from eval.sections.base import Picture, Section, Study, results_table, without
from eval.stats import wilson
from eval.tables import Result, result_table
from tldr.errors import RecordError

Evaluated = tuple[Run, dict[str, Any]]
"""A reward run and what its ``evaluation.json`` says."""


def reward_section(study: Study) -> Section:
    """Reward-model accuracy on held-out pairs against labeler agreement."""
    section = Section(
        "reward",
        "Reward models",
        "Share of held-out labelled pairs on which the reward model prefers what the labeler preferred. "
        "valid1 was used to select models, valid2 to report.",
    )
    evaluated = evaluated_rewards(study.runs)
    if not evaluated:
        return without(section)
    table = result_table(accuracy_results(evaluated))
    section.tables.append(
        results_table("reward_accuracy", table, "Accuracy on held-out pairs; Wilson 95 % intervals.")
    )
    agreements = [
        values["label_agreement"] for _, values in evaluated if values.get("label_agreement") is not None
    ]
    rows = result_table(accuracy_results(_in_use(study, evaluated))).dropna(subset=["params"])
    if len(rows):
        picture = reward_accuracy(rows, sum(agreements) / len(agreements) if agreements else None)
        caption = (
            "The reward models that scored the samples, seeds averaged; bars: Wilson 95 % intervals over "
            "pairs. Dashed: how often two labelers agree, about as well as a model can look."
        )
        section.pictures.append(Picture("reward_accuracy", picture, caption))
    return section


def evaluated_rewards(runs: StudyRuns) -> list[Evaluated]:
    """The finished reward runs that were evaluated."""
    found = [(run, run.json("evaluation.json")) for run in runs.finished("reward")]
    return [(run, values) for run, values in found if values is not None]


def _in_use(study: Study, evaluated: list[Evaluated]) -> list[Evaluated]:
    """Of several reward models a size, those that scored the samples; the main ones if none did."""
    used = {run.parents.get("reward") for run in study.runs.finished("score")}
    taken = [(replace(run, variant=""), values) for run, values in evaluated if run.run in used]
    return taken or [(run, values) for run, values in evaluated if run.variant == ""]


def accuracy_results(evaluated: list[Evaluated]) -> list[Result]:
    """Accuracy of every size and variant on valid1 and valid2, averaged over its seeds.

    The seeds judge the same pairs, so the interval is Wilson's at one seed's number of pairs.
    """
    results = []
    for measure in ("valid1_accuracy", "valid2_accuracy"):
        groups: dict[tuple[str, str, float | None], list[Evaluated]] = {}
        for run, values in evaluated:
            if values.get(measure) is not None:
                groups.setdefault((run.size, run.variant, run.params), []).append((run, values))
        for (size, variant, params), members in groups.items():
            shares = pd.Series([values[measure] for _, values in members])
            pairs = min(_pairs(run, values, measure.split("_")[0]) for run, values in members)
            estimate = wilson(float(shares.mean()) * pairs, pairs)
            results.append(
                Result(
                    measure=measure,
                    value=estimate.value,
                    low=estimate.low,
                    high=estimate.high,
                    se=estimate.se,
                    n=pairs,
                    posts=None,
                    unit="share of labelled pairs",
                    runs=tuple(run.run for run, _ in members),
                    method="reward",
                    size=size,
                    params=params,
                    variant=variant,
                    seeds=len(members),
                    seed_sd=float(shares.std(ddof=1)) if len(members) > 1 else None,
                )
            )
    return results


def _pairs(run: Run, values: dict[str, Any], split: str) -> int:
    number = values.get(f"{split}_pairs", values.get("n"))
    if not isinstance(number, int) or number < 1:
        raise RecordError(
            f"{split}_pairs is {number!r}: not a number of pairs", where=f"{run.run}/evaluation.json"
        )
    return number
