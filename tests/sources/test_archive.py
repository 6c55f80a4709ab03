"""Packed files: whole data is read, and whatever is cut, damaged or followed by something else is refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tldr.errors import RecordError, UsageError
from tldr.records import Post, ReadReport, read_records
from tldr.sources.archive import INPUT_BYTES
from tldr.sources.hub.fetch import fetch
from tldr.sources.hub.layout import iter_rows
from tldr.sources.hub.load import open_source
from tldr.sources.raw import check_input, read_chunks

BOM = b"\xef\xbb\xbf"
POST = b'{"id": "%d", "subreddit": "s", "title": "t", "post": "p"}\n'
LINES = b"".join(b'{"id": "%d", "text": "%d"}\n' % (n, n * n) for n in range(400))


def zst(data: bytes, **options: bool) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)


def long_zst(data: bytes) -> bytes:
    """As ``zstd --long=31`` compresses a stream whose length it does not know."""
    parameters = zstandard.ZstdCompressionParameters(window_log=31, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return packer.compress(data) + packer.flush()


def zipped(data: bytes, method: int = zipfile.ZIP_DEFLATED, name: str = "a.json") -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        archive.writestr(zipfile.ZipInfo(name), data, method)
    return target.getvalue()


PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zst, "zip": zipped,
}  # fmt: skip
STREAMS = ("gz", "bz2", "xz", "zst")


def read(path: Path, size: int = 1000) -> bytes:
    return b"".join(chunk.data for chunk in read_chunks(path, size))


def written(folder: Path, kind: str, data: bytes) -> Path:
    path = folder / f"dump.jsonl.{kind}"
    path.write_bytes(data)
    return path


def refused(path: Path, what: str = "cannot be read to its end") -> None:
    with pytest.raises(UsageError, match=what) as caught:
        read(path)
    assert caught.value.where == str(path) and caught.value.remedy


@pytest.mark.parametrize("kind", PACK)
def test_a_cut_file_is_never_whole(kind: str, tmp_path: Path) -> None:
    packed = PACK[kind](LINES)
    for length in [0, 1, 3, 4, 10, *range(len(packed) // 3, len(packed), 97), len(packed) - 1]:
        refused(written(tmp_path, kind, packed[:length]))


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("more", [b"x", b"garbage", b"\0\0x", b"(\xb5/", b"BZ", b"\x1f\x8b"])
def test_what_follows_the_data_is_refused(kind: str, more: bytes, tmp_path: Path) -> None:
    refused(written(tmp_path, kind, PACK[kind](LINES) + more))


@pytest.mark.parametrize("kind", STREAMS)
def test_streams_follow_one_another(kind: str, tmp_path: Path) -> None:
    parts = [LINES[:777], b"", LINES[777:]]
    packed = [PACK[kind](part) for part in parts]
    assert read(written(tmp_path, kind, b"".join(packed))) == LINES
    refused(written(tmp_path, kind, b"".join(packed)[:-1]))
    refused(written(tmp_path, kind, b"".join([packed[0], packed[1][1:], packed[2]])))


@pytest.mark.parametrize(("kind", "zeros", "right"), [
    ("gz", 1, True), ("gz", 2 * INPUT_BYTES, True), ("xz", 4, True), ("xz", 3 * INPUT_BYTES, True),
    ("xz", 3, False), ("bz2", 4, False), ("zst", 4, False), ("zip", 4, False),
])  # fmt: skip
def test_zeros_follow_only_where_the_format_has_padding(
    kind: str, zeros: int, right: bool, tmp_path: Path
) -> None:
    path = written(tmp_path, kind, PACK[kind](LINES) + bytes(zeros))
    if not right:
        refused(path)
        return
    assert read(path) == LINES
    if kind != "zip":
        path.write_bytes(path.read_bytes() + PACK[kind](LINES))
        assert read(path) == LINES * 2


def test_zstd_as_reddit_dumps_are_made(tmp_path: Path) -> None:
    """Many frames, skippable ones among them, and a window of 2 GiB."""
    skipped = b"\x50\x2a\x4d\x18" + struct.pack("<I", 3) + b"abc"
    frames = [skipped, zst(LINES, write_checksum=True), skipped, long_zst(LINES), skipped]
    assert zstandard.get_frame_parameters(frames[3]).window_size == 1 << 31
    assert read(written(tmp_path, "zst", b"".join(frames))) == LINES * 2
    refused(written(tmp_path, "zst", b"".join(frames)[:-1]))
    flipped = bytearray(frames[1])
    flipped[-1] ^= 1  # the checksum
    refused(written(tmp_path, "zst", bytes(flipped)))


def test_a_line_longer_than_all_buffers_is_read(tmp_path: Path) -> None:
    long = b'"' + bytes(range(97, 123)) * 50_000 + b'"\n'
    for kind in ("gz", "zst"):
        assert read(written(tmp_path, kind, PACK[kind](long + b"{}"))) == long + b"{}"


def damaged(kind: str) -> bytes:
    """A file with a fault that its library reports by an error of its own."""
    packed = bytearray(PACK[kind](LINES))
    packed[len(packed) // 2 : len(packed) // 2 + 8] = b"\xff" * 8
    return bytes(packed)


@pytest.mark.parametrize("kind", PACK)
def test_damaged_data_names_the_file_and_the_remedy(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path, kind, damaged(kind))
    refused(path)
    with pytest.raises(UsageError, match=r"dump.jsonl"):
        list(iter_rows(path))


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_fetch_names_a_damaged_file(kind: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    rows = b"".join(POST % n for n in range(300))
    packed = PACK[kind](rows)
    (source / f"train.jsonl.{kind}").write_bytes(packed[:-5])
    with pytest.raises(UsageError, match=rf"train.jsonl.{kind}: cannot be read to its end"):
        fetch(open_source(str(source)), None, tmp_path / "out")
    assert not (tmp_path / "out" / "train.jsonl").exists()


def changed_zip(data: bytes, central: int, value: bytes) -> bytes:
    """A zip file with bytes of its central directory's only entry replaced."""
    at = data.index(b"PK\1\2") + central
    return data[:at] + value + data[at + len(value) :]


