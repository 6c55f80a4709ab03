"""The file of claims: what the papers state, where they state it, and which results of a study test it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from eval.claims.evidence import SOURCES, Evidence, Selector
from eval.claims.functions import FUNCTIONS, ON_PREFERENCE
from eval.claims.predicates import Above, Beats, ClaimSteps, Rises
from eval.common.paper import TAGS, load_paper
from tldr.errors import UsageError
from tldr.strict_yaml import read_yaml

CLAIMS_FILE = "claims.yaml"

ClaimTest = Annotated[
    Beats | Rises | Above,
    Field(discriminator="predicate"),
]
Id = Annotated[str, Field(pattern=r"^[a-z0-9.-]+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Citation(_Strict):
    """The source of a shape: rows of a file of published numbers, or a passage with its own tag."""

    file: str | None = None
    items: list[str] = []
    tag: str | None = None
    source: str | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Citation:
        if (self.file is None) == (self.tag is None or self.source is None):
            raise ValueError("name either a file of published numbers, or tag and source")
        if self.tag is not None and self.tag not in TAGS:
            raise ValueError(f"tag {self.tag}: use one of {', '.join(sorted(TAGS))}")
        return self


class ShapeClaim(_Strict):
    """A shape: a sentence, the place it is stated, and the predicate or function that decides it.

    `split` gives every step (each size, say) a line of its own besides the whole.
    """

    id: Id
    text: str
    where: str
    paper: Citation
    test: ClaimTest | None = None
    function: str | None = None
    split: bool = False

    def steps(self, evidence: Evidence, draws: int) -> ClaimSteps:
        """All steps that the claim requires, and what was left out.

        Raises:
            Missing: the study lacks the runs.
        """
        if self.test is not None:
            return self.test.steps(evidence, draws)
        return FUNCTIONS[str(self.function)](evidence, draws)

    @property
    def on_preference(self) -> bool:
        """Whether it is about what is preferred to the reference, which every judge can be asked."""
        if self.test is not None:
            return self.test.source in ("samples", "pool") and self.test.value == "preference"
        return self.function in ON_PREFERENCE

    @model_validator(mode="after")
    def _decided_in_one_way(self) -> ShapeClaim:
        if (self.test is None) == (self.function is None):
            raise ValueError("name either a test or a function")
        if self.function is not None and self.function not in FUNCTIONS:
            raise ValueError(f"function {self.function!r}: use one of {', '.join(FUNCTIONS)}")
        if self.test is not None and self.test.source not in SOURCES:
            raise ValueError(f"source {self.test.source!r}: use one of {', '.join(SOURCES)}")
        return self


class NumberRule(_Strict):
    """All numbers of one kind in a file of published numbers, and the study's result each is set beside.

    Attributes:
        file, items: whose rows are claims. text: a format of {x} and {series}.
        table: of `eval.claims.numbers.TABLES`; `measure` and `among` choose its row, with `x` (the column
            that the published x is found in, or what each x means) and `series` (what each series means).
            params, rankings, kl and episodes match within `eval.claims.numbers.FACTOR`.
        error: what the published value may be off by besides its standard error (reading a figure,
            rounding); `share`: as a share of the value.
        left_out: series, or "series x", that no study of ours can produce, with the reason.
    """

    id: Id
    file: str
    items: Annotated[list[str], Field(min_length=1)]
    where: str
    text: str
    table: str = ""
    measure: str = ""
    among: Selector = {}
    x: str | dict[str, Selector] | None = None
    series: dict[str, Selector] = {}
    error: float = 0.0
    share: float = 0.0
    left_out: dict[str, str] = {}


class Claims(_Strict):
    """The whole file."""

    numbers: list[NumberRule]
    shapes: list[ShapeClaim]

    @model_validator(mode="after")
    def _ids_differ(self) -> Claims:
        ids = [rule.id for rule in self.numbers] + [claim.id for claim in self.shapes]
        twice = sorted({one for one in ids if ids.count(one) > 1})
        if twice:
            raise ValueError(f"the same id twice: {', '.join(twice)}")
        return self


def load_claims(folder: Path) -> Claims:
    """Read ``claims.yaml`` beside the published numbers.

    Raises:
        UsageError: no such file, broken YAML or a key given twice (with its line), a claim with unknown keys
            or values (named by its id), or one that cites numbers that are not published.
    """
    path = folder / CLAIMS_FILE
    if not path.is_file():
        raise UsageError("no file of claims", where=path, remedy="run from a source checkout")
    data = read_yaml(path)
    try:
        claims = Claims.model_validate(data)
    except ValidationError as error:
        raise _explained(error, data, path) from None
    for claim in claims.shapes:
        if claim.paper.file is not None:
            cited_rows(claim.paper.file, claim.paper.items, folder, f"{path}, claim {claim.id}")
    return claims


def cited_rows(file: str, items: list[str], folder: Path, where: str) -> pd.DataFrame:
    """The rows of the published numbers that a claim names.

    Raises:
        UsageError: no such file or item.
    """
    rows = load_paper(file, folder=folder)
    missing = set(items) - set(rows["item"])
    if missing:
        raise UsageError(f"{file}.csv has no item {', '.join(sorted(missing))}", where=where)
    return rows[rows["item"].isin(items)] if items else rows


def _explained(error: ValidationError, data: Any, path: Path) -> UsageError:
    """The first problem, named by the claim's id and the key."""
    first = error.errors()[0]
    kind, *rest = first["loc"] or ("",)
    place = f"{path}"
    if rest and isinstance(rest[0], int):
        entry = data[kind][rest[0]]
        name = entry.get("id") if isinstance(entry, dict) else None
        place += f", claim {name or f'{kind} {rest[0] + 1}'}"
        rest = rest[1:]
    elif kind:
        rest = [kind, *rest]
    key = ".".join(map(str, rest))
    return UsageError(
        f"{key}: {first['msg']}" if key else first["msg"], where=place, remedy="see eval/claims/schema.py"
    )


def published_numbers(rule: NumberRule, folder: Path) -> Iterator[tuple[str, str | None, Any]]:
    """Every row of a rule: its key ("series x"), why it is no claim (None: it is one), and the row.

    Raises:
        UsageError: a series or x that the rule does not mention.
    """
    for row in (
        cited_rows(rule.file, rule.items, folder, f"claim {rule.id}")
        .fillna({"x": ""})
        .itertuples(index=False)
    ):
        x = str(row.x)
        reason = rule.left_out.get(str(row.series)) or rule.left_out.get(f"{row.series} {x}")
        known = row.series in rule.series and (not isinstance(rule.x, dict) or x in rule.x)
        if reason is None and not known:
            raise UsageError(
                f"{rule.file}.csv: the rule does not mention series {row.series!r} at x {x!r}",
                where=f"claim {rule.id}",
                remedy="name its counterpart in a study, or give the reason for having none",
            )
        yield f"{row.series} {x}".strip(), reason, row
