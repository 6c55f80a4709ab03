"""Result tables: every number with its interval, its unit and the runs it came from.

A `MeasuredResult` cannot be made without provenance. A table of them is written as CSV (one row a
result, full precision) and as Markdown and LaTeX (one row per policy, rounded).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from eval.common.cells import listed_values
from eval.common.stats import Estimate, bootstrap_means, cellwise, share
from tldr.errors import UsageError
from tldr.files import write_text

GROUP = ("policy", "method", "size", "params", "variant", "selected_by", "n", "temperature", "top_p", "cell")
"""The columns that tell sampled policies apart, with cells (`eval.common.cells`) apart."""

POOLED = tuple(name for name in GROUP if name not in ("policy", "cell"))
"""The same with all cells of a policy in one group."""

METHOD_ORDER = ("reference", "title", "lead-2", "lead-3", "pretrained", "sft", "best_of_n", "ppo")
"""Methods from weakest to strongest, as tables list them; others come first."""

PolicyNames = dict[str, Any]
"""A policy's names: the values of `GROUP` or `POOLED`."""

_PER_MEASURE = frozenset({"measure", "value", "low", "high", "se", "unit", "cell_sd", "cell_values"})

_TAGS = {
    "method": "method",
    "size": "size",
    "params": "params",
    "variant": "variant",
    "selected_by": "scorer",
}


@dataclass(frozen=True)
class MeasuredResult:
    """One number that may be shown.

    Attributes:
        measure: what was measured ("preference", "rouge1_f"); `scorer`: by whom, where it matters.
        value, low, high, se: estimate, interval, standard error, all in `unit`.
        n: observations; `posts`: independent posts among them, None where that is not known.
        runs: ids of the runs the number came from; never empty.
        params: parameters of the model; `best_of`: the N of best-of-N.
        cells: repetitions averaged over (`eval.common.cells`); `cell`: the one, where cells are apart.
            With several the interval is over cells (`eval.common.stats.over_cells`); with one, one draw,
            over posts.
        cell_sd: standard deviation between the cells' values (None with one cell).
        cell_values: those values, as `eval.common.cells.listed_values` writes them.

    Raises:
        UsageError: no runs, no observations, or bounds that do not hold the value.
    """

    measure: str
    value: float
    low: float
    high: float
    se: float
    n: int
    posts: int | None
    unit: str
    runs: tuple[str, ...]
    scorer: str = ""
    policy: str = ""
    method: str = ""
    size: str = ""
    params: float | None = None
    variant: str = ""
    selected_by: str = ""
    best_of: int = 1
    temperature: float | None = None
    top_p: float | None = None
    cell: str | None = None
    cells: int = 1
    cell_sd: float | None = None
    cell_values: str = ""

    def __post_init__(self) -> None:
        if not self.runs or not all(self.runs):
            raise UsageError(
                f"{self.measure}: a number without the runs it came from", remedy="name the runs"
            )
        if not self.unit:
            raise UsageError(f"{self.measure}: a number without a unit")
        if self.n < 1 or not math.isfinite(self.value):
            raise UsageError(f"{self.measure}: value {self.value} from {self.n} observations")
        if self.low > self.value + 1e-9 or self.high < self.value - 1e-9:
            raise UsageError(f"{self.measure}: interval [{self.low}, {self.high}] misses {self.value}")


COLUMNS = [field.name for field in fields(MeasuredResult)]


def result_table(results: Iterable[MeasuredResult]) -> pd.DataFrame:
    """One row per result, columns as `MeasuredResult`; `runs` becomes one string, joined by spaces."""
    rows = [{**asdict(result), "runs": " ".join(result.runs)} for result in results]
    return pd.DataFrame(rows, columns=COLUMNS)


def group_columns(samples: pd.DataFrame) -> pd.DataFrame:
    """`samples` with the columns of `GROUP` filled from fields and tags (absent: "" or None)."""
    named = samples.copy()
    for name, tag in _TAGS.items():
        column = f"tag.{tag}"
        values = (
            samples[column] if column in samples else pd.Series([None] * len(samples), index=samples.index)
        )
        texts = {value: str(value) for value in values.dropna().unique()}
        named[name] = (
            pd.to_numeric(values) if name == "params" else values.map(texts).astype(object).fillna("")
        )
    if "tag.dataset" in samples:  # summaries of news and of posts are averaged separately
        parts = zip(named["variant"], samples["tag.dataset"].fillna(""), strict=True)
        named["variant"] = ["-".join(filter(None, part)) for part in parts]
    return named


