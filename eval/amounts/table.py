"""Preference by the amount of data, and what a doubling gains, as result tables."""

from __future__ import annotations

import pandas as pd

from eval.amounts.data import PPO, DataKind, amounts_of
from eval.amounts.measure import gain_by_doubling, lead
from eval.common.rows import FurtherResult, further_table
from eval.common.study import StudyResults
from eval.common.tables import COLUMNS, group_columns, named
from eval.preference.measure import UNIT, PreferenceScorer, preferred
from eval.preference.section import preference_table, scorers


def amount_table(kind: DataKind, study: StudyResults) -> pd.DataFrame:
    """Preference of every policy by its amount of data, and of the method beside.

    Rows of `eval.preference.section.preference_table` at the lowest temperature, of the sizes and scorers
    with several amounts: a judge need not have seen the policies of variants.

    Returns:
        Result columns and one named like the kind (missing: the method beside), ordered by scorer, size and
        amount.
    """
    amounts, _ = amounts_of(kind, study.runs)
    table = preference_table(study)
    table = table[~(table["top_p"] < 1)]
    table = table[
        table["method"].eq(kind.stage) | (table["method"].eq(kind.beside) & table["variant"].eq(""))
    ]
    keys = zip(table["method"], table["size"], table["variant"], strict=True)
    known = [amounts.get((size, variant)) if method == kind.stage else None for method, size, variant in keys]
    table = table.assign(**{kind.name: pd.Series(known, index=table.index, dtype=float)})
    table = table[table[kind.name].notna() | (table["method"] == kind.beside)]
    table = table[table["temperature"] == table["temperature"].min()]
    several = table.groupby(["size", "scorer"], observed=True)[kind.name].transform("nunique") > 1
    table = table[several.astype(bool)]
    order = {scorer.name: place for place, scorer in enumerate(scorers(study))}
    by = ["_scorer", "params", kind.name]
    table = table.assign(_scorer=table["scorer"].map(order)).sort_values(by, kind="stable", ignore_index=True)
    ordered: pd.DataFrame = table[[*COLUMNS, kind.name]]
    return ordered


def amount_gap_table(kind: DataKind, study: StudyResults) -> pd.DataFrame:
    """PPO's lead over SFT of its size on the same posts at each amount, and the gain by a doubling.

    Measures ``gap_to_ppo`` (of demonstrations) or ``lead_over_sft`` (of prompts), PPO minus the supervised
    policy, and ``gain_by_doubling`` (of the size, all amounts), by each scorer's main measure.

    Returns:
        Result columns and one named like the kind (missing: the gain).
    """
    rows: list[FurtherResult] = []
    table = amount_table(kind, study)
    for scorer in scorers(study):
        own = table[(table["scorer"] == scorer.name) & (table["measure"] == scorer.main_measure)]
        for size, part in own.groupby("size", sort=False):
            rows += _of_size(kind, study, scorer, str(size), part)
    return further_table(rows, kind.name)


def _of_size(
    kind: DataKind, study: StudyResults, scorer: PreferenceScorer, size: str, part: pd.DataFrame
) -> list[FurtherResult]:
    values, runs = _values_by_post(kind, study, scorer, size, float(part["temperature"].iloc[0]))
    own = part[part["method"] == kind.stage]
    amounts = dict(zip(own["variant"], own[kind.name].astype(int), strict=True))
    names = {"method": kind.stage, "size": size, "params": part["params"].iloc[0], "scorer": scorer.name}
    beside = _column(kind.beside, "")
    rows: list[FurtherResult] = []
    for variant, amount in amounts.items() if beside in values else ():
        column = _column(kind.stage, variant)
        sides = (beside, column) if kind.beside == PPO else (column, beside)
        if (found := lead(values, *sides, study.draws)) is not None:
            of_both = runs[beside] | runs[column]
            rows.append(
                (named(kind.lead, UNIT, found, of_both, variant=variant, **names), {kind.name: amount})
            )
    columns = {_column(kind.stage, variant): amount for variant, amount in amounts.items()}
    if (gain := gain_by_doubling(values, columns, study.draws)) is not None:
        every = set[str]().union(*(runs[column] for column in columns))
        rows.append((named("gain_by_doubling", f"{UNIT}, a doubling", gain, every, **names), {}))
    return rows


def _column(method: str, variant: str) -> str:
    return f"{method} {variant}"


def _values_by_post(
    kind: DataKind, study: StudyResults, scorer: PreferenceScorer, size: str, temperature: float
) -> tuple[pd.DataFrame, dict[str, set[str]]]:
    """``cell``, ``id`` and a column a policy of a size: those of the kind, and the one beside; and their
    runs."""
    assert study.samples is not None
    samples = group_columns(study.samples)
    samples = samples[(samples["size"] == size) & (samples["temperature"] == temperature)]
    beside = (samples["method"] == kind.beside) & (samples["variant"] == "")
    samples = samples[~(samples["top_p"] < 1) & (beside | (samples["method"] == kind.stage))]
    policies = samples["method"].astype(str) + " " + samples["variant"]
    samples = samples.assign(policy=policies, value=preferred(samples, scorer))
    means = samples.groupby(["cell", "id", "policy"], observed=True)["value"].mean().unstack("policy")
    return means.reset_index(), {str(name): set(part["run"]) for name, part in samples.groupby("policy")}
