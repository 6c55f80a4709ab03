"""Thousands of damaged lines of every record: each is refused with its line, or is a valid record.

What is valid is decided here a second time, by hand: `SPECS` says what a field may hold, and
`damage` what no line may hold. A line is read if and only if both find it sound, and then it says what
the line said, field by field.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tldr.errors import RecordError
from tldr.records import (
    Article,
    Comparison,
    Judgement,
    Post,
    Ranking,
    Rating,
    ReadReport,
    Record,
    Sample,
    TokenTrace,
    iter_records,
    read_records,
)
from tldr.sources.filter_rules import read_candidate
from tldr.strict_json import parse_object

LINES = 1500
"""Mutated lines of each kind of record."""

Check = Callable[[Any], bool]
WHITE = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*")
MISSING = object()


def text(value: Any) -> bool:
    return isinstance(value, str)


def words(value: Any) -> bool:
    return isinstance(value, str) and not WHITE.fullmatch(value)


def whole(value: Any) -> bool:
    return type(value) is int


def count(value: Any) -> bool:
    return whole(value) and value >= 0


def number(value: Any) -> bool:
    return type(value) in (int, float)


def boolean(value: Any) -> bool:
    return type(value) is bool


def among(*values: object) -> Check:
    return lambda value: any(type(value) is type(known) and value == known for known in values)


def between(low: float, high: float, kind: Check = number) -> Check:
    return lambda value: kind(value) and low <= value <= high


def null_or(check: Check) -> Check:
    return lambda value: value is None or check(value)


def absent_or(check: Check) -> Check:
    return lambda value: value is MISSING or check(value)


def option(check: Check) -> Check:
    return absent_or(null_or(check))


def many(check: Check, least: int = 0, most: float = math.inf) -> Check:
    return lambda value: isinstance(value, list) and least <= len(value) <= most and all(map(check, value))


def mapping(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def having(also: Check = lambda value: True, **fields: Check) -> Check:
    """An object with these fields, and any others; `also` is asked about the whole."""
    return lambda value: (
        isinstance(value, dict)
        and all(check(value.get(name, MISSING)) for name, check in fields.items())
        and also(value)
    )


INFO = having(
    lambda v: v.get("post") is not None or v.get("article") is not None,
    id=option(words), subreddit=option(text), title=option(text), post=option(text),
    site=option(text), article=option(text),
)  # fmt: skip
SUMMARY = having(text=text, policy=text, note=option(text), scores=absent_or(mapping(number)))
EXTRA = absent_or(having(confidence=option(between(1, 9, whole))))
LABEL: dict[str, Check] = {"info": INFO, "worker": text, "batch": text}
SPLIT = among("train", "valid1", "valid2")
AXIS = option(between(1, 7))
POLICIES = many(text, 2, 2)
POST = {"id": words, "title": text, "summary": option(text)}


def as_long(value: dict[str, Any]) -> bool:
    others = [value.get(name) for name in ("logprob", "logprob_sft", "value", "reward")]
    return all(other is None or len(other) == len(value["pieces"]) for other in others)


SPECS: dict[type[Record], Check] = {
    Post: having(**POST, subreddit=text, post=words),
    Article: having(**POST | {"title": option(text)}, site=option(text), article=words),
    Comparison: having(**LABEL, summaries=many(SUMMARY, 2, 2), choice=among(0, 1), split=SPLIT, extra=EXTRA),
    Ranking: having(
        lambda v: len(v["rank"]) == len(v["summaries"]),
        **LABEL, summaries=many(SUMMARY, 2), rank=many(whole), split=SPLIT, extra=EXTRA,
    ),
    Rating: having(
        **LABEL,
        split=among("train", "test", "valid1", "valid2"),
        summary=having(
            text=text, policy=text, note=option(text),
            axes=having(
                overall=AXIS, accuracy=AXIS, coverage=AXIS, coherence=AXIS, compatible=option(boolean)
            ),
        ),
    ),
    Sample: having(
        id=words, policy=words, text=text, study=absent_or(text), run=absent_or(text), seed=absent_or(whole),
        temperature=absent_or(number), top_p=absent_or(number), n=absent_or(whole),
        response_ids=option(many(count)), tokens=option(count), stopped=option(boolean),
        logprob=option(number), logprob_sft=option(number), scores=absent_or(mapping(number)),
        tags=absent_or(mapping(lambda v: text(v) or number(v) or boolean(v))),
    ),
    TokenTrace: having(
        as_long,
        id=words, policy=words, run=absent_or(text), temperature=absent_or(number), pieces=many(text),
        logprob=many(number), logprob_sft=option(many(number)), value=option(many(number)),
        reward=option(many(number)),
    ),
    Judgement: having(
        id=words, policies=POLICIES, judge=text, verdict=among("A", "B", "tie", "invalid"), raw=option(text),
        order=absent_or(lambda v: many(whole)(v) and sorted(v) == [0, 1]), axis=absent_or(words),
        texts=option(POLICIES), runs=absent_or(many(text)), probability=option(between(0, 1)),
        prompt_sha=option(text),
    ),
}  # fmt: skip

ABOUT = {"id": "t3_1", "post": "a\n\nb \u2028 \U0001f6cb", "title": "t", "subreddit": "dogs"}
PAIR = [
    {"text": " one", "policy": "ref", "note": None, "scores": {"rm": 0.5}},
    {"text": "  two", "policy": "p"},
]
ASKED = {"info": ABOUT, "worker": "w", "batch": "b3", "split": "valid1"}
EXAMPLES: dict[type[Record], dict[str, Any]] = {
    Post: {**ABOUT, "summary": "s"},
    Article: {"id": "a", "site": None, "title": "t", "article": "One.", "summary": "s"},
    Comparison: {**ASKED, "summaries": PAIR, "choice": 1, "extra": {"confidence": 8}},
    Ranking: {**ASKED, "summaries": [*PAIR, PAIR[0]], "rank": [2, 1, 1], "extra": {}},
    Rating: {
        **ASKED,
        "summary": {**PAIR[0], "axes": {"overall": 7, "accuracy": None, "coverage": 1, "compatible": True}},
    },
    Sample: {
        "id": "a", "policy": "p", "text": " s", "seed": 3, "temperature": 0, "n": 2, "response_ids": [5, 0],
        "tokens": 2, "stopped": True, "logprob": -1.5, "scores": {"rm": 1, "gold": 0.5},
        "tags": {"size": "s", "params": 5, "share": 0.5, "zero": False},
    },
    TokenTrace: {"id": "a", "policy": "p", "pieces": [" a", "b"], "logprob": [-1, -0.5], "value": [0.1, 0]},
    Judgement: {
        "id": "a", "policies": ["p", "q"], "order": [1, 0], "judge": "j", "verdict": "tie",
        "texts": ["", "x"], "runs": [], "probability": 0.5, "axis": "overall",
    },
}  # fmt: skip

RAW = {
    "@nan@": "NaN", "@inf@": "-Infinity", "@big@": "1e400", "@long@": "9" * 30, "@half@": '"\\ud83d"',
    "@halfkey@": '{"\\uDC00": 1}', "@deep@": "[" * 150 + "]" * 150, "@zero@": '"\\u0000"',
}  # fmt: skip
"""What `json.dumps` would not write: put in for these texts afterwards."""
ODD = [
    None, True, False, 0, 1, -1, 2, 5, 8, 10, 0.5, 1.0, 1e10, "", " ", "\x1c", "\u2028", "x", "train", "A",
    "NaN", [], [0], [1, 0], ["x", "y"], {}, {"rm": 1}, {"text": "a"}, *RAW,
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


def changed(row: dict[str, Any], rng: random.Random) -> bytes:
    """The row with one field dropped, renamed, given twice, lengthened, or of another value."""
    row = json.loads(json.dumps(row))
    *above, key = rng.choice(list(places(row)))
    parent: Any = row
    for step in above:
        parent = parent[step]
    how = rng.choice(["drop", "replace", "replace", "replace", "rename", "twice", "more"])
    if how == "replace":
        parent[key] = rng.choice(ODD)
    elif how == "drop":
        del parent[key]
    elif isinstance(parent, list):
        parent.append(parent[key])
    elif how == "rename":
        parent[f"{key}s"] = parent.pop(key)
    elif how == "more":
        parent[f"more {key}"] = rng.choice(ODD)
    else:
        parent[f"@twice@{key}"] = rng.choice([parent[key], None])
    line = json.dumps(row, ensure_ascii=rng.random() < 0.5).replace("@twice@", "")
    for name, raw in RAW.items():
        line = line.replace(f'"{name}"', raw)
    return line.encode()


def torn(row: dict[str, Any], rng: random.Random) -> bytes:
    """The row's line with bytes flipped, dropped, put in, or cut off; always one line."""
    line = bytearray(json.dumps(row, ensure_ascii=rng.random() < 0.5).encode())
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(len(line))
        how = rng.randrange(4)
        if how == 0:
            line[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            del line[at : at + rng.choice((1, 1, 20))]
        elif how == 2:
            line[at:at] = rng.choice(
                [b"\xff", b"\x00", b"\xef\xbb\xbf", b"\xed\xa0\x80", b'"', b"{", b",", b"0", b"\\"]
            )
        else:
            del line[at + 1 :]
        if not line:
            break
    return bytes(line).replace(b"\n", b" ").replace(b"\r", b" ")


def sound(line: bytes) -> dict[str, Any] | None:
    """The line's object, or None if it says something that must not be read."""
    found: list[bool] = []

    def walk(pairs: Any, level: int = 0) -> Any:
        found.append(level > 100)
        if isinstance(pairs, Pairs):
            keys = [key for key, _ in pairs]
            found.append(len(set(keys)) < len(keys) or any(half(key) for key in keys))
            return {key: walk(value, level + 1) for key, value in pairs}
        if isinstance(pairs, list):
            return [walk(value, level + 1) for value in pairs]
        found.append(isinstance(pairs, float) and not math.isfinite(pairs))
        found.append(type(pairs) is int and not -(2**63) <= pairs < 2**64)
        found.append(isinstance(pairs, str) and half(pairs))
        return pairs

    try:
        value = walk(json.loads(line.decode(), object_pairs_hook=Pairs))
    except ValueError:
        return None
    return value if isinstance(value, dict) and not any(found) else None


class Pairs(list[tuple[str, Any]]):
    """An object's pairs, told apart from a list."""


def half(value: str) -> bool:
    return re.search("[\ud800-\udfff]", value) is not None


@pytest.mark.parametrize("kind", SPECS, ids=lambda kind: kind.__name__)
def test_a_damaged_line_is_refused_or_says_what_it_said(kind: type[Record], tmp_path: Path) -> None:
    rng = random.Random(kind.__name__)
    example = EXAMPLES[kind]
    assert SPECS[kind](example)
    lines = [rng.choice((changed, changed, torn))(example, rng) for _ in range(LINES)]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(lines))
    report = ReadReport(path)
    read = iter(read_records(path, kind, on_error="skip", report=report))
    bad = {int(entry.removeprefix(f"{path}:").split(":")[0]): entry for entry in report.bad}
    assert len(bad) == len(report.bad) and report.good + len(bad) == sum(bool(line.strip()) for line in lines)
    assert LINES / 20 < report.good < LINES / 2, "the mutations are too mild, or too hard, to show anything"
    for place, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        value = sound(line)
        valid = value is not None and SPECS[kind](value)
        assert valid == (place not in bad), f"{line!r}: {bad.get(place, 'was read')}"
        if valid:
            record = next(read)
            assert record.model_dump(exclude_unset=True) == value, line
            assert parse_object(record.to_json().encode()) == value, line
    assert not list(read)
    for place in sorted(bad)[:: len(bad) // 5]:
        alone = tmp_path / "alone.jsonl"
        alone.write_bytes(json.dumps(example).encode() + b"\n\n" + lines[place - 1])
        with pytest.raises(RecordError, match=r"alone\.jsonl:3: not a "):
            list(iter_records(alone, kind))


def test_a_damaged_row_of_the_raw_dump_is_refused_or_says_what_it_said() -> None:
    rng = random.Random(0)
    row = {
        "id": "1",
        "subreddit": "s",
        "title": "t",
        "body": "b",
        "content": "c",
        "summary": None,
        "n": {"x": 1},
    }
    spec = having(
        id=lambda v: text(v) and v != "", subreddit=text, body=text, title=option(text), content=option(text),
        summary=option(text),
    )  # fmt: skip
    good = 0
    for _ in range(LINES):
        line = rng.choice((changed, torn))(row, rng)
        value = sound(line)
        try:
            found = read_candidate(parse_object(line))
        except ValueError as error:
            assert value is None or not spec(value), f"{line!r}: {error}"
            continue
        assert value is not None and spec(value), line
        assert (found.id, found.body, found.title) == (value["id"], value["body"], value.get("title") or "")
        good += 1
    assert LINES / 20 < good < LINES / 2


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'{"id": "a", "id": "b"}', "the key 'id' occurs twice"),
        (b'{"id": NaN}', "not a finite number: NaN"),
        (b'{"x": -1e999}', "not a finite number: -1e999"),
        (b'{"x": 18446744073709551616}', "beyond 64 bits"),
        (b'{"x": [{"y": "\\ud800"}]}', "x: an unpaired surrogate"),
        (b'{"\\uDFFF": 1}', "an unpaired surrogate"),
        (b'{"x": ' + b"[" * 150 + b"]" * 150 + b"}", "nested too deeply"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\xef\xbb\xbf{}", "broken JSON"),
    ],
)
def test_trap_pythons_json_reads_what_is_no_json(line: bytes, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        parse_object(line)


def test_limits_are_the_last_that_pass() -> None:
    deep = (
        b'{"x": '
        + b"[" * 99
        + b"]" * 99
        + b', "y": "\\ud83d\\udecb", "z": [18446744073709551615, -9223372036854775808]}'
    )
    found = parse_object(deep)
    assert found["y"] == "\U0001f6cb" and found["z"] == [2**64 - 1, -(2**63)]
