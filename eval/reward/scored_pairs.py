"""Labelled pairs with every reward model's scores, as the ``pairs`` runs leave them, or, of reward
models that were each trained without one fold of the labels, as those leave them of their own fold."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from eval.common.pairs import comparison_pairs, scorers_of_pairs
from eval.common.rows import settings_of
from eval.common.runs import StudyRun, StudyRuns
from tldr.records import Comparison, read_records

LABELS_FILE = "valid2.jsonl"
HELD_OUT = "held_out"
"""The parent whose labels a reward model reports on instead of those that came with its own."""
PREDICTIONS = "predictions.jsonl"
"""A reward run's held-out comparisons with its scores, where it was trained without one fold."""


@dataclass(frozen=True)
class RewardModel:
    """A reward model of a study, the same one in every cell of the study.

    Attributes:
        scorer: what its scores are called, ``rm_<size>`` or ``rm_<size>_<variant>``.
        variant: "" is the main one. rankings: how many labels it was trained on, where known.
        runs: the reward runs meant.
        earlier_round: its labels are of rounds before the main model's last. They are fewer, and of other
            policies too, so it is no point of a sweep of the number of labels, whose subsets are nested.
    """

    scorer: str
    size: str = ""
    variant: str = ""
    params: float | None = None
    rankings: int | None = None
    runs: tuple[str, ...] = ()
    earlier_round: bool = False


def scorer_name(size: str, variant: str) -> str:
    """``rm_<size>[_<variant>]``."""
    return "_".join(filter(None, ("rm", size, variant)))


def main_scorer(runs: StudyRuns, run: StudyRun) -> str:
    """The name of the main reward model that a run reads as its ``reward``: that of the run's own size, or of
    the one size that the study's reward model has."""
    reward = next((one for one in runs.runs if one.run == run.parents.get("reward")), run)
    return scorer_name(reward.size, "")


def fold_of(run: StudyRun) -> int | None:
    """The fold that a reward run was trained without, and reports on; None: labels without folds."""
    fold: int | None = settings_of(run).get("fold")
    return fold


def reward_runs(runs: StudyRuns) -> list[StudyRun]:
    """The finished reward runs, without judges and without those on labels asked for in another way
    (`eval.asking`); those of folds together are one model, the main one."""
    judging = {run.parents.get("reward") for run in runs.runs if run.stage == "judge"}
    found = [run for run in runs.finished("reward") if run.run not in judging and HELD_OUT not in run.parents]
    return [run if fold_of(run) is None else replace(run, variant="") for run in found]


def reward_models(runs: StudyRuns) -> dict[str, RewardModel]:
    """The study's finished reward models by scorer name, smallest first, then most labels first."""
    found, groups = reward_runs(runs), dict[str, list[StudyRun]]()
    for run in found:
        groups.setdefault(scorer_name(run.size, run.variant), []).append(run)
    earlier = _runs_of_earlier_rounds(found, runs)
    models = [
        replace(_model(scorer, members), earlier_round=earlier.issuperset(one.run for one in members))
        for scorer, members in groups.items()
    ]
    return {
        model.scorer: model for model in sorted(models, key=lambda m: (m.params or 0, -(m.rankings or 0)))
    }


def _model(scorer: str, members: list[StudyRun]) -> RewardModel:
    evaluations = [run.json("evaluation.json") or {} for run in members]
    rankings = {values["train_rankings"] for values in evaluations if values.get("train_rankings")}
    first = members[0]
    return RewardModel(
        scorer=scorer,
        size=first.size,
        variant=first.variant,
        params=first.params,
        rankings=min(rankings) if rankings else None,
        runs=tuple(run.run for run in members),
    )


def _runs_of_earlier_rounds(models: list[StudyRun], runs: StudyRuns) -> set[str]:
    """The reward runs that read a part of the ``labels`` runs which the main ones of their cell read."""
    labels = {run.run for run in runs.runs if run.stage == "labels"}
    whole: dict[str, set[str]] = {}
    for run in models:
        if not run.variant:
            whole.setdefault(run.cell, set()).update(labels.intersection(run.parents.values()))
    return {
        run.run
        for run in models
        if set() < labels.intersection(run.parents.values()) < whole.get(run.cell, set())
    }


def scored_pairs(runs: StudyRuns, name: str) -> dict[str, pd.DataFrame]:
    """Every scorer's pairs from the file `name` of all ``pairs`` runs, and the held-out pairs of folds
    where `name` is `LABELS_FILE`.

    Returns:
        Scorer -> pairs (`eval.common.pairs.comparison_pairs`) with ``first_score``, ``second_score``,
        ``pair`` (the same number for the same pair under every scorer), ``cell`` and ``run``: what
        the numbers came from, the pairs run and the reward model it scored with. Scorers in the
        file's order.

    Raises:
        RecordError: a broken line.
    """
    parts: dict[str, list[pd.DataFrame]] = {}
    start = 0
    for run in reward_runs(runs) if name == LABELS_FILE else ():
        rows = read_records(run.folder / PREDICTIONS, Comparison) if fold_of(run) is not None else []
        if not rows:
            continue
        pairs = _of_run(run, rows, start)
        start += len(rows)
        own = pairs.assign(
            run=run.run,
            fold=fold_of(run),
            first_score=pairs["first_score.rm"],
            second_score=pairs["second_score.rm"],
        )
        parts.setdefault(scorer_name(run.size, ""), []).append(own)
    for run in runs.finished("pairs"):
        rows = read_records(run.folder / name, Comparison) if (run.folder / name).is_file() else []
        if not rows:
            continue
        pairs = _of_run(run, rows, start)
        start += len(rows)
        for scorer in scorers_of_pairs(pairs):
            model = run.parents.get(scorer.replace("rm_", "reward-", 1))
            sources = " ".join(filter(None, (run.run, model)))
            parts.setdefault(scorer, []).append(
                pairs.assign(
                    run=sources,
                    first_score=pairs[f"first_score.{scorer}"],
                    second_score=pairs[f"second_score.{scorer}"],
                )
            )
    return {scorer: pd.concat(tables, ignore_index=True) for scorer, tables in parts.items()}


def _of_run(run: StudyRun, rows: list[Comparison], start: int) -> pd.DataFrame:
    pairs = comparison_pairs(rows)
    numbers = np.arange(start, start + len(rows))
    return pairs.assign(id=run.post_ids(pairs["id"]), cell=run.cell, pair=numbers)


def model_pairs(runs: StudyRuns, name: str) -> list[tuple[RewardModel, pd.DataFrame]]:
    """`scored_pairs` of the reward models alone, in the order of `reward_models`.

    Of several reward models a size and seed, ``rm_<size>`` is the one that was chosen. A reward
    model that the study does not list keeps its scorer's name, and no size.
    """
    known = reward_models(runs)
    scored = {scorer: pairs for scorer, pairs in scored_pairs(runs, name).items() if scorer.startswith("rm_")}
    listed = [(model, scored[model.scorer]) for model in known.values() if model.scorer in scored]
    return listed + [(RewardModel(scorer), pairs) for scorer, pairs in scored.items() if scorer not in known]
