"""Published numbers beside the study's own: compared only where data and model are of the same kind."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from eval.claims.contrast import Missing
from eval.claims.counterparts import TABLES
from eval.claims.evidence import Evidence, Selector
from eval.claims.schema import NumberRule, published_numbers
from eval.claims.verdicts import ClaimRow
from eval.common.study import StudyResults
from eval.common.tables import human_count

FACTOR = 1.25
"""Sizes, amounts of labels and KL within this factor of the paper's count as the paper's."""
NEAR = frozenset(
    {"params", "rankings", "kl", "episodes", "chooser_params", "chooser_rankings", "policy_params"}
)
SYNTHETIC = "this study's posts and labelers are synthetic, and its models are far smaller than the paper's"


def number_rows(rule: NumberRule, evidence: Evidence) -> list[ClaimRow]:
    """A verdict for every number of a rule.

    Reproduced: the distance to the published value is within this study's 95 % half interval and the
    published value's own 1.96 standard errors, added in quadrature, and what its reading may be off by.
    """
    rows = []
    for key, reason, number in published_numbers(rule, evidence.study.paper):
        if reason is not None:
            continue
        x = str(number.x)
        # Several figures share numbers in the text; the item keeps their ids distinct.
        item = f" {number.item}" if len(rule.items) > 1 else ""
        named = {
            "id": f"{rule.id}{item} {key}",
            "claim": rule.text.format(x=_plain(x), series=str(number.series).replace("_", " ")),
            "kind": "number",
            "paper": f"{number.value:g}",
            "where": rule.where,
            "tag": number.tag,
            "source": number.source,
        }
        try:
            ours = _ours(rule, x, str(number.series), evidence.study)
        except Missing as missing:
            rows.append(ClaimRow(**named, verdict="not run here", note=str(missing)))
            continue
        rows.append(_compared(named, number, ours, rule))
    return rows


def _compared(named: dict[str, Any], number: Any, ours: Any, rule: NumberRule) -> ClaimRow:
    paper, value = float(number.value), float(ours.value)
    half = (ours.high - value) if paper > value else (value - ours.low)
    own = 0.0 if pd.isna(number.se) else 1.96 * float(number.se)
    allowed = math.hypot(0.0 if pd.isna(half) else half, own) + rule.error + rule.share * abs(paper)
    return ClaimRow(
        **named,
        verdict="reproduced" if abs(paper - value) <= allowed else "not reproduced",
        note=f"{abs(paper - value):.3g} apart, {allowed:.3g} allowed",
        ours=value,
        low=float(ours.low),
        high=float(ours.high),
        unit=str(ours.unit),
        n=int(ours.n),
        cells=int(ours.cells),
        cell_sd=None if pd.isna(getattr(ours, "cell_sd", None)) else float(ours.cell_sd),
        runs=tuple(str(ours.runs).split()),
    )


def _ours(rule: NumberRule, x: str, series: str, study: StudyResults) -> Any:
    """The one row of the study's results that a published number corresponds to.

    Raises:
        Missing: a synthetic study, no such result, or none of the paper's size.
    """
    if is_synthetic(study):
        raise Missing(SYNTHETIC)
    table = TABLES[rule.table](study)
    if table.empty:
        raise Missing(f"no {rule.table}")
    wanted: Selector = {**rule.among, **rule.series[series]}
    if rule.measure:
        wanted["measure"] = rule.measure
    if isinstance(rule.x, dict):
        wanted |= rule.x[x]
    elif rule.x is not None:
        wanted[rule.x] = float(x) if rule.x in NEAR else _number(x)
    for name, value in sorted(wanted.items(), key=lambda pair: pair[1] in ("lowest", "highest")):
        if name not in table:
            raise Missing(f"no {rule.table} with {name}")
        table = _matching(table, name, value)
        if table.empty:
            shown = f"{human_count(float(value))} within a quarter" if name in NEAR else value
            raise Missing(f"no result with {name} {shown}")
    return next(table.itertuples())


def _matching(table: pd.DataFrame, name: str, value: Any) -> pd.DataFrame:
    column = table[name]
    if value in ("lowest", "highest"):
        numbers = pd.to_numeric(column)
        fits = numbers == (numbers.min() if value == "lowest" else numbers.max())
    elif name in NEAR:
        numbers, near = pd.to_numeric(column), float(value)
        fits = (numbers <= near * FACTOR) & (numbers >= near / FACTOR)
    else:
        fits = column == value
    matching: pd.DataFrame = table[fits]
    return matching


def is_synthetic(study: StudyResults) -> bool:
    """Whether the samples carry a planted truth, or the data run says that its posts are made up."""
    data = [run.json("manifest.json") or {} for run in study.runs.finished("data")]
    return study.planted or any(manifest.get("synthetic") for manifest in data)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _plain(x: str) -> str:
    number = _number(x)
    return human_count(number) if isinstance(number, float) and number >= 1e6 else x
