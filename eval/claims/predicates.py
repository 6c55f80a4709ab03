"""The shapes that many claims share, as predicates: each turns a study's rows into the steps it requires.

A claim of several steps holds only where the whole 95 % interval of every step lies on the claimed
side. Steps are tested jointly by requiring all of them: an intersection-union test, whose level is
that of a single step, so no step's interval is widened and none is left out.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from eval.claims.contrast import ClaimStep, Missing, WeightedRows, contrast
from eval.claims.evidence import UNITS, Evidence, Selector, matched_on, select
from eval.common.tables import human_count

ClaimSteps = tuple[list[ClaimStep], list[str]]
Text = Annotated[str, Field(min_length=1)]

PLAIN = ("size", "method", "probe", "policy_size", "judge", "variant", "sweep")
"""Columns whose values need no column name in a step's label."""


class Predicate(BaseModel):
    """A predicate names the rows that it looks at and the value that it compares.

    Attributes:
        source, value: of `eval.claims.evidence`. among: the rows that take part.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Text
    value: Text
    among: Selector = {}

    @abstractmethod
    def steps(self, evidence: Evidence, draws: int) -> ClaimSteps:
        """All steps the claim requires, smaller models first, and the combinations left out.

        Raises:
            Missing: the study lacks the runs.
        """


class Grouped(Predicate):
    """A predicate of one group of rows, which may have to hold within several.

    Attributes:
        each: columns within whose every combination the claim must hold; a combination that lacks a
            side (a size without PPO) is left out.
    """

    each: list[Text] = []

    def steps(self, evidence: Evidence, draws: int) -> ClaimSteps:
        """The steps of every combination of `each`."""
        rows = evidence.rows(self.source, self.among, self.value)
        return in_each(rows, self.each, lambda part, name: self.within(part, name, draws))

    @abstractmethod
    def within(self, rows: pd.DataFrame, name: str, draws: int) -> list[ClaimStep]:
        """The steps of one combination, called `name`."""

    def step(
        self, parts: Sequence[WeightedRows], label: str, varied: Sequence[str], draws: int, **how: Any
    ) -> ClaimStep:
        """A contrast of `value` on the units that all parts share; `varied` differs between the parts."""
        return paired(parts, self.source, self.value, label, [*varied, *self.each], draws=draws, **how)


def in_each(
    rows: pd.DataFrame, each: Sequence[str], within: Callable[[pd.DataFrame, str], list[ClaimStep]]
) -> ClaimSteps:
    """The steps that `within` finds in every combination of the columns `each`; in all rows without any.

    Raises:
        Missing: no combination has all that the claim compares.
    """
    groups = [("", rows)] if not each else []
    if each:
        rows = rows.sort_values("params", kind="stable") if "params" in rows else rows
        for values, part in rows.groupby(list(each), sort=False, dropna=False):
            names = [_name(*pair) for pair in zip(each, values, strict=True)]
            groups.append((" ".join(filter(None, names)), part))
    steps, lacking = [], {}
    for name, part in groups:
        try:
            steps += within(part, name)
        except Missing as missing:
            lacking[name] = missing
    if not steps:
        raise next(iter(lacking.values()), Missing("nothing to compare"))
    return steps, list(filter(None, lacking))


def paired(
    parts: Sequence[WeightedRows], source: str, value: str, label: str, varied: Sequence[str], **how: Any
) -> ClaimStep:
    """A contrast of `value` on the units of `source` that all parts share; `varied` differs between them."""
    defaults = {"on": matched_on(source, varied), "unit": f"difference in {UNITS.get(value, value)}"}
    return contrast(parts, value, label=label.strip() or "overall", **(defaults | how))


def places(rows: pd.DataFrame, value: str, along: str, fewest: int) -> dict[float, pd.DataFrame]:
    """The rows with a `value` at each place of the column `along`, ascending.

    Raises:
        Missing: fewer than `fewest` places.
    """
    known = rows[rows[value].notna() & rows[along].notna()]
    parts = {float(place): part for place, part in known.groupby(known[along].astype(float))}
    if len(parts) < fewest:
        raise Missing(f"{len(parts)} values of {along}, {fewest} needed")
    return parts


def two_sides(rows: pd.DataFrame, better: Selector, worse: Selector) -> list[WeightedRows]:
    """The two sides of a comparison.

    Raises:
        Missing: a side has no rows, or both mean the same (the largest of a single size, say).
    """
    first, second = select(rows, better), select(rows, worse)
    if first.index.equals(second.index):
        differ = sorted({name for side in (better, worse) for name in side})
        raise Missing(f"only one kind of {' and '.join(differ)}")
    return [(1.0, first), (-1.0, second)]


class Beats(Grouped):
    """The mean of `better` is above that of `worse` on the same posts.

    `margin`: not below it by more than this, instead (non-inferiority).
    """

    predicate: Literal["beats"]
    better: Selector
    worse: Selector
    margin: Annotated[float, Field(ge=0)] = 0.0

    def within(self, rows: pd.DataFrame, name: str, draws: int) -> list[ClaimStep]:
        parts = two_sides(rows, self.better, self.worse)
        return [replace(self.step(parts, name, [*self.better, *self.worse], draws), margin=self.margin)]


class Rises(Grouped):
    """The mean rises (or `falls`) at every step along a column; `ends`: from its first value to its last.

    `same`: the places hold the same posts or pairs (paired); else they are compared as they are.
    """

    predicate: Literal["rises"]
    along: Text
    same: bool = True
    falls: bool = False
    ends: bool = False

    def within(self, rows: pd.DataFrame, name: str, draws: int) -> list[ClaimStep]:
        at = places(rows, self.value, self.along, 2)
        sign = -1.0 if self.falls else 1.0
        how: dict[str, Any] = {} if self.same else {"on": ()}
        return [
            self.step(
                [(sign, at[high]), (-sign, at[low])],
                f"{name} {self.along} {place_name(self.along, low)} to {place_name(self.along, high)}",
                [self.along],
                draws,
                **how,
            )
            for low, high in ([(min(at), max(at))] if self.ends else pairwise(at))
        ]


class Above(Grouped):
    """The mean lies above a number, such as one half; `below`: under it.

    `margin`: not on the other side by more than this, instead.
    """

    predicate: Literal["above"]
    than: float
    below: bool = False
    margin: Annotated[float, Field(ge=0)] = 0.0

    def within(self, rows: pd.DataFrame, name: str, draws: int) -> list[ClaimStep]:
        over = rows.assign(**{self.value: rows[self.value] - self.than})
        step = self.step([(-1.0 if self.below else 1.0, over)], name, [], draws)
        return [replace(step, margin=self.margin)]


def place_name(column: str, value: float) -> str:
    return human_count(value) if column in ("params", "rankings") else f"{value:.3g}"


def _name(column: str, value: object) -> str:
    shown = place_name(column, value) if isinstance(value, float) else str(value)
    return shown if column in PLAIN else f"{column} {shown}"
