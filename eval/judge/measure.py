"""Win shares from judgements, and measures of how far the judge can be trusted.

A pair counts only with both of its orders. A verdict in one order mixes quality and position, and
cannot separate the two (a GPT judge's win share for one policy was 0.72 where it was shown first and
0.56 where second). The two verdicts are averaged, so a pair whose orders
contradict each other is a tie, and is counted as inconsistent. A pair with an invalid answer has no
preference; how many answers are invalid is a measure of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pandas as pd

from eval.common.pairs import COLUMNS, REFERENCE, judgement_pairs
from eval.common.stats import share
from eval.common.tables import MeasuredResult, named
from tldr.errors import UsageError
from tldr.records import Judgement

_PAIR = ["judge", "axis", *COLUMNS[:-1], "runs"]
"""Columns that are equal in the two orders of one pair."""


def answers(judgements: Iterable[Judgement]) -> pd.DataFrame:
    """One row an answer, as `judgement_pairs`, after a check that all pairs have both orders.

    Returns:
        Further columns: ``turned`` (the second summary was shown as A) and ``for_shown`` (1 where the
        summary shown as A was preferred, 0 where B, 0.5 a tie, missing: invalid). Unknown texts are "".

    Raises:
        UsageError: no judgements, a pair judged in one order only, or twice in one order.
    """
    rows = list(judgements)
    table = judgement_pairs(rows)
    # The order decides, not the policies' names: both summaries may come from one policy.
    table["turned"] = [row.order[0] == 1 for row in rows]
    table["for_shown"] = table["preferred"].where(~table["turned"], 1 - table["preferred"])
    table[["first_text", "second_text"]] = table[["first_text", "second_text"]].fillna("")
    _check_orders(table)
    return table


def _check_orders(table: pd.DataFrame) -> None:
    orders = table.groupby(_PAIR)["turned"].agg(["size", "nunique"])
    for wrong, what, remedy in (
        (orders["size"] > orders["nunique"], "twice in one order", "keep one judgement per pair and order"),
        (orders["nunique"] < 2, "in one order only", "judge every pair in both orders"),
    ):
        if wrong.any():
            example = dict(zip(_PAIR, orders.index[wrong.to_numpy()][0], strict=True))
            raise UsageError(
                f"{int(wrong.sum())} of {len(orders)} pairs were judged {what}, such as {example['first']} "
                f"against {example['second']} on post {example['id']} by {example['judge']}",
                remedy=remedy,
            )


def pair_of(row: Judgement) -> tuple[object, ...]:
    """What is the same in a judge's verdicts on both orders of a pair."""
    return row.judge, row.axis, row.id, *row.policies, *(row.texts or ()), *row.runs


def complete(judgements: Iterable[Judgement]) -> list[Judgement]:
    """The judgements of those pairs that were judged in both orders."""
    groups: dict[tuple[object, ...], dict[int, Judgement]] = {}
    for row in judgements:
        groups.setdefault(pair_of(row), {})[row.order[0]] = row
    return [row for orders in groups.values() if len(orders) == 2 for row in orders.values()]


def combined(table: pd.DataFrame) -> pd.DataFrame:
    """`answers` as one row per pair (`eval.common.pairs`), both orders averaged.

    Further columns: ``judge``, ``axis``, ``runs``, ``inconsistent`` (1.0 where the orders contradict
    each other, else 0.0). ``preferred`` is NaN where an answer is invalid.
    """
    of_pair = table.groupby(_PAIR, sort=False)["preferred"].agg(["mean", "count", "max", "min"])
    both = of_pair["mean"].where(of_pair["count"] == 2).to_frame("preferred")
    both["inconsistent"] = (of_pair["max"] - of_pair["min"] == 1).astype(float)
    return both.reset_index()


def judge_results(judgements: Iterable[Judgement]) -> list[MeasuredResult]:
    """Every judge's view of every policy, on every axis.

    Measures (followed by ``_<axis>`` on any axis but overall), of the first policy against the second:

    * ``preference``: share of pairs in which it is preferred, contradictions and ties as halves;
    * ``inconsistent``: share of pairs whose two orders contradict each other;
    * ``position_bias``: share of answers that prefer the summary shown first, ties as halves: 0.5
      without bias, whichever summary is better, as both orders count alike;
    * ``ties``: share of valid answers; ``invalid``: share of all answers.

    The first three leave out pairs with an invalid answer.

    Raises:
        UsageError: as `answers`, or judgements that name no runs.
    """
    table = answers(judgements)
    results: list[MeasuredResult] = []
    for key, group in table.groupby(["judge", "axis", "first", "second"], sort=False):
        judge, axis, first, second = map(str, key)
        for name, unit, values in _outcomes(group, second):
            estimate = share(values, group.loc[values.index, "id"])
            measure = name if axis == "overall" else f"{name}_{axis}"
            runs = " ".join(group["runs"]).split()
            results.append(named(measure, unit, estimate, runs, scorer=judge, policy=first))
    return results


def _outcomes(group: pd.DataFrame, second: str) -> Iterator[tuple[str, str, pd.Series[float]]]:
    """Name, unit and 0..1 outcomes of every measure of one policy that has any; indexed as `group`."""
    shown = group["for_shown"]
    pairs = combined(group).set_index(group.drop_duplicates(_PAIR).index)
    usable = pairs["preferred"].notna()
    whole = group.groupby(_PAIR)["preferred"].transform("count") == 2
    other = "the reference" if second == REFERENCE else second
    for name, unit, values in (
        ("preference", f"share preferred to {other}", pairs.loc[usable, "preferred"]),
        ("inconsistent", "share of pairs", pairs.loc[usable, "inconsistent"]),
        ("position_bias", "share of answers for the summary shown first", shown[whole]),
        ("ties", "share of valid answers", (shown.dropna() == 0.5).astype(float)),
        ("invalid", "share of answers", shown.isna().astype(float)),
    ):
        if len(values):
            yield name, unit, values
