"""Reward models on held-out pairs: the paper's Fig. 6, breakdowns, calibration and length bias."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from eval.common.paper import load_paper
from eval.common.rows import FurtherResult, bars, crossed, further_table, intervals, listed, row_estimate
from eval.common.runs import StudyRun, StudyRuns
from eval.common.stats import (
    Estimate,
    bootstrap_means,
    cells_of,
    cellwise,
    over_cells,
    table_over_cells,
    wilson,
)
from eval.common.study import Picture, Section, StudyResults, Table, once, results_table, without
from eval.common.tables import MeasuredResult, named, result_table
from eval.reward.figure import calibration_curves, reward_accuracy
from eval.reward.measure import accuracy, calibration, calibration_estimates, hits, length_bias
from eval.reward.scored_pairs import (
    LABELS_FILE,
    RewardModel,
    model_pairs,
    reward_models,
    reward_runs,
    scorer_name,
)
from eval.reward_floor.section import floor_section_tables
from tldr.errors import RecordError

SHARE = "share of labelled pairs"
BINS = 10
FURTHER = re.compile(r"rm\d+(-lr[\d.e+-]+)?|lr[\d.e+-]+")
"""Variants that are the main reward model trained with another seed or at another learning rate."""

Evaluated = tuple[StudyRun, dict[str, Any]]
"""A reward run and what its ``evaluation.json`` says."""


@once
def reward_accuracy_table(study: StudyResults) -> pd.DataFrame:
    """Accuracy of every reward model on valid1 (selection) and valid2 (reporting): Fig. 6.

    valid2 comes from the ``pairs`` runs where they hold the model's scores; else from ``evaluation.json``.
    Within a single cell the interval is over posts, or Wilson's over pairs.

    Returns:
        Result columns and ``rankings``, the labels trained on (None: not known).

    Raises:
        RecordError: an ``evaluation.json`` without its number of pairs.
    """
    models = reward_models(study.runs)
    paired = {model.scorer: pairs for model, pairs in model_pairs(study.runs, LABELS_FILE)}
    rows: list[FurtherResult] = []
    for result in accuracy_results(evaluated_rewards(study.runs)):
        model = models[result.scorer]
        if result.measure == "valid2_accuracy" and model.scorer in paired:
            pairs = paired.pop(model.scorer)
            estimate = row_estimate(accuracy(pairs, by=()).iloc[0])
            result = named("valid2_accuracy", SHARE, estimate, _sources(pairs), **_names(model))
        rows.append((result, {"rankings": model.rankings}))
    return further_table(rows, "rankings")


def _names(model: RewardModel) -> dict[str, Any]:
    names = {"size": model.size, "params": model.params, "variant": model.variant, "scorer": model.scorer}
    return {"method": "reward", **names}


def _sources(pairs: pd.DataFrame) -> set[str]:
    return {name for joined in pairs["run"].unique() for name in joined.split()}


def evaluated_rewards(runs: StudyRuns) -> list[Evaluated]:
    """The finished reward runs that were evaluated."""
    found = [(run, run.json("evaluation.json")) for run in reward_runs(runs)]
    return [(run, values) for run, values in found if values is not None]


def accuracy_results(evaluated: list[Evaluated]) -> list[MeasuredResult]:
    """Accuracy of every size and variant on valid1 and valid2, over cells; Wilson's interval within one."""
    results = []
    for measure in ("valid1_accuracy", "valid2_accuracy"):
        groups: dict[tuple[str, str, float | None], list[Evaluated]] = {}
        for run, values in evaluated:
            if values.get(measure) is not None:
                groups.setdefault((run.size, run.variant, run.params), []).append((run, values))
        for (size, variant, params), members in groups.items():
            judged = [_pairs(run, values, measure.split("_")[0]) for run, values in members]
            right = [values[measure] * pairs for (_, values), pairs in zip(members, judged, strict=True)]
            of_cell = pd.DataFrame({"cell": [run.cell for run, _ in members], "right": right, "n": judged})
            sums = of_cell.groupby("cell").sum()  # the folds of a cell judge pairs of their own
            estimates = {
                str(cell): wilson(float(sums["right"][cell]), int(sums["n"][cell])) for cell in sums.index
            }
            estimate = over_cells(estimates)
            names = _names(RewardModel(scorer_name(size, variant), size, variant, params))
            result = named(measure, SHARE, estimate, [run.run for run, _ in members], **names)
            results.append(replace(result, posts=None))
    return results


