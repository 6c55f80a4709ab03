"""Elo ratings of all policies from the labelled comparisons."""

from __future__ import annotations

import pandas as pd

from eval.agreement.section import labelled_pairs
from eval.common.numeric import numeric_failures_told
from eval.common.pairs import REFERENCE
from eval.common.rows import bars
from eval.common.study import Picture, Section, StudyResults, Table, once, policy_names, without
from eval.elo.figure import elo_dots
from eval.elo.measure import elo
from tldr.errors import NonFiniteError, UsageError

COLUMNS = [
    *("policy", "value", "low", "high", "se", "n", "wins", "unit", "runs"),
    *("cells", "cell_sd", "cell_values"),
]
BASE_RATING = 1000.0


@once
def _ratings(study: StudyResults) -> tuple[pd.DataFrame, str]:
    """The table, and why it is empty."""
    pairs = labelled_pairs(study, "valid2.jsonl")
    empty = pd.DataFrame(columns=COLUMNS)
    if pairs.empty:
        return empty, ""
    between = pairs[pairs["first"] != pairs["second"]]
    if between.empty:
        return empty, "No comparison is between two policies."
    names = pd.concat([between["first"], between["second"]])
    base = REFERENCE if (names == REFERENCE).any() else str(names.mode()[0])
    try:
        with numeric_failures_told():
            table = elo(between, base=base, base_rating=BASE_RATING)
    except (UsageError, NonFiniteError) as error:
        return empty, f"No finite ratings: {error.what}."
    runs = " ".join(sorted(set(between["run"])))
    table = table.rename(columns={"elo": "value", "pairs": "n"}).assign(unit="Elo points", runs=runs)
    return table[COLUMNS], ""


def elo_table(study: StudyResults) -> pd.DataFrame:
    """Elo of every policy from the held-out labels, best first (`COLUMNS`); ``n`` pairs, ``wins`` a share.

    The reference (or, without it, the policy most often compared) is set to `BASE_RATING`, so it has
    no interval. Empty where nothing was labelled or no finite ratings exist.
    """
    return _ratings(study)[0]


def elo_section(study: StudyResults) -> Section:
    """Elo ratings of all policies, or why there are none."""
    section = Section(
        "elo",
        "Elo ratings",
        "All policies on one scale, from the held-out labelled comparisons of different policies "
        "(Bradley-Terry): 400 points are odds of ten to one. The reference is set to 1000.",
    )
    table = elo_table(study)
    if table.empty:
        problem = _ratings(study)[1]
        return without(section, problem) if problem else without(section)
    methods = {policy: policy_names(study, policy)["method"] for policy in table["policy"]}
    caption = (
        f"Elo from labelled comparisons, fitted in each cell; {bars(table)}. The intervals are of the "
        "difference to the reference."
    )
    section.pictures.append(Picture("elo", elo_dots(table, methods), caption))
    section.tables.append(
        Table(
            "elo",
            table,
            "Elo, pairs each policy took part in, and share won.",
            table.drop(columns=["unit", "cell_sd", "cell_values"]).round(3),
        )
    )
    return section
