"""The layout of published folders: which files belong to which split, and their rows.

::

    comparisons/batch3.json, tldr_3_filtered/train.jsonl     OpenAI's files: the path without its suffix
    data/train-00000-of-00002-<hash>.parquet                 the hub's: shards of one split
    comparisons/train/0000.parquet                           the hub's converted Parquet
    corpus-webis-tldr-17.zip                                 a dump, in any form that the filter reads
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tldr.errors import UsageError
from tldr.sources.archive import PACKED
from tldr.sources.raw import read_chunks
from tldr.strict_json import check_tree, parse_object

LINES = (".jsonl", ".json")
SUFFIXES = (".parquet", ".zip", *LINES, *(line + packed for line in LINES for packed in PACKED))

PARQUET_DAMAGE = (pa.ArrowException, OSError, ValueError)
"""What pyarrow raises at a file that it cannot read; a ValueError is text that is not UTF-8."""
BATCH_ROWS = 1_000
CHUNK_BYTES = 1 << 20

_SHARD = re.compile(r"(?P<split>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})(?:-[0-9a-f]+)?$")
_TOP = ("data", "dataset", "datasets", "default")
"""Top-level folders that are not part of a split's name."""

RawData = Any
"""A row as stored in its file: the bytes of a line, or the fields of a Parquet row."""
LocatedRow = tuple[str, RawData]
"""A row's position (``file:line`` or ``file:row``), and the row."""


def is_data(path: str) -> bool:
    """Whether a file may hold rows, by its name."""
    return path.endswith(SUFFIXES) and not any(part.startswith(".") for part in PurePosixPath(path).parts)


def split_name(path: str) -> str:
    """The split a file belongs to: ``data/train-00000-of-00001.parquet`` -> ``train``."""
    suffix = max((s for s in SUFFIXES if path.endswith(s)), key=len, default="")
    parts = list(PurePosixPath(path.removesuffix(suffix)).parts)
    while len(parts) > 1 and parts[0] in _TOP:
        parts.pop(0)
    if len(parts) > 1 and parts[-1].isdigit():
        parts.pop()
    if shard := _SHARD.match(parts[-1]):
        parts[-1] = shard["split"]
    return "/".join(parts)


def by_split(paths: Iterable[str]) -> dict[str, list[str]]:
    """Split -> its files in order. JSON lines take precedence over Parquet."""
    splits: dict[str, list[str]] = {}
    for path in sorted(paths):
        splits.setdefault(split_name(path), []).append(path)
    for split, files in splits.items():
        lines = [path for path in files if not path.endswith(".parquet")]
        splits[split] = lines or files
    return splits


def check_shards(paths: Iterable[str], where: str | Path) -> None:
    """Refuse a split with a missing shard (``-00000-of-00003`` gives their number).

    Raises:
        UsageError: naming the missing shards.
    """
    shards: dict[tuple[str, int], set[int]] = {}
    for path in paths:
        if shard := _SHARD.match(path.removesuffix(".parquet")):
            shards.setdefault((shard["split"], int(shard["total"])), set()).add(int(shard["number"]))
    for (split, total), numbers in shards.items():
        if lacking := sorted(set(range(total)) - numbers):
            names = ", ".join(f"{split}-{number:05}-of-{total:05}" for number in lacking[:3])
            raise UsageError(
                f"{len(lacking)} of {total} shards are missing: {names}", where=where, remedy="fetch them too"
            )


def columns(path: Path) -> list[str]:
    """The field names of a file, from its schema or its first good line; none if it holds no rows."""
    try:
        if path.suffix == ".parquet":
            return list(pq.read_schema(path).names)
    except PARQUET_DAMAGE as error:
        raise _broken(path, error) from None
    for _, line in islice(iter_rows(path), 100):
        try:
            return list(parse_object(line))
        except ValueError:
            continue
    return []


def iter_rows(path: Path) -> Iterator[LocatedRow]:
    """The rows of a file, without blank lines, in bounded memory.

    Raises:
        UsageError: the file is missing or broken.
    """
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
        return
    for chunk in read_chunks(path, CHUNK_BYTES):
        for number, line in enumerate(chunk.data.split(b"\n"), start=chunk.first_line):
            if line.strip():
                yield f"{path}:{number}", line


def _parquet_rows(path: Path) -> Iterator[LocatedRow]:
    number = 0
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(BATCH_ROWS, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", row
    except PARQUET_DAMAGE as error:
        raise _broken(path, error) from None


def _broken(path: Path, error: Exception) -> UsageError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    what = f"not a Parquet file, or a damaged one: {reason}"
    return UsageError(what, where=path, remedy="remove it and fetch it again")


def parse_fields(row: Any) -> Mapping[str, Any]:
    """The fields of a row that `iter_rows` yields; NaN in a Parquet row, pandas' missing number, is null.

    Raises:
        ValueError: with a one-line reason, for a line that holds no JSON object, or a Parquet row with a
            value that JSON does not have.
    """
    if isinstance(row, bytes):
        return parse_object(row)
    fields: dict[str, Any] = _without_nan(row)
    check_tree(fields)
    return fields


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
