"""The shapes a paper can claim, as predicates: each turns a study's rows into the steps it requires.

A claim of several steps holds only where the whole 95 % interval of every step lies on the claimed
side. Steps are tested jointly by requiring all of them: an intersection-union test, whose level is
that of a single step, so no step's interval is widened and none is left out.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from eval.claims.contrast import Missing, Part, Step, contrast
from eval.claims.evidence import UNITS, Evidence, Selector, matched_on, select
from eval.common.tables import human_count

Steps = tuple[list[Step], list[str]]
Text = Annotated[str, Field(min_length=1)]

PLAIN = ("size", "method", "probe", "policy_size", "judge", "variant", "sweep")
"""Columns whose values speak for themselves in a step's label."""


class Predicate(BaseModel):
    """What every predicate names: the rows it looks at and the value it compares.

    Attributes:
        source, value: of `eval.claims.evidence`. among: the rows that take part.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Text
    value: Text
    among: Selector = {}

    @abstractmethod
    def steps(self, evidence: Evidence, draws: int) -> Steps:
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

    def steps(self, evidence: Evidence, draws: int) -> Steps:
        """The steps of every combination of `each`."""
        rows = evidence.rows(self.source, self.among, self.value)
        groups = [("", rows)] if not self.each else []
        if self.each:
            rows = rows.sort_values("params", kind="stable") if "params" in rows else rows
            for values, part in rows.groupby(self.each, sort=False, dropna=False):
                names = [_name(*pair) for pair in zip(self.each, values, strict=True)]
                groups.append((" ".join(filter(None, names)), part))
        steps, lacking = [], {}
        for name, part in groups:
            try:
                steps += self.within(part, name, draws)
            except Missing as missing:
                lacking[name] = missing
        if not steps:
            raise next(iter(lacking.values()), Missing("nothing to compare"))
        return steps, list(filter(None, lacking))

    @abstractmethod
    def within(self, rows: pd.DataFrame, name: str, draws: int) -> list[Step]:
        """The steps of one combination, called `name`."""

    def step(self, parts: Sequence[Part], label: str, varied: Sequence[str], draws: int, **how: Any) -> Step:
        """A contrast of `value` on the units that all parts share; `varied` differs between the parts."""
        on = matched_on(self.source, [*varied, *self.each])
        how = {"on": on, "unit": f"difference in {UNITS.get(self.value, self.value)}", "draws": draws, **how}
        return contrast(parts, self.value, label=label.strip() or "overall", **how)


def two_sides(rows: pd.DataFrame, better: Selector, worse: Selector) -> list[Part]:
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

    def within(self, rows: pd.DataFrame, name: str, draws: int) -> list[Step]:
        parts = two_sides(rows, self.better, self.worse)
        return [replace(self.step(parts, name, [*self.better, *self.worse], draws), margin=self.margin)]


class Alike(Grouped):
    """The means of the two differ by less than `margin`, either way (equivalence)."""

    predicate: Literal["alike"]
    one: Selector
    other: Selector
    margin: Annotated[float, Field(gt=0)]

    def within(self, rows: pd.DataFrame, name: str, draws: int) -> list[Step]:
        parts = two_sides(rows, self.one, self.other)
        step = self.step(parts, name, [*self.one, *self.other], draws)
        return [replace(step, margin=self.margin, two_sided=True)]


class Along(Grouped):
    """A predicate about the places along a column.

    `same`: they hold the same posts or pairs (paired); else they are compared as they are.
    """

    along: Text
    same: bool = True

    def places(self, rows: pd.DataFrame, fewest: int) -> dict[float, pd.DataFrame]:
        """The rows at each value of `along`, ascending."""
        known = rows[rows[self.value].notna() & rows[self.along].notna()]
        parts = {float(place): part for place, part in known.groupby(known[self.along].astype(float))}
        if len(parts) < fewest:
            raise Missing(f"{len(parts)} of the {fewest} values of {self.along} that it takes")
        return parts

    def difference(self, parts: Sequence[Part], label: str, draws: int, **how: Any) -> Step:
        """A paired step, or one between groups of different units."""
        return self.step(parts, label, [self.along], draws, **(how if self.same else how | {"on": ()}))


class Rises(Along):
    """The mean rises (or `falls`) at every step along a column; `ends`: from its first value to its last."""

    predicate: Literal["rises"]
    falls: bool = False
    ends: bool = False

    def within(self, rows: pd.DataFrame, name: str, draws: int) -> list[Step]:
        places = self.places(rows, 2)
        sign = -1.0 if self.falls else 1.0
        order = list(places)
        return [
            self.difference(
                [(sign, places[high]), (-sign, places[low])],
                f"{name} {self.along} {_place(self.along, low)} to {_place(self.along, high)}",
                draws,
            )
            for low, high in ([(order[0], order[-1])] if self.ends else pairwise(order))
        ]


class Peaks(Along):
    """Some place between the ends of a column has a higher mean than both ends.

    The peak is not known beforehand: every inner place is tried, at a level divided by their number
    (Bonferroni), so that trying several wins nothing by chance. The one that stands out most is reported.
    """

    predicate: Literal["peaks"]

    def within(self, rows: pd.DataFrame, name: str, draws: int) -> list[Step]:
        places = self.places(rows, 3)
        first, *inner, last = places
        level = 1 - 0.05 / len(inner)
        tried = [
            [
                self.difference(
                    [(1.0, places[peak]), (-1.0, places[end])],
                    f"{name} {self.along} {_place(self.along, peak)} over {_place(self.along, end)}",
                    max(draws, 2000),
                    level=level,
                )
                for end in (first, last)
            ]
            for peak in inner
        ]
        return max(tried, key=lambda pair: min(step.strength for step in pair))


class Above(Grouped):
    """The mean lies above a number, such as one half; `below`: under it.

    `margin`: not on the other side by more than this, instead.
    """

    predicate: Literal["above"]
    than: float
    below: bool = False
    margin: Annotated[float, Field(ge=0)] = 0.0

    def within(self, rows: pd.DataFrame, name: str, draws: int) -> list[Step]:
        over = rows.assign(**{self.value: rows[self.value] - self.than})
        step = self.step([(-1.0 if self.below else 1.0, over)], name, [], draws)
        return [replace(step, margin=self.margin)]


class GainsMost(Grouped):
    """From `worse` to `better` the mean gains more where `column` is `most` than at each of `others`."""

    predicate: Literal["gains most"]
    better: Selector
    worse: Selector
    column: Text
    most: Text
    others: Annotated[list[Text], Field(min_length=1)]

    def within(self, rows: pd.DataFrame, name: str, draws: int) -> list[Step]:
        steps = []
        for other in self.others:
            parts = [
                (side * sign, select(rows, selector | {self.column: value}))
                for side, value in ((1.0, self.most), (-1.0, other))
                for sign, selector in ((1.0, self.better), (-1.0, self.worse))
            ]
            varied = [*self.better, *self.worse, self.column]
            steps.append(self.step(parts, f"{name} {self.most} over {other}", varied, draws))
        return steps


def _place(column: str, value: float) -> str:
    return human_count(value) if column in ("params", "rankings") else f"{value:.3g}"


def _name(column: str, value: object) -> str:
    shown = _place(column, value) if isinstance(value, float) else str(value)
    return shown if column in PLAIN else f"{column} {shown}"
