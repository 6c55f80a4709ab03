"""The records that pass between stages: one JSON object a line, nothing else.

`Comparison` and `Rating` are exactly the rows of OpenAI's human-feedback release
(openai/summarize-from-feedback README; `comparisons/*.json`, `axis_evals/*.json`), so their files
load unchanged and ours load in their tools. Reading never loses a line in silence: a bad one
stops with ``file:line: what is wrong``, or is counted and set aside with ``on_error="skip"``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tldr.errors import RecordError, UsageError
from tldr.strict_json import parse_object


class Record(BaseModel):
    """Base of all records: unknown fields are kept (files from elsewhere carry more than ours)."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    def to_json(self) -> str:
        """One line of JSON, keys in declared order, unset optional fields left out."""
        return json.dumps(self.model_dump(exclude_unset=True), ensure_ascii=False)


NonEmpty = Annotated[str, Field(pattern=r"\S")]
"""Text with something in it beside white space."""
Count = Annotated[int, Field(ge=0)]
Likert = Annotated[int | float, Field(ge=1, le=7)]


class Post(Record):
    """A Reddit submission; `summary` is its author's TL;DR, absent for PPO-only posts."""

    id: NonEmpty
    subreddit: str
    title: str
    post: NonEmpty
    summary: str | None = None


class Article(Record):
    """A CNN/DM article with its highlights as `summary`."""

    id: NonEmpty
    site: str | None = None
    title: str | None = None
    article: NonEmpty
    summary: str | None = None


class Info(Record):
    """Where a comparison's post came from; OpenAI's edit batch has rows without `id`."""

    id: NonEmpty | None = None
    subreddit: str | None = None
    title: str | None = None
    post: str | None = None
    site: str | None = None
    article: str | None = None

    @model_validator(mode="after")
    def _has_text(self) -> Info:
        if self.post is None and self.article is None:
            raise ValueError("info holds neither 'post' nor 'article'")
        return self


class CandidateSummary(Record):
    """One summary as a labeler saw it. In OpenAI's files `text` begins with a space.

    `scores` is ours: what reward models and other scorers say of it, {scorer: value}.
    """

    text: str
    policy: str
    note: str | None = None
    scores: dict[str, float] = Field(default_factory=dict)


class Extra(Record):
    """`confidence` is the signed slider: 1 = surely summary 0, 9 = surely summary 1, never 5."""

    confidence: Annotated[int, Field(ge=1, le=9)] | None = None


class Comparison(Record):
    """One labeler's choice between two summaries of a post (OpenAI's `comparisons` row)."""

    info: Info
    summaries: Annotated[list[CandidateSummary], Field(min_length=2, max_length=2)]
    choice: Annotated[int, Field(ge=0, le=1)]  # to a Literal, true and 1.0 are 1
    worker: str
    batch: str
    split: Literal["train", "valid1", "valid2"]
    extra: Extra = Extra()


class Axes(Record):
    """The paper's four 1-7 Likert axes; any may be null. One labeler's are whole, a mean of several's not."""

    overall: Likert | None = None
    accuracy: Likert | None = None
    coverage: Likert | None = None
    coherence: Likert | None = None
    compatible: bool | None = None


class RatedSummary(Record):
    """A summary with its axis ratings."""

    text: str
    policy: str
    note: str | None = None
    axes: Axes


class Rating(Record):
    """One labeler's axis evaluation (OpenAI's `axis_evals` row)."""

    info: Info
    summary: RatedSummary
    worker: str
    batch: str
    split: Literal["train", "test", "valid1", "valid2"]


