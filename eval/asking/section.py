"""Reward models on labels that were asked for in different ways (variants of kind ``labels``)."""

from __future__ import annotations

import re

import pandas as pd

from eval.asking.figure import WAYS, accuracy_by_labels
from eval.asking.measure import RANDOM, gain_by_doubling, gain_over_random
from eval.common.rows import FurtherResult, bars, further_table, intervals, listed, runs_by_name, settings_of
from eval.common.runs import StudyRun
from eval.common.stats import over_cells, wilson
from eval.common.study import Picture, Section, StudyResults, Table, once, without
from eval.common.tables import named
from eval.reward.scored_pairs import HELD_OUT
from eval.reward.section import SHARE

MEASURE = "valid2_accuracy"
COLUMNS = ["cell", "size", "params", "way", "labels", "value", "n", "run"]


@once
def accuracies(study: StudyResults) -> pd.DataFrame:
    """Every reward model of a variant of kind ``labels``: `COLUMNS`, a row a run."""
    by_name = runs_by_name(study.runs)
    rows = []
    for run in study.runs.finished("reward"):
        values = run.json("evaluation.json")
        if HELD_OUT not in run.parents or values is None or MEASURE not in values:
            continue
        labels = settings_of(by_name[_last_labels(run)])
        rows.append(
            {
                "cell": run.cell,
                "size": run.size,
                "params": run.params,
                "way": labels.get("choose_by") or RANDOM,
                "labels": int(labels["pairs"]),
                "value": float(values[MEASURE]),
                "n": int(values["valid2_pairs"]),
                "run": run.run,
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def _last_labels(run: StudyRun) -> str:
    """The last of the labels that a reward model learned from: ``labels``, ``labels-2``, ..."""
    names = [name for name in run.parents if re.fullmatch(r"labels(-\d+)?", name)]
    return run.parents[max(names, key=lambda name: int(name.partition("-")[2] or 1))]


@once
def asking_table(study: StudyResults) -> pd.DataFrame:
    """Accuracy on the study's own valid2 labels by way of asking and number of labels.

    Returns:
        Result columns, ``way`` and ``labels`` (of the last round).
    """
    rows: list[FurtherResult] = []
    found = accuracies(study)
    order = found["way"].map(list(WAYS).index)
    found = found.assign(_way=order).sort_values(["params", "_way", "labels"], kind="stable")
    for (size, way, labels), part in found.groupby(["size", "way", "labels"], sort=False):
        shares = zip(part["cell"], part["value"], part["n"], strict=True)
        estimate = over_cells({cell: wilson(value * n, n) for cell, value, n in shares})
        names = {"method": "reward", "size": size, "params": part["params"].iloc[0]}
        result = named(MEASURE, SHARE, estimate, part["run"], **names)
        rows.append((result, {"way": way, "labels": labels}))
    return further_table(rows, "way", "labels")


@once
def asking_gain_table(study: StudyResults) -> pd.DataFrame:
    """What chosen questions gain over as many random ones, and what a doubling of the random ones gains.

    Returns:
        Result columns and ``way``.
    """
    rows: list[FurtherResult] = []
    found = accuracies(study)
    for size, part in found.groupby("size", sort=False):
        names = {"method": "reward", "size": size, "params": part["params"].iloc[0]}
        for way in [name for name in WAYS if name != RANDOM and name in set(part["way"])]:
            if (gain := gain_over_random(part, way)) is not None:
                of_both = part[part["way"].isin([way, RANDOM])]["run"]
                rows.append((named("gain_over_random", SHARE, gain, of_both, **names), {"way": way}))
        if (gain := gain_by_doubling(part)) is not None:
            own = part[part["way"] == RANDOM]["run"]
            rows.append((named("gain_by_doubling", SHARE, gain, own, **names), {"way": RANDOM}))
    return further_table(rows, "way")


def asking_section(study: StudyResults) -> Section:
    """Accuracy against labels, by the way in which the questions were chosen."""
    section = Section(
        "asking",
        "Which questions to ask",
        "Reward models on labels of the last round whose questions were taken as they came or chosen by "
        "the reward models of the round before (`labels.choose_by`), beside the earlier rounds' labels. "
        "All report on the same held-out labels, whose questions nobody chose.",
    )
    table = asking_table(study)
    if table.empty:
        return without(section)
    for size, rows in table.groupby("size", sort=False):
        picture = accuracy_by_labels(rows, title=f"Which questions to ask, size {size}")
        caption = f"Accuracy on valid2 against the labels asked for; {bars(rows, 'pairs')}."
        section.pictures.append(Picture(f"asking_{size}", picture, caption))
    caption = f"Accuracy on valid2. Brackets: {intervals(table, 'pairs')}."
    section.tables.append(
        Table("asking", table, caption, listed(table, "size", "way", "labels", "measure", "cells"))
    )
    gains = asking_gain_table(study)
    caption = (
        "gain_over_random: accuracy on chosen questions minus that on as many random ones, mean over the "
        "amounts. gain_by_doubling: least squares of the accuracy on the log2 of the random labels. The "
        "first divided by the second says how many doublings choosing is worth. Brackets: "
        f"{intervals(gains, 'pairs')}; none in one draw."
    )
    if not gains.empty:
        section.tables.append(
            Table("asking_gain", gains, caption, listed(gains, "size", "way", "measure", "cells"))
        )
    return section
