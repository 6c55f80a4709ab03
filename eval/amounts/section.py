"""Supervised policies on fewer demonstrations, and PPO on fewer prompts: how much would more data gain?"""

from __future__ import annotations

import pandas as pd

from eval.amounts.data import DEMONSTRATIONS, PROMPTS, DataKind, amounts_of
from eval.amounts.figure import preference_by_amount
from eval.amounts.table import amount_gap_table, amount_table
from eval.common.rows import bars, intervals, listed
from eval.common.study import Picture, Section, StudyResults, Table, once, without
from eval.preference.section import scorers


@once
def demonstrations_table(study: StudyResults) -> pd.DataFrame:
    """`amount_table` of SFT's posts, beside PPO."""
    return amount_table(DEMONSTRATIONS, study)


@once
def demonstrations_gap_table(study: StudyResults) -> pd.DataFrame:
    """`amount_gap_table` of SFT's posts."""
    return amount_gap_table(DEMONSTRATIONS, study)


@once
def prompts_table(study: StudyResults) -> pd.DataFrame:
    """`amount_table` of the posts that PPO asks about, beside the supervised policy that it starts from."""
    return amount_table(PROMPTS, study)


@once
def prompts_gap_table(study: StudyResults) -> pd.DataFrame:
    """`amount_gap_table` of the posts that PPO asks about."""
    return amount_gap_table(PROMPTS, study)


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
    level = "Dashed: PPO of the same size, its interval at the right"
    gap = (
        "gap_to_ppo: PPO's preference minus the supervised policy's on the same posts. gain_by_doubling: "
        "least squares of the preference on the log2 of the demonstrations. The gap at the most "
        "demonstrations divided by the gain says how many more doublings would close it, if the line went on "
        "straight; a line that bends needs more."
    )
    tables = demonstrations_table(study), demonstrations_gap_table(study)
    return _filled(section, study, DEMONSTRATIONS, tables, level, gap)


def prompts_section(study: StudyResults) -> Section:
    """Preference of PPO against the number of its prompts, with SFT of each size beside it."""
    section = Section(
        "prompts",
        "More prompts for PPO",
        "How often PPO policies that asked about fewer posts are preferred to the reference, and how often "
        "the supervised policy is that they start from. A smaller part of the posts lies within a larger "
        "one. All have as many episodes and updates: with fewer posts, each comes back more often.",
    )
    level = "Dashed: the supervised policy of the same size, its interval at the left"
    gap = (
        "lead_over_sft: PPO's preference minus the supervised policy's on the same posts. gain_by_doubling: "
        "least squares of the preference on the log2 of the prompts."
    )
    tables = prompts_table(study), prompts_gap_table(study)
    return _filled(section, study, PROMPTS, tables, level, gap)


def _filled(
    section: Section,
    study: StudyResults,
    kind: DataKind,
    tables: tuple[pd.DataFrame, pd.DataFrame],
    level: str,
    gap: str,
) -> Section:
    """The section with a figure and a table by every scorer, and the table of gaps."""
    table, gaps = tables
    amounts, left = amounts_of(kind, study.runs)
    if table.empty:
        limited = sorted({variant for _, variant in amounts if variant})
        return without(section, *([_not_sampled(limited)] if limited else []))
    for scorer in scorers(study):
        rows = table[table["scorer"] == scorer.name]
        if rows.empty:
            section.missing.append(
                f"By {scorer.label}: no verdicts on policies of several numbers of {kind.name} (a study's "
                "judge sees those of variants with further: true)."
            )
            continue
        drawn = rows[(rows["measure"] == scorer.main_measure) & rows["params"].notna()]
        if (drawn["method"] == kind.stage).any():
            picture = preference_by_amount(drawn, kind, title=f"{kind.name.capitalize()}, by {scorer.label}")
            caption = (
                f"{scorer.main_measure.replace('_', ' ').capitalize()} by {scorer.label} against "
                f"{_against(kind)}, at T = {drawn['temperature'].iloc[0]:g}. The last point of a line is "
                f"the study's own {kind.own}. {level}; {bars(drawn)}."
            )
            section.pictures.append(Picture(f"{kind.name}_{scorer.file}", picture, caption))
        shown = _listed(kind, rows, "method", "size", "variant", kind.name, "measure", "cells")
        caption = (
            f"By {scorer.label}; {intervals(rows)}. Without a number of {kind.name}: {kind.beside.upper()}."
        )
        section.tables.append(Table(f"{kind.name}_{scorer.file}", rows, caption, shown))
    if len(gaps):
        shown = _listed(kind, gaps, "scorer", "size", "variant", kind.name, "measure", "cells")
        caption = f"{gap} Brackets: {intervals(gaps)}."
        section.tables.append(Table(f"{kind.name}_gap", gaps, caption, shown))
    for (size, variant), why in sorted(left.items()):
        section.missing.append(f"Left out: {' '.join(filter(None, (kind.stage, size, variant)))}: {why}.")
    return section


def _against(kind: DataKind) -> str:
    return "the posts that SFT trains on" if kind is DEMONSTRATIONS else "the posts that PPO asks about"


def _not_sampled(variants: list[str]) -> str:
    """Why policies on fewer posts give no figure: they lack samples beside the main ones."""
    names = ", ".join(variants)
    return (
        f"{names}: no samples at the lowest temperature of the main policies, or no scores with references "
        "(see the variants' temperatures)."
    )


def _listed(kind: DataKind, table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """`eval.common.rows.listed` with whole amounts."""
    known = table[kind.name]
    return listed(table.assign(**{kind.name: known.map("{:,.0f}".format).where(known.notna())}), *columns)