class Ranking(Record):
    """K summaries of a post in one labeler's order: InstructGPT's K-way label.

    `rank[i]` is the place of `summaries[i]`, 1 = best; equal numbers are ties. `extra` is a
    comparison's, where the ranking is one.
    """

    info: Info
    summaries: Annotated[list[CandidateSummary], Field(min_length=2)]
    rank: list[int]
    worker: str
    batch: str
    split: Literal["train", "valid1", "valid2"]
    extra: Extra = Extra()

    @model_validator(mode="after")
    def _one_rank_each(self) -> Ranking:
        if len(self.rank) != len(self.summaries):
            raise ValueError(f"{len(self.summaries)} summaries but {len(self.rank)} ranks")
        return self

    @classmethod
    def from_comparison(cls, row: Comparison) -> Ranking:
        """A comparison is a ranking with K = 2."""
        rank = [1, 2] if row.choice == 0 else [2, 1]
        return cls(
            info=row.info,
            summaries=row.summaries,
            rank=rank,
            worker=row.worker,
            batch=row.batch,
            split=row.split,
            extra=row.extra,
        )

    def comparisons(self) -> Iterator[Comparison]:
        """Every two of the summaries that are not tied, as a comparison."""
        for first, second in combinations(range(len(self.rank)), 2):
            if self.rank[first] != self.rank[second]:
                yield Comparison(
                    info=self.info,
                    summaries=[self.summaries[first], self.summaries[second]],
                    choice=0 if self.rank[first] < self.rank[second] else 1,
                    worker=self.worker,
                    batch=self.batch,
                    split=self.split,
                    extra=self.extra,
                )


class Sample(Record):
    """A policy's summary of one post, with every score it was given.

    `response_ids` are the exact tokens drawn (absent in files from elsewhere, whose text is encoded
    anew); `tokens` counts them incl. EOS; `logprob*` are sums over them in nats at
    temperature 1, under the sampling policy and under its SFT start. `tags` carry what the tables
    group by: `method` (reference | pretrained | sft | ppo | best_of_n | ...), `size`, `params`, ...
    """

    id: NonEmpty
    policy: NonEmpty
    study: str = ""
    run: str = ""
    seed: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    n: int = 1
    text: str
    response_ids: list[Count] | None = None
    tokens: Count | None = None
    stopped: bool | None = None
    logprob: float | None = None
    logprob_sft: float | None = None
    scores: dict[str, float] = Field(default_factory=dict)
    tags: dict[str, str | int | float | bool] = Field(default_factory=dict)


class TokenTrace(Record):
    """What a sampled summary's tokens earned and cost, one value a token (EOS included).

    Log-probabilities in nats at temperature 1 under the policy and its SFT start; `value` is the
    value network's estimate before the token; `reward` the KL penalty, with the score at the end.
    """

    id: NonEmpty
    policy: NonEmpty
    run: str = ""
    temperature: float = 1.0
    pieces: list[str]
    logprob: list[float]
    logprob_sft: list[float] | None = None
    value: list[float] | None = None
    reward: list[float] | None = None

    @model_validator(mode="after")
    def _one_value_a_token(self) -> TokenTrace:
        for name in ("logprob", "logprob_sft", "value", "reward"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.pieces):
                raise ValueError(f"{len(self.pieces)} tokens but {len(values)} of {name}")
        return self


class Judgement(Record):
    """One pairwise verdict of a judge.

    `order` holds indices into `policies`, as they were shown: the policy ``policies[order[0]]`` was
    A. `verdict` speaks of what was shown (A or B); an answer that says neither is invalid, never a
    guess. `axis` is what was asked for; `texts` are the two summaries and `runs` the runs that
    they came from, both in the order of `policies`; `probability` is P(A preferred), from judges that
    have one; `prompt_sha` tells one prompt from another.
    """

    id: NonEmpty
    policies: Annotated[list[str], Field(min_length=2, max_length=2)]
    order: Annotated[list[int], Field(strict=False)] = Field(default_factory=lambda: [0, 1])
    judge: str
    verdict: Literal["A", "B", "tie", "invalid"]
    raw: str | None = None
    axis: NonEmpty = "overall"
    texts: Annotated[list[str], Field(min_length=2, max_length=2)] | None = None
    runs: list[str] = Field(default_factory=list)
    probability: Annotated[float, Field(ge=0, le=1)] | None = None
    prompt_sha: str | None = None

    @model_validator(mode="after")
    def _shows_both(self) -> Judgement:
        if sorted(self.order) != [0, 1]:
            raise ValueError(f"order {self.order} is neither [0, 1] nor [1, 0]")
        return self


