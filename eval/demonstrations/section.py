"""Supervised policies on fewer demonstrations: would more of them reach what human feedback reaches?"""

from __future__ import annotations

from typing import Any

import pandas as pd

from eval.common.rows import FurtherResult, bars, further_table, intervals, listed, runs_by_name, settings_of
from eval.common.runs import StudyRun, StudyRuns
from eval.common.study import Picture, Section, StudyResults, Table, once, without
from eval.common.tables import COLUMNS, group_columns, named
from eval.demonstrations.figure import DEMONSTRATIONS, preference_by_demonstrations
from eval.demonstrations.measure import PPO, gain_by_doubling, gap_to_ppo
from eval.preference.measure import UNIT, PreferenceScorer, preferred
from eval.preference.section import preference_table, scorers

POSTS = "sft.jsonl"
"""The demonstrations of a data run, a post a line."""
OTHER = "its settings differ from the main policy's in more than the number of posts"
UNKNOWN = f"the number of its posts is not known: its data run left no {POSTS}"

Policy = tuple[str, str]
"""A supervised policy's size and variant, "" for the main one."""


def demonstrations(runs: StudyRuns) -> tuple[dict[Policy, int], dict[Policy, str]]:
    """How many posts each supervised policy was trained on, and why others are left out.

    A variant counts if it differs from the main policy of its size in `limit` alone, in every cell.
    """
    by_name = runs_by_name(runs)
    trained = runs.finished("sft")
    main = {(run.size, run.cell): _other_settings(run) for run in trained if run.variant == ""}
    amounts: dict[Policy, int] = {}
    left: dict[Policy, str] = {}
    for run in trained:
        policy = run.size, run.variant
        amount = settings_of(run).get("limit") or _posts(by_name.get(run.parents.get("data", "")))
        if main.get((run.size, run.cell)) != _other_settings(run):
            left[policy] = OTHER
        elif amount is None:
            left[policy] = UNKNOWN
        else:
            amounts[policy] = min(amount, amounts.get(policy, amount))
    return {policy: amount for policy, amount in amounts.items() if policy not in left}, left


def _other_settings(run: StudyRun) -> dict[str, Any]:
    return {name: value for name, value in settings_of(run).items() if name != "limit"}


def _posts(data: StudyRun | None) -> int | None:
    """The posts of a data run; None where it left no file of them."""
    path = None if data is None else data.folder / POSTS
    if path is None or not path.is_file():
        return None
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())


@once
def demonstrations_table(study: StudyResults) -> pd.DataFrame:
    """Preference of every supervised policy by its number of demonstrations, and of PPO.

    Rows of `eval.preference.section.preference_table` at the lowest temperature, of the sizes at which
    there are several amounts.

    Returns:
        Result columns and ``demonstrations`` (missing: PPO), ordered by scorer, size and demonstrations.
    """
    amounts, _ = demonstrations(study.runs)
    several = {size for size, _ in amounts if len({n for (one, _), n in amounts.items() if one == size}) > 1}
    table = preference_table(study)
    table = table[table["size"].isin(several) & ~(table["top_p"] < 1)]
    table = table[(table["method"] == "sft") | ((table["method"] == PPO) & (table["variant"] == ""))]
    table = table[table["temperature"] == table["temperature"].min()]
    keys = zip(table["method"], table["size"], table["variant"], strict=True)
    known = [amounts.get((size, variant)) if method == "sft" else None for method, size, variant in keys]
    table = table.assign(**{DEMONSTRATIONS: pd.Series(known, index=table.index, dtype=float)})
    table = table[table[DEMONSTRATIONS].notna() | (table["method"] == PPO)]
    order = {scorer.name: place for place, scorer in enumerate(scorers(study))}
    by = ["_scorer", "params", DEMONSTRATIONS]
    table = table.assign(_scorer=table["scorer"].map(order)).sort_values(by, kind="stable", ignore_index=True)
    ordered: pd.DataFrame = table[[*COLUMNS, DEMONSTRATIONS]]
    return ordered


@once
def demonstrations_gap_table(study: StudyResults) -> pd.DataFrame:
    """PPO's lead over each supervised policy of its size on the same posts, and the gain by a doubling.

    Measures ``gap_to_ppo`` (PPO minus the policy) and ``gain_by_doubling`` (of the size, all amounts), by
    each scorer's main measure.

    Returns:
        Result columns and ``demonstrations`` (missing: the gain).
    """
    rows: list[FurtherResult] = []
    for scorer in scorers(study):
        table = demonstrations_table(study)
        table = table[(table["scorer"] == scorer.name) & (table["measure"] == scorer.main_measure)]
        for size, part in table.groupby("size", sort=False):
            rows += _of_size(study, scorer, str(size), part)
    return further_table(rows, DEMONSTRATIONS)


