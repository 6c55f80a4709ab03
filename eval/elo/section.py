"""Elo ratings of all policies from the labelled comparisons."""

from __future__ import annotations

import pandas as pd

from eval.agreement.section import labelled_pairs
from eval.common.numeric import numeric_failures_told
from eval.common.pairs import REFERENCE
from eval.common.rows import bars
from eval.common.study import Picture, Section, StudyResults, Table, once, policy_names, without
from eval.common.tables import group_columns
from eval.elo.figure import elo_dots
from eval.elo.measure import elo
from eval.preference.measure import PreferenceScorer, preferred
from eval.preference.section import scorers
from tldr.errors import NonFiniteError, UsageError

COLUMNS = [
    *("policy", "value", "low", "high", "se", "n", "wins", "unit", "runs"),
    *("cells", "cell_sd", "cell_values"),
]
BASE_RATING = 1000.0


def _ratings_of(between: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The table of pairs of two policies, and why it is empty."""
    empty = pd.DataFrame(columns=COLUMNS)
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
    return _ratings_of(between)


def elo_table(study: StudyResults) -> pd.DataFrame:
    """Elo of every policy from the held-out labels, best first (`COLUMNS`); ``n`` pairs, ``wins`` a share.

    The reference (or, without it, the policy most often compared) is set to `BASE_RATING`, so it has
    no interval. Empty where nothing was labelled or no finite ratings exist.
    """
    return _ratings(study)[0]


def judged_pairs(study: StudyResults, scorer: PreferenceScorer) -> pd.DataFrame:
    """A judge's verdicts as pairs of a policy and the reference (`eval.common.pairs`); ``preferred`` is the
    share of the verdicts on the sample that are for it."""
    assert study.samples is not None
    samples = group_columns(study.samples.dropna(subset=f"score.{scorer.name}"))
    parts = (samples[name].astype(str) for name in ("method", "size", "variant"))
    names = ["-".join(filter(None, part)) for part in zip(*parts, strict=True)]
    ways = zip(names, samples["temperature"], samples["top_p"].fillna(1.0), strict=True)
    return pd.DataFrame(
        {
            "first": [f"{name}-t{t:g}" + (f"-p{p:g}" if p < 1 else "") for name, t, p in ways],
            "second": REFERENCE,
            "preferred": preferred(samples, scorer).to_numpy(),
            "id": samples["id"].to_numpy(),
            "cell": samples["cell"].to_numpy(),
            "run": samples["run"].to_numpy(),
        }
    )


def elo_section(study: StudyResults) -> Section:
    """Elo ratings of all policies, or why there are none."""
    section = Section(
        "elo",
        "Elo ratings",
        "All policies on one scale, from the held-out labelled comparisons of different policies "
        "(Bradley-Terry), and from the verdicts of people and judges: 400 points are odds of ten to one. The "
        "reference is set to 1000.",
    )
    table, problem = _ratings(study)
    judges = [scorer for scorer in scorers(study) if scorer.verdicts]
    if table.empty and not judges:
        return without(section, problem) if problem else without(section)
    if table.empty:
        section.missing.append(problem or "No labelled comparisons: the ratings below are by judges alone.")
    else:
        _add(study, section, table, "elo", "from labelled comparisons")
    for judge in judges:
        table, problem = _ratings_of(judged_pairs(study, judge))
        if table.empty:
            section.missing.append(f"By {judge.label}: {problem}")
        else:
            _add(study, section, table, f"elo_{judge.file}", f"by {judge.label}, against references alone")
    return section


def _add(study: StudyResults, section: Section, table: pd.DataFrame, name: str, source: str) -> None:
    methods = {policy: policy_names(study, policy)["method"] for policy in table["policy"]}
    caption = (
        f"Elo {source}, fitted in each cell; {bars(table)}. The intervals are of the difference to the "
        "reference."
    )
    picture = elo_dots(table, methods, title=f"Elo ratings {source}")
    section.pictures.append(Picture(name, picture, caption))
    caption = f"Elo {source}, pairs each policy took part in, and share won."
    shown = table.drop(columns=["unit", "cell_sd", "cell_values"]).round(3)
    section.tables.append(Table(name, table, caption, shown))
