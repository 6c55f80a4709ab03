"""Rows of the published sets as the project's records; their text is not changed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tldr.inputs.posts import body_hash
from tldr.queries.formats import TLDR
from tldr.records import Article, CandidateSummary, Comparison, Info, Post, Ranking, Rating, Record

Fields = Mapping[str, Any]

MOST_COLUMNS = 100


class RawRow(Record):
    """A row of the raw dump, the input of `tldr-lab data filter`; comments have no title."""

    id: str
    body: str
    title: str | None = None


@dataclass(frozen=True)
class RowOrigin:
    """The source and split of a row."""

    source: str
    split: str


@dataclass(frozen=True)
class RowLayout:
    """A form of rows, recognised by its columns."""

    name: str
    columns: frozenset[str]
    convert: Callable[[Fields, RowOrigin], Record]

    def record(self, row: Fields, origin: RowOrigin) -> Record:
        """The record of a row.

        Raises:
            ValueError: the row is not of this form.
        """
        if lacking := sorted(self.columns - row.keys()):
            raise ValueError(f"no field {', '.join(lacking)}")
        return self.convert(row, origin)


def layout_of(columns: Iterable[str]) -> RowLayout | None:
    """The first layout all of whose columns are present.

    A file with very many columns, such as a tokenizer's vocabulary, has no layout.
    """
    there = set(columns)
    if len(there) > MOST_COLUMNS:
        return None
    return next((layout for layout in LAYOUTS if layout.columns <= there), None)


_PROMPT = re.compile(
    r"SUBREDDIT: r/(?P<subreddit>[^\n]*)(?P<gap>\n\n?)TITLE: (?P<title>[^\n]*)(?P=gap)POST: (?P<post>.*)",
    re.DOTALL,
)
_ASK = "TL;DR:"


def parse_prompt(prompt: str, *, asks: bool = True) -> dict[str, str]:
    """Subreddit, title and post of a formatted query; formatting them gives the query again.

    The format is the paper's, or the same with single newlines between its parts (CarperAI). Neither a
    subreddit nor a title holds a newline, so the parse is unique.

    Args:
        asks: whether the query ends in ``TL;DR:``; CarperAI's pairs have it in the summaries.

    Raises:
        ValueError: the text is not such a query.
    """
    found = _PROMPT.fullmatch(prompt)
    if found is None:
        raise ValueError("prompt: not in the format SUBREDDIT: r/..., TITLE: ..., POST: ..., TL;DR:")
    gap, tail = found["gap"], (found["gap"] + _ASK) * asks
    if not found["post"].endswith(tail):
        raise ValueError(f"prompt: does not end in {tail!r}")
    fields = {name: found[name] for name in ("subreddit", "title")}
    fields["post"] = found["post"].removesuffix(tail)
    template = TLDR.template.removesuffix("\n\n" + _ASK).replace("\n\n", gap) + tail
    if template.format(**fields) != prompt:
        raise ValueError("prompt: formatting its parts again gives another text")
    return fields


def named(info: Info) -> Info:
    """The same info with an id: ``h_`` and the body's hash if it has none."""
    return info if info.id is not None else info.model_copy(update={"id": f"h_{body_hash(info)[:16]}"})


def _drop_null(fields: Fields | None) -> dict[str, Any]:
    """The fields without nulls, which a table adds to rows that lack a column."""
    if not isinstance(fields, dict | None):
        raise ValueError(f"expected an object, found {type(fields).__name__}")
    return {name: value for name, value in (fields or {}).items() if value is not None}


def _comparison(row: Fields, origin: RowOrigin) -> Comparison:
    info = Info.model_validate(_drop_null(row["info"]))
    return Comparison.model_validate({**row, "info": named(info), "extra": _drop_null(row.get("extra"))})


def _ranking(row: Fields, origin: RowOrigin) -> Ranking:
    info = Info.model_validate(_drop_null(row["info"]))
    return Ranking.model_validate({**row, "info": named(info), "extra": _drop_null(row.get("extra"))})


def _rating(row: Fields, origin: RowOrigin) -> Rating:
    return Rating.model_validate({**row, "info": named(Info.model_validate(_drop_null(row["info"])))})


def _post(row: Fields, origin: RowOrigin) -> Post:
    return Post.model_validate(row)


def _article(row: Fields, origin: RowOrigin) -> Article:
    return Article.model_validate(row)


def _news(row: Fields, origin: RowOrigin) -> Article:
    return Article(id=row["id"], article=row["article"], summary=row["highlights"])


def _raw(row: Fields, origin: RowOrigin) -> RawRow:
    return RawRow.model_validate(row)


def _prompted(row: Fields, origin: RowOrigin) -> Post:
    summary = row["completion"] if "completion" in row else row["label"]
    fields = parse_prompt(_text(row, "prompt"))
    info = named(Info(post=fields["post"]))
    return Post.model_validate({"id": info.id, **fields, "summary": summary})


PAIR_SPLITS: dict[str, Literal["train", "valid1"]] = {"train": "train", "valid1": "valid1"}
"""Splits of pairs by their last name; all others (valid2, test, validation) become valid2, for reporting."""


def _pair(row: Fields, origin: RowOrigin) -> Comparison:
    """A pair whose better summary is known.

    The summaries are ordered by their hashes. With the chosen one first, a model could learn the position,
    and a judge with a position bias would look accurate. Their policies and the worker are unknown.
    """
    chosen, rejected = _text(row, "chosen"), _text(row, "rejected")
    asks = not (chosen.startswith(_ASK) and rejected.startswith(_ASK))
    fields = parse_prompt(_text(row, "prompt"), asks=asks)
    if not asks:
        chosen, rejected = chosen.removeprefix(_ASK), rejected.removeprefix(_ASK)
    texts = sorted((chosen, rejected), key=lambda text: _digest(fields["post"], text))
    return Comparison(
        info=named(Info.model_validate(fields)),
        summaries=[CandidateSummary(text=text, policy="unknown") for text in texts],
        choice=0 if texts[0] == chosen else 1,
        worker="unknown",
        batch=origin.source,
        split=PAIR_SPLITS.get(origin.split.split("/")[-1], "valid2"),
    )


def _digest(post: str, text: str) -> bytes:
    return hashlib.sha256(f"{post}\0{text}".encode()).digest()


def _text(row: Fields, name: str) -> str:
    if not isinstance(row[name], str):
        raise ValueError(f"{name}: expected text, found {type(row[name]).__name__}")
    return str(row[name])


LAYOUTS = tuple(
    RowLayout(name, frozenset(columns.split()), convert)
    for name, columns, convert in (
        ("comparison", "info summaries choice", _comparison),
        ("ranking", "info summaries rank", _ranking),
        ("rating", "info summary worker", _rating),
        ("pair", "prompt chosen rejected", _pair),
        ("query with completion", "prompt completion", _prompted),
        ("query with label", "prompt label", _prompted),
        ("post", "id subreddit title post", _post),
        ("CNN/DM row", "id article highlights", _news),
        ("article", "id article", _article),
        ("raw row", "id subreddit body content", _raw),
    )
)
"""In order of precedence: layouts with rarer columns come first."""
