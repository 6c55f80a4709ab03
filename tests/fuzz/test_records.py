"""Damaged files of records: as the lines' own test, at more seeds, and as whole files."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.mutate import COUNTS, mutated
from tests.sources.test_mutations import EXAMPLES, SPECS, changed, sound, torn
from tldr.errors import RecordError
from tldr.records import ReadReport, Record, read_records

BOM = b"\xef\xbb\xbf"
KINDS = list(SPECS)


def expected(lines: list[bytes], kind: type[Record]) -> dict[int, dict[str, Any] | None]:
    """The object of each line that is not blank, None where it is no record."""
    found: dict[int, dict[str, Any] | None] = {}
    for number, line in enumerate(lines, start=1):
        line = line.removeprefix(BOM) if number == 1 else line
        if line.strip():
            value = sound(line)
            found[number] = value if value is not None and SPECS[kind](value) else None
    return found


def check(path: Path, kind: type[Record]) -> tuple[int, int]:
    """Read a file with either choice for bad lines and compare with the oracle; lines good and bad."""
    wanted = expected(path.read_bytes().split(b"\n"), kind)
    report = ReadReport(path)
    rows = read_records(path, kind, on_error="skip", report=report)
    good = [value for value in wanted.values() if value is not None]
    assert [row.model_dump(exclude_unset=True) for row in rows] == good
    bad = [number for number, value in wanted.items() if value is None]
    assert [int(entry.removeprefix(f"{path}:").split(":")[0]) for entry in report.bad] == bad
    if bad:
        with pytest.raises(RecordError) as caught:
            read_records(path, kind)
        assert str(caught.value.where) == f"{path}:{bad[0]}" and caught.value.remedy
    else:
        assert read_records(path, kind) == rows
    return len(good), len(bad)


@pytest.mark.parametrize("count", COUNTS)
def test_a_damaged_file_of_records_is_read_line_by_line(count: int, tmp_path: Path) -> None:
    """Files of three lines, of every kind in turn: bytes changed anywhere, line ends and marks among them."""
    rng, path = random.Random(count), tmp_path / "rows.jsonl"
    good = bad = 0
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        rows = [json.dumps(EXAMPLES[kind], ensure_ascii=rng.random() < 0.5).encode() for _ in range(3)]
        if rng.random() < 0.3:
            rows[rng.randrange(3)] = rng.choice((changed, torn))(EXAMPLES[kind], rng)
        whole = rng.choice((b"", b"", BOM)) + b"\n".join(rows) + rng.choice((b"", b"\n", b"\r\n", b"\n\n"))
        path.write_bytes(mutated(whole, rng))
        right, wrong = check(path, kind)
        good, bad = good + right, bad + wrong
    assert good > count and bad > count / 2
    print("records", {"files": count, "good lines": good, "bad lines": bad})
