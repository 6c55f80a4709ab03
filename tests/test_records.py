"""What is written can be read: random records of every kind, with values that JSON and UTF-8 lack."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tldr.errors import RecordError
from tldr.records import (
    Article,
    Axes,
    CandidateSummary,
    Comparison,
    Extra,
    Info,
    Judgement,
    Post,
    Ranking,
    RatedSummary,
    Rating,
    Record,
    Sample,
    TokenTrace,
    read_records,
    write_json,
    write_records,
)
from tldr.strict_json import BOM, dump_json, parse_json, parse_object

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=8)
"""Surrogates too."""
TEXT = st.text(max_size=8)
WORDS = TEXT.map(lambda text: f"x{text}")
NUMBER = st.floats()
COUNT = st.integers(0, 10**25)
WILD = st.sampled_from([math.nan, math.inf, -math.inf, "\ud800", "a\udfff", 2**64, -(2**63) - 1, 10**25])
ANY = st.recursive(
    WILD | st.none() | st.booleans() | st.integers(-(10**25), 10**25) | NUMBER | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=6,
)
MORE = st.dictionaries(TEXT.map(lambda name: f"more {name}"), WILD | ANY, max_size=2)
SCORES = st.dictionaries(TEXT, NUMBER, max_size=2)


def made(kind: type[Record], more: st.SearchStrategy[dict[str, Any]] = MORE, **fields: Any) -> Any:
    return st.builds(
        lambda extra, given: kind.model_validate({**extra, **given}), more, st.fixed_dictionaries(fields)
    )


def optional(strategy: Any) -> Any:
    return st.none() | strategy


INFO = made(Info, id=optional(WORDS), post=TEXT, title=optional(TEXT))
SUMMARY = made(CandidateSummary, text=TEXT, policy=TEXT, note=optional(TEXT), scores=SCORES)
LABEL = {"info": INFO, "worker": TEXT, "batch": TEXT, "split": st.sampled_from(["train", "valid1", "valid2"])}
EXTRA = made(Extra, confidence=optional(st.integers(1, 9)))
LIKERT = optional(st.integers(1, 7) | st.floats(1, 7))
AXES = made(Axes, overall=LIKERT, accuracy=LIKERT, compatible=optional(st.booleans()))
TRACE = st.integers(0, 3).flatmap(
    lambda n: made(
        TokenTrace, id=WORDS, policy=WORDS, pieces=st.lists(TEXT, min_size=n, max_size=n),
        logprob=st.lists(NUMBER, min_size=n, max_size=n),
    )
)  # fmt: skip
RECORDS: dict[type[Record], Any] = {
    Post: made(Post, id=WORDS, subreddit=TEXT, title=TEXT, post=WORDS, summary=optional(TEXT)),
    Article: made(Article, id=WORDS, article=WORDS, site=optional(TEXT)),
    Comparison: made(
        Comparison, **LABEL, summaries=st.lists(SUMMARY, min_size=2, max_size=2), choice=st.integers(0, 1),
        extra=EXTRA,
    ),
    Ranking: made(
        Ranking, **LABEL, summaries=st.lists(SUMMARY, min_size=2, max_size=2),
        rank=st.lists(st.integers(), min_size=2, max_size=2),
    ),
    Rating: made(Rating, **LABEL, summary=made(RatedSummary, text=TEXT, policy=TEXT, axes=AXES)),
    Sample: made(
        Sample, id=WORDS, policy=WORDS, text=TEXT, seed=st.integers(-(10**25), 10**25), temperature=NUMBER,
        response_ids=optional(st.lists(COUNT, max_size=3)), logprob=optional(NUMBER), scores=SCORES,
        tags=st.dictionaries(TEXT, TEXT | st.integers() | NUMBER | st.booleans(), max_size=2),
    ),
    TokenTrace: TRACE,
    Judgement: made(
        Judgement, id=WORDS, policies=st.lists(TEXT, min_size=2, max_size=2), judge=TEXT,
        verdict=st.sampled_from(["A", "B", "tie", "invalid"]), raw=optional(TEXT),
        probability=optional(st.floats(0, 1)),
    ),
}  # fmt: skip


def writable(value: Any) -> bool:
    """Whether JSON in UTF-8 has the value, within the limits of what is read."""
    if isinstance(value, dict):
        return all(writable(name) and writable(inner) for name, inner in value.items())
    if isinstance(value, list):
        return all(map(writable, value))
    if isinstance(value, str):
        return re.search("[\ud800-\udfff]", value) is None
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or -(2**63) <= value < 2**64


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_what_is_written_can_be_read(kind: type[Record], tmp_path: Path) -> None:
    written: list[Record] = []
    refused: list[Record] = []

    @settings(max_examples=40, derandomize=True)
    @given(RECORDS[kind])
    def check(record: Record) -> None:
        if not writable(record.model_dump()):
            refused.append(record)
            with pytest.raises(ValueError, match=r"^.+$"):
                record.to_json()
            return
        written.append(record)
        assert kind.model_validate(parse_object(record.to_json().encode())) == record

    check()
    assert written and refused, "the records are too tame, or too wild, to show anything"
    path = write_records(tmp_path / "rows.jsonl", written)
    assert read_records(path, kind) == written
    before = path.read_bytes()
    what = rf"rows.jsonl:2: a {kind.__name__} cannot be written: "
    with pytest.raises(RecordError, match=what):
        write_records(path, [written[0], refused[0]])
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"x": float("nan")}, "x: not a finite number: nan"),
        ({"x": [{"y": -math.inf}]}, "x: not a finite number: -inf"),
        ({"x": "\ud800"}, "x: an unpaired surrogate"),
        ({"x": {"\udfff": 1}}, "x: an unpaired surrogate"),
        ({"x": 12345678901234567890123}, "x: a number beyond 64 bits|a number beyond 64 bits"),
        ({"x": {1, 2}}, "x: JSON has no set"),
        ({"x": json.loads("[" * 150 + "]" * 150)}, "nested too deeply"),
    ],
)
def test_a_value_that_cannot_be_read_again_is_not_written(more: Any, what: str, tmp_path: Path) -> None:
    sample = Sample.model_validate({"id": "a", "policy": "p", "text": "t", **more})
    with pytest.raises(RecordError, match=rf"s.jsonl:2: a Sample cannot be written: .*({what})"):
        write_records(tmp_path / "s.jsonl", [Sample(id="a", policy="p", text="t"), sample])
    assert not (tmp_path / "s.jsonl").exists()
    with pytest.raises(RecordError, match=rf"d.json: cannot be written: .*({what})"):
        write_json(tmp_path / "d.json", {"rows": 3, **more})
    assert not list(tmp_path.glob("d.json*"))


def test_tuples_and_numbers_as_keys_are_written_as_json_has_them() -> None:
    assert parse_json(dump_json({1: "a", "b": [1, (2, 3)]}).encode()) == {"1": "a", "b": [1, [2, 3]]}


@given(ANY)
@settings(derandomize=True)
def test_json_is_written_if_and_only_if_it_can_be_read(value: Any) -> None:
    try:
        text = dump_json({"value": value})
    except ValueError:
        assert not writable(value)
        return
    assert writable(value) and parse_object(text.encode()) == {"value": value}


def test_blank_lines_and_a_byte_order_mark_alone_are_no_records(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for data in (b"", BOM, BOM + b"\n\n", b"\n"):
        path.write_bytes(data)
        assert read_records(path, Post) == []