def _pairs(run: StudyRun, values: dict[str, Any], split: str) -> int:
    number = values.get(f"{split}_pairs", values.get("n"))
    if not isinstance(number, int) or number < 1:
        raise RecordError(
            f"{split}_pairs is {number!r}: not a number of pairs", where=f"{run.run}/evaluation.json"
        )
    return number


def _hits_by_pair(scored: list[tuple[RewardModel, pd.DataFrame]]) -> pd.DataFrame:
    """Columns ``cell``, ``id`` and one of hits a scorer; only pairs that all these reward models scored."""
    index = ["cell", "pair", "id"]
    columns = {model.scorer: hits(pairs).set_index(index)["hit"] for model, pairs in scored}
    return pd.DataFrame(columns).dropna().reset_index()


@once
def reward_difference_table(study: StudyResults) -> pd.DataFrame:
    """Accuracy of one reward model minus another's on the same pairs.

    Every two sizes of the main models (``kind`` "size"), and every two amounts of the last round's labels at
    a size ("data"); the larger minus the smaller.

    Returns:
        Result columns and ``kind``, ``against`` (the smaller one's scorer).
    """
    scored = model_pairs(study.runs, LABELS_FILE)
    rows: list[FurtherResult] = []
    for (one, one_pairs), (two, two_pairs) in combinations(scored, 2):
        by_size = one.variant == two.variant == "" and one.params != two.params
        by_data = one.size == two.size != "" and None not in (one.rankings, two.rankings)
        by_data &= not (one.earlier_round or two.earlier_round)
        if not by_size and not (by_data and one.rankings != two.rankings):
            continue
        key = (lambda m: m.params or 0) if by_size else (lambda m: m.rankings or 0)
        small, large = sorted((one, two), key=key)
        table = _hits_by_pair([(one, one_pairs), (two, two_pairs)])
        if table.empty:
            continue
        table["difference"] = table[large.scorer] - table[small.scorer]
        estimate = cellwise(table, _mean_difference, study.draws)["difference"]
        runs = _sources(one_pairs) | _sources(two_pairs)
        result = named("accuracy_difference", SHARE, estimate, runs, **_names(large))
        rows.append((result, {"kind": "size" if by_size else "data", "against": small.scorer}))
    return further_table(rows, "kind", "against")


def _mean_difference(part: pd.DataFrame, draws: int) -> dict[str, Estimate]:
    return {"difference": bootstrap_means(part[["difference"]], part["id"], draws=draws)[0]}


@once
def reward_slope_table(study: StudyResults) -> pd.DataFrame:
    """Accuracy gained by a doubling of the model and of the labels, as the paper's text to Fig. 6 has it.

    Least squares of accuracy on log2 parameters and log2 labels, over all reward models but those of an
    earlier round of labels. Each slope is a weighted sum of accuracies on the same pairs, so within a cell
    its interval is that of a mean over pairs, clustered by post. What does not vary has no slope.
    """
    models = model_pairs(study.runs, LABELS_FILE)
    scored = [(m, p) for m, p in models if m.params and m.rankings and not m.earlier_round]
    if not scored:
        return result_table([])
    table = _hits_by_pair(scored)
    logs = {
        "accuracy_gain_model_doubling": np.log2([float(m.params or 1) for m, _ in scored]),
        "accuracy_gain_data_doubling": np.log2([float(m.rankings or 1) for m, _ in scored]),
    }
    varied = {name: values for name, values in logs.items() if np.ptp(values) > 0}
    design = np.column_stack([np.ones(len(scored)), *varied.values()])
    if not varied or table.empty or np.linalg.matrix_rank(design) < design.shape[1]:
        return result_table([])
    scorers = [model.scorer for model, _ in scored]

    def slopes(part: pd.DataFrame, draws: int) -> dict[str, Estimate]:
        weighted = part[scorers].to_numpy() @ np.linalg.pinv(design).T[:, 1:]
        return dict(zip(varied, bootstrap_means(weighted, part["id"], draws=draws), strict=True))

    runs = set.union(*(_sources(pairs) for _, pairs in scored))
    return result_table(
        named(name, f"{SHARE} a doubling", estimate, runs, method="reward")
        for name, estimate in cellwise(table, slopes, study.draws).items()
    )