OnError = Literal["stop", "skip"]
"""At a bad line: stop, or count it and set it aside."""
R = TypeVar("R", bound=Record)
Kind = type[R] | Callable[[dict[str, Any]], R]
"""A record class, or a function that makes the record of a JSON object (it may raise ValidationError)."""


@dataclass
class ReadReport:
    """What a read met: how many lines held a record, and each line that did not."""

    path: Path
    good: int = 0
    bad: list[str] = field(default_factory=list)


def _explain(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or "record"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{place}: {first['msg']}{more}"


def make_records(
    rows: Iterable[tuple[str, Any]],
    make: Callable[[Any], R],
    name: str,
    *,
    on_error: OnError = "stop",
    report: ReadReport,
) -> Iterator[R]:
    """Yield the record of each row, whatever form the rows have.

    Args:
        rows: where a row lies (``file:line``), and the row.
        make: makes its record; raises ValueError (a ValidationError is one) where there is none.
        name: of the record, for the error.
        on_error, report: as of `iter_records`.

    Raises:
        RecordError: a bad row, named by its place.
    """
    for place, row in rows:
        try:
            record = make(row)
        except ValueError as error:
            if on_error == "stop":
                raise RecordError(
                    f"not a {name}: {_explain(error)}",
                    where=place,
                    remedy="mend the line, or read with --on-error skip to count and set aside bad lines",
                ) from None
            report.bad.append(f"{place}: {_explain(error)}")
            continue
        report.good += 1
        yield record


def iter_records(
    path: str | Path,
    kind: Kind[R],
    *,
    on_error: OnError = "stop",
    report: ReadReport | None = None,
) -> Iterator[R]:
    """Yield the records of a JSON-lines file; blank lines are ignored.

    Args:
        kind: a record class, or a function that makes the record of a JSON object.
        on_error: "stop" raises at the first bad line; "skip" notes it in `report` and goes on.
        report: filled while reading.

    Raises:
        UsageError: the file is not there.
        RecordError: a bad line, named ``file:line``.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError("no such file", where=path, remedy="check the path, or run the stage that makes it")
    parse: Callable[[dict[str, Any]], R] = getattr(kind, "model_validate", kind)
    with path.open("rb") as lines:
        rows = ((f"{path}:{number}", raw) for number, raw in enumerate(lines, start=1) if raw.strip())
        yield from make_records(
            rows,
            lambda raw: parse(parse_object(raw)),
            kind.__name__.replace("_", " "),
            on_error=on_error,
            report=report if report is not None else ReadReport(path),
        )


def read_records(
    path: str | Path,
    kind: Kind[R],
    *,
    on_error: OnError = "stop",
    report: ReadReport | None = None,
) -> list[R]:
    """All records of a file; see `iter_records`."""
    return list(iter_records(path, kind, on_error=on_error, report=report))


def write_records(path: str | Path, records: Iterable[Record]) -> Path:
    """Write records atomically: a reader sees the whole file or the one before it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as out:
        for record in records:
            out.write(record.to_json() + "\n")
        out.flush()
        os.fsync(out.fileno())
    partial.replace(path)
    return path


def write_json(path: str | Path, data: Any) -> Path:
    """Write one JSON document atomically, keys sorted."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as out:
        json.dump(data, out, indent=2, sort_keys=True, ensure_ascii=False)
        out.write("\n")
        out.flush()
        os.fsync(out.fileno())
    partial.replace(path)
    return path
