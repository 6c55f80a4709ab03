"""Damaged packed files: refused by name, or read as what was packed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tests.fuzz.mutate import COUNTS, mutated
from tldr.errors import UsageError
from tldr.records import Post, ReadReport, make_records
from tldr.sources.hub.layout import iter_rows, parse_fields
from tldr.sources.raw import read_chunks

PAYLOAD = b"".join(b'{"id": "%d", "post": "%s"}\n' % (n, bytes([97 + n % 26]) * (n % 40)) for n in range(40))
BOM = b"\xef\xbb\xbf"


def zipped(method: int) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        archive.writestr(zipfile.ZipInfo("a.json"), PAYLOAD, method)
    return target.getvalue()


def zst(*, checksum: bool) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=checksum).compress(PAYLOAD)


CHECKED: dict[str, bytes] = {
    "gz": gzip.compress(PAYLOAD, mtime=0),
    "bz2": bz2.compress(PAYLOAD),
    "xz": lzma.compress(PAYLOAD),
    "zst": zst(checksum=True),
    "zip": zipped(zipfile.ZIP_DEFLATED),
    "stored.zip": zipped(zipfile.ZIP_STORED),
    "bz2.zip": zipped(zipfile.ZIP_BZIP2),
    "lzma.zip": zipped(zipfile.ZIP_LZMA),
}
"""Formats with a checksum of the content."""


def read(path: Path) -> bytes | None:
    """What is read; None if the file is refused by its name, with a remedy."""
    try:
        return b"".join(chunk.data for chunk in read_chunks(path, 500))
    except UsageError as error:
        assert error.where == str(path) and error.remedy and "\n" not in error.what, error
        return None


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", CHECKED)
def test_a_damaged_archive_is_refused_or_whole(kind: str, count: int, tmp_path: Path) -> None:
    rng, packed = random.Random(f"{kind} {count}"), CHECKED[kind]
    path = tmp_path / f"dump.json.{kind}"
    seen: Counter[str] = Counter()
    for _ in range(count):
        damaged = mutated(packed, rng)
        path.write_bytes(damaged)
        found = read(path)
        if found is None:
            seen["refused"] += 1
            continue
        seen["read"] += 1
        whole = found == PAYLOAD
        again = kind in ("gz", "bz2", "xz", "zst") and found == PAYLOAD * 2  # the file twice in a row
        assert whole or again or (found == b"" and _is_empty(kind, damaged)), damaged
        assert len(damaged) >= len(packed) or kind.endswith("zip") or kind == "gz", "a truncation passed"
    assert seen["refused"] > count / 2
    print(kind, dict(seen))


def _is_empty(kind: str, data: bytes) -> bool:
    """Whether the library itself finds a whole, empty stream in the data."""
    return kind in OPEN and OPEN[kind](data) == b""


OPEN: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.decompress,
    "bz2": bz2.decompress,
    "xz": lzma.decompress,
}


@pytest.mark.parametrize("kind", CHECKED)
def test_no_truncation_passes(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"dump.json.{kind}"
    for length in range(0, len(CHECKED[kind]), max(1, len(CHECKED[kind]) // 150)):
        path.write_bytes(CHECKED[kind][:length])
        assert read(path) is None, length


@pytest.mark.parametrize("count", COUNTS)
def test_zstd_without_a_checksum_reads_what_zstd_reads(count: int, tmp_path: Path) -> None:
    """The oracle unpacks whole frames at once, which is another function of the library."""
    rng, packed = random.Random(count), zst(checksum=False)
    path = tmp_path / "dump.json.zst"
    oracle = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    for _ in range(count):
        damaged = mutated(packed, rng)
        path.write_bytes(damaged)
        found = read(path)
        try:
            expected = oracle.decompress(damaged, 1 << 20, allow_extra_data=False)
        except (zstandard.ZstdError, MemoryError):  # a length that no memory holds
            expected = None
        if expected is not None and found is not None:
            assert found == expected.removeprefix(BOM), damaged
        elif found is not None:  # several frames, of which the oracle reads one
            assert found.startswith(PAYLOAD) or found == b"", damaged
        else:
            assert expected is None, damaged


@pytest.mark.parametrize("count", COUNTS)
def test_plain_text_is_read_byte_for_byte(count: int, tmp_path: Path) -> None:
    rng, path = random.Random(count), tmp_path / "dump.json"
    for _ in range(count):
        damaged = mutated(PAYLOAD, rng)
        path.write_bytes(damaged)
        assert read(path) == damaged.removeprefix(BOM)


ROWS = {
    "id": [str(n) for n in range(30)],
    "subreddit": ["s"] * 30,
    "title": [f"title {n}" for n in range(30)],
    "post": ["a post of some length " * (n % 4 + 1) for n in range(30)],
    "score": [n / 3 for n in range(30)],
}


@pytest.mark.parametrize("count", COUNTS)
def test_a_damaged_parquet_file_is_refused_by_its_name(count: int, tmp_path: Path) -> None:
    """Only pages have checksums; a changed footer may give other columns, yet never another error."""
    rng, path = random.Random(count), tmp_path / "train.parquet"
    pq.write_table(pa.table(ROWS), path, write_page_checksum=True, compression="snappy")
    whole = path.read_bytes()
    refused = 0
    for _ in range(count):
        damaged = mutated(whole, rng)
        path.write_bytes(damaged)
        report = ReadReport(path)
        try:
            rows = list(
                make_records(
                    iter_rows(path),
                    lambda row: Post.model_validate(parse_fields(row)),
                    "post",
                    on_error="skip",
                    report=report,
                )
            )
        except UsageError as error:
            assert error.where == str(path) and "\n" not in error.what
            refused += 1
            continue
        assert all(row.to_json() for row in rows)
    assert refused > count / 3
    print("parquet refused", refused)


def test_no_truncation_of_a_parquet_file_passes(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table(ROWS), path, write_page_checksum=True)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(UsageError, match=r"train.parquet: not a Parquet file, or a damaged one"):
            list(iter_rows(path))