@once
def reward_breakdown_table(study: StudyResults) -> pd.DataFrame:
    """valid2 accuracy within each group of every breakdown (`eval.reward.measure.BREAKDOWNS`).

    Returns:
        Result columns and ``breakdown``, ``group`` (text).
    """
    rows: list[FurtherResult] = []
    for model, pairs in model_pairs(study.runs, LABELS_FILE):
        table = accuracy(pairs)
        for _, row in table[table["breakdown"] != "confidence"].iterrows():
            result = named("valid2_accuracy", SHARE, row_estimate(row), _sources(pairs), **_names(model))
            group = row["group"]
            shown = f"{group:g}" if isinstance(group, float) else str(group)
            rows.append((result, {"breakdown": row["breakdown"], "group": shown}))
    return further_table(rows, "breakdown", "group")


@once
def calibration_table(study: StudyResults) -> pd.DataFrame:
    """Claimed against observed probability, one row per bin of equal size.

    Returns:
        Result columns (``observed``: share of the bin's pairs judged right) and ``claimed``, the
        bin's mean sigma(|score difference|).
    """
    rows: list[FurtherResult] = []
    for model, pairs in _calibrated(study):
        for _, row in table_over_cells(pairs, _curve, ["bin"], averaged=["claimed"]).iterrows():
            result = named("observed", SHARE, row_estimate(row), _sources(pairs), **_names(model))
            rows.append((result, {"claimed": row["claimed"]}))
    return further_table(rows, "claimed")


def _curve(pairs: pd.DataFrame, _: int) -> pd.DataFrame:
    curve = calibration(pairs, bins=BINS).curve.rename(columns={"observed": "value"})
    return curve.assign(bin=range(len(curve)))


@once
def calibration_summary_table(study: StudyResults) -> pd.DataFrame:
    """``ece``, ``overconfidence``, ``log_loss`` and ``brier`` of every reward model on valid2."""
    units = {"ece": "probability", "overconfidence": "probability", "log_loss": "nats", "brier": "0-1"}
    return result_table(
        named(measure, units[measure], estimate, _sources(pairs), **_names(model))
        for model, pairs in _calibrated(study)
        for measure, estimate in cellwise(pairs, _calibration_of, study.draws).items()
    )


def _calibration_of(pairs: pd.DataFrame, draws: int) -> dict[str, Estimate]:
    return calibration_estimates(pairs, bins=BINS, draws=draws)


def _calibrated(study: StudyResults) -> list[tuple[RewardModel, pd.DataFrame]]:
    """The reward models with enough pairs in every cell."""
    return [
        (model, pairs)
        for model, pairs in model_pairs(study.runs, LABELS_FILE)
        if all(len(part) >= BINS for part in cells_of(pairs).values())
    ]


@once
def length_bias_table(study: StudyResults) -> pd.DataFrame:
    """How often labelers and model prefer the longer summary (words), and the model's accuracy for each.

    Over the valid2 pairs whose lengths differ: ``labelers_longer``, ``model_longer``,
    ``accuracy_longer_chosen``, ``accuracy_shorter_chosen``.
    """
    results = []
    for model, pairs in model_pairs(study.runs, LABELS_FILE):
        for measure, estimate in cellwise(pairs, _bias).items():
            results.append(named(measure, SHARE, estimate, _sources(pairs), **_names(model)))
    return result_table(results)


def _bias(pairs: pd.DataFrame, _: int) -> dict[str, Estimate]:
    bias = length_bias(pairs)
    estimates: dict[str, Estimate | None] = {
        "labelers_longer": bias.labelers_longer,
        "model_longer": bias.model_longer,
        "accuracy_longer_chosen": bias.accuracy_longer_chosen,
        "accuracy_shorter_chosen": bias.accuracy_shorter_chosen,
    }
    return {measure: estimate for measure, estimate in estimates.items() if estimate is not None}


def reward_section(study: StudyResults) -> Section:
    """Accuracy against size and data, breakdowns, calibration and length bias of the reward models."""
    section = Section(
        "reward",
        "Reward models",
        "Share of held-out labelled pairs on which the reward model prefers what the labeler preferred. "
        "valid1 was used to select models, valid2 to report.",
    )
    table = reward_accuracy_table(study)
    if table.empty:
        return without(section)
    caption = (
        f"Accuracy on held-out pairs; {intervals(table)}, or Wilson's over pairs where no pairs run holds "
        "the model's scores. Variants were trained with other settings, such as on fewer labels."
    )
    shown = listed(table, "scorer", "size", "params", "rankings", "measure", "cells")
    section.tables.append(Table("reward_accuracy", table, caption, shown))
    drawn = _drawn(study, table).dropna(subset=["params"])
    if len(drawn):
        section.pictures.append(_accuracy_picture(study, drawn))
    section.tables.extend(floor_section_tables(study))
    section.tables.extend(_comparison_tables(study))
    section.pictures.extend(_calibration_pictures(study))
    return section