class Measure(NamedTuple):
    """A per-sample column to be averaged: what the result is called and its unit.

    `counted`: the column holds yes or no (1, 0, a tie 0.5), and its mean is a share of samples.
    """

    column: str
    name: str
    unit: str
    counted: bool = False


def summarise(
    samples: pd.DataFrame,
    measures: Iterable[Measure],
    *,
    scorer: str = "",
    by: Sequence[str] = GROUP,
    draws: int = 2000,
) -> list[MeasuredResult]:
    """Means of per-sample columns for every policy, over cells (`eval.common.stats.over_cells`).

    Within a single cell intervals are over posts and bootstrapped; those of counted columns are Wilson's,
    widened for posts (`eval.common.stats.share`), which do not vanish where every sample wins or loses.

    Args:
        samples: rows as `eval.common.io.load_samples` gives them, with the measures' columns added or loaded.
        by: `GROUP` for each cell apart, `POOLED` for all cells of a policy together.

    Returns:
        Results ordered by method and model size. A column that a group lacks altogether is left out
        (not measured), as are the cells that lack it.

    Raises:
        UsageError: a group in which only some samples of a cell have a column.
    """
    known = [measure for measure in measures if measure.column in samples]
    results = []

    def means(part: pd.DataFrame, number: int) -> dict[str, Estimate]:
        present = [measure for measure in known if _complete(part, measure.column)]
        values = part[[measure.column for measure in present]].astype(float)
        found = bootstrap_means(values, part["id"], draws=number) if present else []
        return {
            measure.name: share(values[measure.column], part["id"]) if measure.counted else estimate
            for measure, estimate in zip(present, found, strict=True)
        }

    for names, group in policy_groups(samples, by):
        estimates = cellwise(group, means, draws)
        results += [
            group_result(group, names, measure, estimates[measure.name], scorer=scorer)
            for measure in known
            if measure.name in estimates
        ]
    return results


def policy_groups(samples: pd.DataFrame, by: Sequence[str] = GROUP) -> list[tuple[PolicyNames, pd.DataFrame]]:
    """The samples of each policy with the values of `by` that name it, by method and model size."""
    groups = [
        (dict(zip(by, map(_plain, key), strict=True)), group)
        for key, group in group_columns(samples).groupby(list(by), dropna=False)
    ]
    return sorted(groups, key=lambda pair: _reading_order(pair[0]))


def group_result(
    group: pd.DataFrame,
    names: PolicyNames,
    measure: Measure,
    estimate: Estimate,
    *,
    scorer: str = "",
) -> MeasuredResult:
    """A policy's estimate as a result that names the policy and its runs.

    Args:
        group, names: as `policy_groups` gives them.
    """
    return named(
        measure.name,
        measure.unit,
        estimate,
        group["run"],
        scorer=scorer,
        best_of=int(group["n"].iloc[0]),
        **{name: value for name, value in names.items() if name != "n"},
    )


def named(measure: str, unit: str, estimate: Estimate, runs: Iterable[str], **names: Any) -> MeasuredResult:
    """An estimate as a `MeasuredResult`; `names` as the result's fields."""
    return MeasuredResult(
        measure=measure,
        unit=unit,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        se=estimate.se,
        n=estimate.n,
        posts=estimate.clusters,
        runs=tuple(sorted(set(runs))),
        cells=estimate.cells,
        cell_sd=estimate.cell_sd,
        cell_values=listed_values(estimate.cell_values),
        **names,
    )


def _reading_order(names: PolicyNames) -> tuple[object, ...]:
    method = str(names.get("method", ""))
    place = METHOD_ORDER.index(method) if method in METHOD_ORDER else -1
    return place, method, names.get("params") or 0, *(str(value) for value in names.values())


def _complete(group: pd.DataFrame, column: str) -> bool:
    """Whether all samples have the column (True) or none has (False)."""
    missing = int(group[column].isna().sum())
    if 0 < missing < len(group):
        raise UsageError(
            f"{column} is missing for {missing} of {len(group)} samples",
            where=", ".join(sorted(set(group["run"]))),
            remedy="score all samples of the run, or none",
        )
    return missing == 0


