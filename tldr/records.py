"""The records that pass between stages: one JSON object per line.

`Comparison` and `Rating` have exactly the format of OpenAI's human-feedback release
(openai/summarize-from-feedback README; `comparisons/*.json`, `axis_evals/*.json`), so their files
load unchanged and ours load in their tools. Reading never drops a line silently: an invalid line
raises ``file:line: what is wrong``, or is counted and skipped with ``on_error="skip"``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tldr.errors import RecordError, UsageError
from tldr.files import replacing
from tldr.strict_json import dump_json, numbered_lines, parse_object


class Record(BaseModel):
    """Base of all records; unknown fields are kept, because files from elsewhere have additional ones."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    def to_json(self) -> str:
        """One line of JSON with keys in declared order, without unset optional fields.

        Raises:
            ValueError: a value cannot be written so that it can be read again, such as NaN.
        """
        return dump_json(self.model_dump(exclude_unset=True))


NonEmpty = Annotated[str, Field(pattern=r"\S")]
"""Text that is not only whitespace."""
NonNegativeInt = Annotated[int, Field(ge=0)]
Likert = Annotated[int | float, Field(ge=1, le=7)]


class Post(Record):
    """A Reddit submission; `summary` is the author's TL;DR, None for PPO-only posts."""

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
    """The post or article that was summarized; OpenAI's edit batch has rows without `id`."""

    id: NonEmpty | None = None
    subreddit: str | None = None
    title: str | None = None
    post: str | None = None
    site: str | None = None
    article: str | None = None

    @model_validator(mode="after")
    def _has_text(self) -> Info:
        if self.post is None and self.article is None:
            raise ValueError("info has neither 'post' nor 'article'")
        return self


class CandidateSummary(Record):
    """One summary as a labeler saw it. In OpenAI's files `text` begins with a space.

    `scores` is our addition: the scores of reward models and other scorers, {scorer: value}.
    """

    text: str
    policy: str
    note: str | None = None
    scores: dict[str, float] = Field(default_factory=dict)


class DocumentLoss(Record):
    """Cross-entropy of a policy on a document of the held-out corpus: ``nats`` over ``tokens``."""

    nats: float
    tokens: Annotated[int, Field(ge=1)]


class Extra(Record):
    """`confidence` is the signed slider: 1 = certainly summary 0, 9 = certainly summary 1, never 5."""

    confidence: Annotated[int, Field(ge=1, le=9)] | None = None


class Comparison(Record):
    """One labeler's choice between two summaries of a post (OpenAI's `comparisons` row)."""

    info: Info
    summaries: Annotated[list[CandidateSummary], Field(min_length=2, max_length=2)]
    choice: Annotated[int, Field(ge=0, le=1)]  # not a Literal, which would accept true and 1.0 as 1
    worker: str
    batch: str
    split: Literal["train", "valid1", "valid2"]
    extra: Extra = Extra()


class Axes(Record):
    """The paper's four 1-7 Likert axes; any may be null. Means over several labelers are not integers."""

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
    """One labeler's ranking of K summaries of a post: InstructGPT's K-way label.

    `rank[i]` is the rank of `summaries[i]`, 1 = best; equal numbers are ties. `extra` is set only if the
    ranking comes from a comparison.
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
        """The ranking with K = 2 that a comparison is."""
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
        """Every pair of summaries without a tie, as a comparison."""
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
    """A policy's summary of one post, with all its scores.

    `response_ids` are the exact sampled tokens (absent in files from elsewhere, whose text is then
    encoded); `tokens` counts them incl. EOS; `logprob*` are sums over them in nats under the sampling
    policy and under its initial SFT policy, at `logprob_temperature`: 1, but in PPO's rollouts that of
    sampling, at which PPO computes its KL. Tables group by `tags`: `method` (reference | pretrained | sft |
    ppo | best_of_n | ...), `size`, `params`, ...
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
    response_ids: list[NonNegativeInt] | None = None
    tokens: NonNegativeInt | None = None
    stopped: bool | None = None
    logprob: float | None = None
    logprob_sft: float | None = None
    logprob_temperature: float = 1.0
    scores: dict[str, float] = Field(default_factory=dict)
    tags: dict[str, str | int | float | bool] = Field(default_factory=dict)