def _drawn(study: StudyResults, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the figure: of several reward models a size, the ones that scored the samples."""
    evaluated = evaluated_rewards(study.runs)
    used = {run.parents.get("reward") for run in study.runs.finished("score")}
    main = [(run, values) for run, values in evaluated if run.variant == "" or FURTHER.fullmatch(run.variant)]
    taken = [(replace(run, variant=""), values) for run, values in main if run.run in used]
    further = table["variant"].map(lambda name: FURTHER.fullmatch(name) is not None)
    if not further.any() or not taken:
        return table[~further] if (~further).any() else table
    chosen = result_table(accuracy_results(taken))
    rankings = table.drop_duplicates("size").set_index("size")["rankings"]
    chosen = chosen.assign(rankings=chosen["size"].map(rankings))
    rest: pd.DataFrame = pd.concat([chosen, table[(table["variant"] != "") & ~further]])
    return rest


def _accuracy_picture(study: StudyResults, rows: pd.DataFrame) -> Picture:
    agreements = [values.get("label_agreement") for _, values in evaluated_rewards(study.runs)]
    known = [value for value in agreements if value is not None]
    file = study.paper / "fig6.csv"
    paper = load_paper("fig6", folder=study.paper) if file.is_file() else None
    picture = reward_accuracy(rows, sum(known) / len(known) if known else None, paper)
    caption = (
        "Left: the reward models that scored the samples and those trained on fewer labels; "
        f"{bars(rows)}. Dashed: how often two labelers agree, which is about the highest accuracy "
        "that a model can show. Right: the paper's values, digitised, without intervals."
    )
    return Picture("reward_accuracy", picture, caption)


def _comparison_tables(study: StudyResults) -> list[Table]:
    """The tables that need scores from the pairs runs; none without such runs."""
    slopes, differences = reward_slope_table(study), reward_difference_table(study)
    breakdown, bias = reward_breakdown_table(study), length_bias_table(study)
    tables = []
    if len(slopes):
        caption = "Accuracy gained by doubling. The paper's text: 0.018 for the model, 0.011 for the labels."
        tables.append(results_table("reward_slopes", slopes, caption))
    if len(differences):
        caption = f"Accuracy minus another reward model's on the same pairs; {intervals(differences)}."
        shown = listed(differences, "scorer", "against", "kind", "cells")
        tables.append(Table("reward_differences", differences, caption, shown))
    if len(breakdown):
        caption = (
            "Where the main reward models are right on valid2; strength is |confidence - 5|, 4 = sure. All "
            "models, with their runs, are in the CSV file."
        )
        main = breakdown[breakdown["variant"] == ""]
        shown = crossed(main, ["breakdown", "group", "n", "posts"], "scorer")
        tables.append(Table("reward_breakdown", breakdown, caption, shown))
    if len(bias):
        caption = (
            "Length bias, over pairs whose lengths in words differ: how often labelers and model prefer the "
            "longer, and the model's accuracy where the labeler chose the longer or the shorter."
        )
        tables.append(Table("reward_length_bias", bias, caption, listed(bias, "scorer", "measure")))
    return tables


def _calibration_pictures(study: StudyResults) -> list[Picture]:
    curves, summary = calibration_table(study), calibration_summary_table(study)
    main = curves[curves["variant"] == ""]
    if main.empty:
        return []
    errors = summary[summary["measure"] == "ece"].set_index("scorer")
    panels, notes = {}, {}
    for scorer, rows in main.groupby("scorer", sort=False):
        title, error = f"Reward model {rows['size'].iloc[0]}", errors.loc[scorer]
        panels[title] = rows
        notes[title] = f"ECE {error['value']:.3f}\n[{error['low']:.3f}, {error['high']:.3f}]"
    caption = (
        "Pairs of valid2 in ten bins of equal size by the probability that the reward model claims. Below "
        "the dashed line it is overconfident. ECE: mean distance of claimed and observed, with its 95 % "
        f"interval; {bars(main)}."
    )
    return [Picture("reward_calibration", calibration_curves(panels, notes), caption)]