def _of_size(
    study: StudyResults, scorer: PreferenceScorer, size: str, part: pd.DataFrame
) -> list[FurtherResult]:
    values, runs = _values_by_post(study, scorer, size, float(part["temperature"].iloc[0]))
    supervised = part[part["method"] == "sft"]
    amounts = dict(zip(supervised["variant"], supervised[DEMONSTRATIONS].astype(int), strict=True))
    names = {"method": "sft", "size": size, "params": part["params"].iloc[0], "scorer": scorer.name}
    rows: list[FurtherResult] = []
    for variant, amount in amounts.items() if PPO in values else ():
        if (gap := gap_to_ppo(values, _column(variant), study.draws)) is not None:
            of_both = runs[PPO] | runs[_column(variant)]
            result = named("gap_to_ppo", UNIT, gap, of_both, variant=variant, **names)
            rows.append((result, {DEMONSTRATIONS: amount}))
    columns = {_column(variant): amount for variant, amount in amounts.items()}
    if (gain := gain_by_doubling(values, columns, study.draws)) is not None:
        every = set[str]().union(*(runs[column] for column in columns))
        rows.append((named("gain_by_doubling", f"{UNIT}, a doubling", gain, every, **names), {}))
    return rows


def _column(variant: str) -> str:
    return f"sft {variant}"


def _values_by_post(
    study: StudyResults, scorer: PreferenceScorer, size: str, temperature: float
) -> tuple[pd.DataFrame, dict[str, set[str]]]:
    """``cell``, ``id`` and a column a policy of a size: PPO's, and the supervised ones'; and their runs."""
    assert study.samples is not None
    samples = group_columns(study.samples)
    samples = samples[(samples["size"] == size) & (samples["temperature"] == temperature)]
    main = (samples["method"] == PPO) & (samples["variant"] == "")
    samples = samples[~(samples["top_p"] < 1) & (main | (samples["method"] == "sft"))]
    policies = ("sft " + samples["variant"]).where(samples["method"] == "sft", PPO)
    samples = samples.assign(policy=policies, value=preferred(samples, scorer))
    means = samples.groupby(["cell", "id", "policy"], observed=True)["value"].mean().unstack("policy")
    return means.reset_index(), {str(name): set(part["run"]) for name, part in samples.groupby("policy")}


def demonstrations_section(study: StudyResults) -> Section:
    """Preference against the number of demonstrations, with PPO of each size beside it."""
    section = Section(
        "demonstrations",
        "More demonstrations, or feedback",
        "How often supervised policies that were trained on fewer posts are preferred to the reference, and "
        "how often PPO is. A smaller part of the posts lies within a larger one, and all policies of a size "
        "start from the same pretrained one. Each passes over its own posts as often as the others, so fewer "
        "posts are fewer updates as well.",
    )
    table = demonstrations_table(study)
    if table.empty:
        return without(section)
    for scorer in scorers(study):
        rows = table[table["scorer"] == scorer.name]
        drawn = rows[(rows["measure"] == scorer.main_measure) & rows["params"].notna()]
        if (drawn["method"] == "sft").any():
            picture = preference_by_demonstrations(drawn, title=f"Demonstrations, by {scorer.label}")
            caption = (
                f"{scorer.main_measure.replace('_', ' ').capitalize()} by {scorer.label} against the posts "
                f"that SFT trains on, at T = {drawn['temperature'].iloc[0]:g}. The last point of a line is "
                "the study's supervised policy. Dashed: PPO of the same size, its interval at the right; "
                f"{bars(drawn)}."
            )
            section.pictures.append(Picture(f"demonstrations_{scorer.file}", picture, caption))
        shown = _listed(rows, "method", "size", "variant", DEMONSTRATIONS, "measure", "cells")
        caption = f"By {scorer.label}; {intervals(rows)}. Without a number of demonstrations: PPO."
        section.tables.append(Table(f"demonstrations_{scorer.file}", rows, caption, shown))
    _add_gaps(study, section)
    _, left = demonstrations(study.runs)
    section.missing.extend(
        f"Left out: {' '.join(filter(None, ('sft', *policy)))}: {why}." for policy, why in left.items()
    )
    return section


def _add_gaps(study: StudyResults, section: Section) -> None:
    gaps = demonstrations_gap_table(study)
    if gaps.empty:
        return
    caption = (
        "gap_to_ppo: PPO's preference minus the supervised policy's on the same posts. gain_by_doubling: "
        "least squares of the preference on the log2 of the demonstrations. The gap at the most "
        "demonstrations divided by the gain says how many more doublings would close it, if the line went on "
        f"straight; a line that bends needs more. Brackets: {intervals(gaps)}."
    )
    shown = _listed(gaps, "scorer", "size", "variant", DEMONSTRATIONS, "measure", "cells")
    section.tables.append(Table("demonstrations_gap", gaps, caption, shown))


def _listed(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """`eval.common.rows.listed` with whole demonstrations."""
    known = table[DEMONSTRATIONS]
    return listed(
        table.assign(**{DEMONSTRATIONS: known.map("{:,.0f}".format).where(known.notna())}), *columns
    )