METHOD, FLAGS, CRC, SIZE = 10, 8, 16, 24


@pytest.mark.parametrize(
    ("archive", "what"),
    [
        (changed_zip(zipped(LINES), METHOD, b"\x09\0"), "is compressed by deflate64, which"),
        (changed_zip(zipped(LINES), METHOD, b"\x2a\0"), "is compressed by method 42, which"),
        (changed_zip(zipped(LINES), FLAGS, b"\1\0"), "the member a.json is encrypted"),
        (changed_zip(zipped(LINES), CRC, b"abcd"), "Bad CRC-32"),
        (changed_zip(zipped(LINES), SIZE, struct.pack("<I", len(LINES) + 1)), "its directory says"),
        (changed_zip(zipped(LINES), SIZE, struct.pack("<I", len(LINES) - 1)), "Bad CRC-32"),
        (b"no zip at all", "File is not a zip file"),
    ],
)
def test_zip_files_that_cannot_be_read_say_why(archive: bytes, what: str, tmp_path: Path) -> None:
    path = written(tmp_path, "zip", archive)
    refused(path, what)
    if not what.startswith(("Bad CRC", "its directory")):
        with pytest.raises(UsageError, match=what):
            check_input(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_methods_that_python_has_are_read(method: int, tmp_path: Path) -> None:
    data = zipped(LINES, method)
    assert read(written(tmp_path, "zip", data)) == LINES
    middle = len(data) // 3
    refused(written(tmp_path, "zip", data[:middle] + bytes(9) + data[middle + 9 :]))


def test_a_zip_comment_is_no_garbage_and_equal_members_are_ambiguous(tmp_path: Path) -> None:
    path = written(tmp_path, "zip", zipped(LINES))
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"made by a test"
    assert read(path) == LINES
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a.json", "{}")
    with pytest.raises(UsageError, match=r"2 times the member 'a\.json'"):
        next(read_chunks(f"{path}::a.json", 10))


def test_gzip_checks_length_and_sum(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(LINES))
    for at in (-1, -8):  # the length, the checksum
        damaged = bytearray(packed)
        damaged[at] ^= 1
        refused(written(tmp_path, "gz", bytes(damaged)))
    assert zlib.crc32(LINES) == struct.unpack("<I", packed[-8:-4])[0]


@pytest.mark.parametrize("kind", ["plain", *PACK])
def test_a_byte_order_mark_is_read_at_the_start_alone(kind: str, tmp_path: Path) -> None:
    data = BOM + LINES + BOM + LINES
    path = written(tmp_path, kind, PACK.get(kind, bytes)(data))
    assert read(path) == LINES + BOM + LINES
    first, *_, last = read_chunks(path, 1000)
    assert len(first.data) + 3 == first.end and last.end == len(data)
    second = next(read_chunks(path, 1000, first.end, first.data.count(b"\n") + 1))
    assert first.data + second.data == (LINES + BOM + LINES)[: second.end - 3]


def test_skip_keeps_the_first_row_behind_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "posts.jsonl"
    path.write_bytes(BOM + POST % 1 + BOM + POST % 2 + POST % 3)
    report = ReadReport(path)
    rows = read_records(path, Post, on_error="skip", report=report)
    assert [row.id for row in rows] == ["1", "3"] and len(report.bad) == 1
    with pytest.raises(RecordError, match=r"posts.jsonl:2: "):
        read_records(path, Post)
    fetched = fetch(open_source(str(tmp_path)), None, tmp_path / "out", on_error="skip")
    assert (fetched.splits[0].rows, len(fetched.splits[0].bad)) == (3, 1)


def parquet(folder: Path, **columns: object) -> Path:
    table = {"id": ["a", "b"], "subreddit": ["s", "s"], "title": ["t", "t"], "post": ["p", "p"], **columns}
    path = folder / "source" / "train.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(table), path, write_page_checksum=True)
    return path


def test_nan_in_a_parquet_column_is_null(tmp_path: Path) -> None:
    parquet(
        tmp_path, score=[float("nan"), 1.5], more=[[0.5, float("nan")], None], deep=[{"x": float("nan")}] * 2
    )
    fetch(open_source(str(tmp_path / "source")), None, tmp_path / "out")
    first, second = read_records(tmp_path / "out" / "train.jsonl", Post)
    assert first.model_extra == {"score": None, "more": [0.5, None], "deep": {"x": None}}
    assert second.model_extra is not None and second.model_extra["score"] == 1.5


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (pa.array([1.0, float("inf")]), "x: not a finite number: inf"),
        (pa.array([0, 10**15], pa.timestamp("us")), "x: JSON has no datetime"),
        (pa.array([b"\xff", None], pa.binary()), "x: JSON has no bytes"),
    ],
)
def test_a_parquet_value_that_json_lacks_is_a_bad_row(values: pa.Array, what: str, tmp_path: Path) -> None:
    parquet(tmp_path, x=values)
    with pytest.raises(RecordError, match=rf"train.parquet:\d: not a post: {what}"):
        fetch(open_source(str(tmp_path / "source")), None, tmp_path / "out")
    fetched = fetch(open_source(str(tmp_path / "source")), None, tmp_path / "out", on_error="skip")
    assert fetched.splits[0].rows == 2


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    path = parquet(tmp_path, note=["some text that is long enough", "to be found in the file"])
    whole = path.read_bytes()
    at = whole.index(b"to be found")
    for data in (
        whole[:-1],
        whole[: len(whole) // 2],
        whole[4:],
        b"PAR1",
        whole[:at] + b"T" + whole[at + 1 :],
    ):
        path.write_bytes(data)
        with pytest.raises(UsageError, match=r"train.parquet: not a Parquet file, or a damaged one"):
            list(iter_rows(path))