class TokenTrace(Record):
    """Per-token values of a sampled summary, one value per token (EOS included).

    Log-probabilities are in nats at temperature 1 under the policy and its initial SFT policy. `value` is
    the value network's estimate before the token. `reward` is as PPO gives it, but with the KL at
    temperature 1: its penalty, plus the score at the end, after PPO's rule for responses without EOS.
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

    `order` contains indices into `policies` in the order shown: policy ``policies[order[0]]`` was
    A. `verdict` refers to the shown order (A or B); an answer that is neither is invalid, never a
    guess. `axis` is the criterion asked about; `texts` are the two summaries and `runs` the runs that
    made them, both in the order of `policies`; `probability` is P(A preferred), from judges that
    report one; `prompt_sha` identifies the prompt.
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
"""At an invalid line: stop, or count and skip it."""
R = TypeVar("R", bound=Record)
RecordParser = type[R] | Callable[[dict[str, Any]], R]
"""A record class, or a function from a JSON object to a record (it may raise ValidationError)."""


@dataclass
class ReadReport:
    """The result of reading a file: the number of valid lines, and a message for each invalid line."""

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
    """Yield the record of each row; rows may have any type.

    Args:
        rows: the location (``file:line``) of each row, and the row.
        make: converts a row to a record; raises ValueError (or a ValidationError) if it is invalid.
        name: name of the record, for the error.
        on_error, report: as for `iter_records`.

    Raises:
        RecordError: a row is invalid; the error names its location.
    """
    for place, row in rows:
        try:
            record = make(row)
        except ValueError as error:
            if on_error == "stop":
                raise RecordError(
                    f"not a {name}: {_explain(error)}",
                    where=place,
                    remedy="fix the line, or use --on-error skip to count and skip invalid lines",
                ) from None
            report.bad.append(f"{place}: {_explain(error)}")
            continue
        report.good += 1
        yield record


def iter_records(
    path: str | Path,
    kind: RecordParser[R],
    *,
    on_error: OnError = "stop",
    report: ReadReport | None = None,
) -> Iterator[R]:
    """Yield the records of a JSON-lines file; blank lines and a byte order mark at its start are ignored.

    Args:
        kind: a record class, or a function from a JSON object to a record.
        on_error: "stop" raises at the first invalid line; "skip" adds it to `report` and continues.
        report: filled while reading.

    Raises:
        UsageError: the file does not exist.
        RecordError: a line is invalid; the error names it as ``file:line``.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError("no such file", where=path, remedy="check the path, or run the stage that makes it")
    parse: Callable[[dict[str, Any]], R] = getattr(kind, "model_validate", kind)
    with path.open("rb") as lines:
        rows = ((f"{path}:{number}", raw) for number, raw in numbered_lines(lines) if raw.strip())
        yield from make_records(
            rows,
            lambda raw: parse(parse_object(raw)),
            kind.__name__.replace("_", " "),
            on_error=on_error,
            report=report if report is not None else ReadReport(path),
        )


def read_records(
    path: str | Path,
    kind: RecordParser[R],
    *,
    on_error: OnError = "stop",
    report: ReadReport | None = None,
) -> list[R]:
    """All records of a file; see `iter_records`."""
    return list(iter_records(path, kind, on_error=on_error, report=report))


def write_records(path: str | Path, records: Iterable[Record]) -> Path:
    """Write records atomically: a reader sees either the complete new file or the old one.

    Raises:
        RecordError: a record holds a value that could not be read again.
    """
    path = Path(path)
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as out:
        for number, record in enumerate(records, start=1):
            try:
                line = record.to_json()
            except ValueError as error:
                raise RecordError(
                    f"a {type(record).__name__} cannot be written: {error}", where=f"{path}:{number}"
                ) from None
            out.write(line + "\n")
    return path


def write_json(path: str | Path, data: Any) -> Path:
    """Write one JSON document atomically, keys sorted.

    Raises:
        RecordError: it holds a value that could not be read again, such as NaN.
    """
    path = Path(path)
    try:
        text = dump_json(data, indent=2, sort_keys=True)
    except ValueError as error:
        raise RecordError(f"cannot be written: {error}", where=path) from None
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as out:
        out.write(text + "\n")
    return path