def _plain(value: Any) -> Any:
    """A Python value for a numpy one; missing becomes None."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


def _constant_default(name: object, column: pd.Series[Any]) -> bool:
    """Columns that carry no information when every row holds the default."""
    defaults = {"best_of": 1, "top_p": 1.0, "cells": 1}
    return name in defaults and bool(column.isin([defaults[str(name)], ""]).all())


def wide(table: pd.DataFrame, digits: int = 3) -> pd.DataFrame:
    """A result table in readable form: one row per policy, one column per measure, cells "value [low, high]".

    Units are in the long table (the CSV file).
    """
    if table.empty:
        return table
    value, low, high = (table[name].map(f"{{:.{digits}f}}".format) for name in ("value", "low", "high"))
    texts = table.assign(text=(value + " [" + low + ", " + high + "]").where(table["low"].notna(), value))
    keys = [name for name in COLUMNS if name not in _PER_MEASURE]
    texts[keys] = texts[keys].astype(object).where(texts[keys].notna(), "")
    rows: dict[tuple[object, ...], dict[str, object]] = {}
    for key, measure, text in zip(
        texts[keys].itertuples(index=False), table["measure"], texts["text"], strict=True
    ):
        rows.setdefault(tuple(key), {})[measure] = text
    shown = pd.DataFrame([dict(zip(keys, key, strict=True)) | row for key, row in rows.items()]).fillna("")
    shown = shown[[*keys, *dict.fromkeys([*max(rows.values(), key=len), *shown.columns.difference(keys)])]]
    shown["params"] = shown["params"].map(lambda count: human_count(count) if count != "" else "")
    filled = [
        name for name in shown if (shown[name] != "").any() and not _constant_default(name, shown[name])
    ]
    return shown[sorted(filled, key=["n", "posts", "runs"].__contains__)]


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table with values and bounds in readable form: a result table by policy, any other row by row."""
    return _by_policy(table) if "measure" in table else _for_people(table)


def _by_policy(table: pd.DataFrame) -> pd.DataFrame:
    """A result table with one row per policy (and group); precision and recall stay in the file."""
    table = table[~table["measure"].str.contains(r"^rouge.*_[pr](?:_stemmed)?$")]
    if "group" in table:
        parts = [wide(part).assign(group=group) for group, part in table.groupby("group", sort=False)]
        shown = pd.concat(parts, ignore_index=True).fillna("")
        shown.insert(0, "group", shown.pop("group"))
    else:
        shown = wide(table)
    # The method of a policy without a method tag is its own name.
    twice = {"method", "policy"} <= set(shown) and shown["method"].equals(shown["policy"])
    return shown.drop(columns="method") if twice else shown


def _for_people(table: pd.DataFrame) -> pd.DataFrame:
    """Value and bounds in one cell; empty columns are left out."""
    shown = table.loc[:, table.notna().any() & (table.astype(str) != "").any()].copy()
    value = next(name for name in ("value", "difference", "elo") if name in shown)
    digits = 0 if value == "elo" else 3
    shown[value] = [
        f"{one:.{digits}f}" + ("" if pd.isna(low) else f" [{low:.{digits}f}, {high:.{digits}f}]")
        for one, low, high in zip(table[value], table["low"], table["high"], strict=True)
    ]
    return shown.drop(columns=["low", "high", "se"], errors="ignore")


def human_count(count: float | None) -> str:
    """1300000000 -> "1.3B"; missing -> ""."""
    if count is None or pd.isna(count):
        return ""
    count = float(f"{count:.3g}")
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:g}"


def to_markdown(table: pd.DataFrame) -> str:
    """A pipe table; pipes and line breaks inside cells are escaped."""

    def cell(value: object) -> str:
        return str(value).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")

    rows = [list(map(cell, table.columns)), ["---"] * len(table.columns)]
    rows += [list(map(cell, row)) for row in table.itertuples(index=False)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def write_table(table: pd.DataFrame, shown: pd.DataFrame, folder: Path, name: str) -> list[Path]:
    """Write `table` as ``name.csv`` and `shown`, its readable form, as ``name.md`` and ``name.tex``."""
    texts = {
        "csv": table.to_csv(index=False, lineterminator="\n"),
        "md": to_markdown(shown),
        "tex": shown.to_latex(index=False, escape=True, float_format="{:g}".format),
    }
    return [write_text(folder / f"{name}.{suffix}", text, durable=False) for suffix, text in texts.items()]
