"""Result tables: every number with its interval, its unit and the runs it came from.

A `Result` cannot be made without provenance. A table of them is written as CSV (full precision,
for programs), Markdown and LaTeX (rounded, for people).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from eval.stats import Estimate, bootstrap_mean
from tldr.errors import UsageError

GROUP = ("policy", "method", "size", "params", "variant", "selected_by", "n", "temperature", "top_p", "seed")
"""What tells one sampled policy from another; seeds apart."""

POOLED = tuple(name for name in GROUP if name not in ("policy", "seed"))
"""The same with all seeds of a policy in one group."""

_TAGS = {"method": "method", "size": "size", "params": "params", "variant": "variant", "selected_by": "scorer"}


@dataclass(frozen=True)
class Result:
    """One number that may be shown.

    Attributes:
        measure: what was measured ("preference", "rouge1_f"); `scorer`: by whom, where it matters.
        value, low, high, se: estimate, interval, standard error, all in `unit`.
        n: observations; `posts`: independent posts among them.
        runs: ids of the runs the number came from; never empty.
        params: parameters of the model; `best_of`: the N of best-of-N.
        seeds: training seeds averaged over; `seed`: the one, or None where several are pooled.
        seed_sd: standard deviation between the seeds' means (None with one seed). The interval
            covers posts only, so with few seeds this says what it leaves out.

    Raises:
        UsageError: no runs, no observations, or bounds that do not hold the value.
    """

    measure: str
    value: float
    low: float
    high: float
    se: float
    n: int
    posts: int
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
    seed: int | None = None
    seeds: int = 1
    seed_sd: float | None = None

    def __post_init__(self) -> None:
        if not self.runs or not all(self.runs):
            raise UsageError(f"{self.measure}: a number without the runs it came from", remedy="name the runs")
        if not self.unit:
            raise UsageError(f"{self.measure}: a number without a unit")
        if self.n < 1 or not math.isfinite(self.value):
            raise UsageError(f"{self.measure}: value {self.value} from {self.n} observations")
        if self.low > self.value + 1e-9 or self.high < self.value - 1e-9:
            raise UsageError(f"{self.measure}: interval [{self.low}, {self.high}] misses {self.value}")


COLUMNS = [field.name for field in fields(Result)]


def result_table(results: Iterable[Result]) -> pd.DataFrame:
    """One row a result, columns as `Result`; `runs` becomes one string, joined by spaces."""
    rows = [{**asdict(result), "runs": " ".join(result.runs)} for result in results]
    return pd.DataFrame(rows, columns=COLUMNS)


def group_columns(samples: pd.DataFrame) -> pd.DataFrame:
    """`samples` with the columns of `GROUP` filled from fields and tags (absent: "" or None)."""
    named = samples.copy()
    for name, tag in _TAGS.items():
        column = f"tag.{tag}"
        values = samples[column] if column in samples else pd.Series([None] * len(samples), index=samples.index)
        named[name] = (
            pd.to_numeric(values) if name == "params" else values.map(lambda one: "" if pd.isna(one) else str(one))
        )
    return named


def summarise(
    samples: pd.DataFrame,
    column: str,
    *,
    measure: str,
    unit: str,
    scorer: str = "",
    by: Sequence[str] = GROUP,
    draws: int = 2000,
) -> list[Result]:
    """Mean of a per-sample column for every policy, with a bootstrap interval over posts.

    Args:
        samples: rows as `eval.io.load_samples` gives them, with `column` added or loaded.
        by: `GROUP` for each seed apart, `POOLED` for all seeds of a policy together.

    Returns:
        One result a group; groups in which no sample has the column are left out (not measured).

    Raises:
        UsageError: a group in which only some samples have it.
    """
    if column not in samples:
        return []
    results = []
    for key, group in group_columns(samples).groupby(list(by), dropna=False, sort=True):
        missing = int(group[column].isna().sum())
        if missing == len(group):
            continue
        names = dict(zip(by, key, strict=True))
        if missing:
            raise UsageError(
                f"{column} is missing for {missing} of {len(group)} samples",
                where=", ".join(sorted(set(group["run"]))),
                remedy="score all samples of the run, or none",
            )
        estimate = bootstrap_mean(group[column].astype(float), group["id"], draws=draws)
        results.append(_result(estimate, group, column, names, measure, unit, scorer))
    return results


def _result(
    estimate: Estimate,
    group: pd.DataFrame,
    column: str,
    names: dict[str, object],
    measure: str,
    unit: str,
    scorer: str,
) -> Result:
    by_seed = group.groupby("seed")[column].mean()
    rest = {name: _plain(value) for name, value in names.items() if name != "n"}
    return Result(
        measure=measure,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        se=estimate.se,
        n=estimate.n,
        posts=estimate.clusters,
        unit=unit,
        runs=tuple(sorted(set(group["run"]))),
        scorer=scorer,
        best_of=int(group["n"].iloc[0]),
        seeds=len(by_seed),
        seed_sd=float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None,
        **rest,  # type: ignore[arg-type]  # the names of GROUP are fields of Result
    )


def _plain(value: object) -> object:
    """A Python value for a numpy one; missing becomes None."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


def readable(table: pd.DataFrame, digits: int = 3) -> pd.DataFrame:
    """A result table for people: value with its interval in one column, empty columns dropped."""
    if table.empty:
        return table
    number = f"{{:.{digits}f}}".format
    interval = [
        number(row.value) + (f" [{number(row.low)}, {number(row.high)}]" if row.low == row.low else "")
        for row in table.itertuples()
    ]
    shown = table.drop(columns=["value", "low", "high", "se"])
    shown.insert(1, "value [95 %]", interval)
    if "params" in shown:
        shown["params"] = shown["params"].map(human_count)
    if "seed_sd" in shown:
        shown["seed_sd"] = shown["seed_sd"].map(lambda one: "" if pd.isna(one) else number(one))
    shown = shown.astype(object).where(shown.notna(), "")
    filled = [name for name in shown if (shown[name] != "").any() and not _constant_default(name, shown[name])]
    return shown[filled]


def _constant_default(name: object, column: pd.Series[object]) -> bool:
    """Columns that say nothing when every row holds the default."""
    defaults = {"best_of": 1, "top_p": 1.0, "seeds": 1}
    return name in defaults and bool((column == defaults[str(name)]).all())


def human_count(count: float | None) -> str:
    """1300000000 -> "1.3B"; missing -> ""."""
    if count is None or pd.isna(count):
        return ""
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


def write_table(table: pd.DataFrame, folder: Path, name: str, *, digits: int = 3) -> list[Path]:
    """Write ``name.csv`` (as is), ``name.md`` and ``name.tex`` (readable); returns the three paths."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = readable(table, digits) if {"value", "low", "high"} <= set(table.columns) else table
    texts = {
        "csv": table.to_csv(index=False),
        "md": to_markdown(shown),
        "tex": shown.to_latex(index=False, escape=True),
    }
    paths = []
    for suffix, text in texts.items():
        paths.append(folder / f"{name}.{suffix}")
        paths[-1].write_text(text, encoding="utf-8")
    return paths
