"""Reading the raw dump as a stream: plain, .gz, .bz2, .zst, or a member of a .zip."""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from tldr.errors import UsageError

MEMBER = "::"
"""``dump.zip::posts.json`` names a member of an archive that holds several."""


@dataclass(frozen=True)
class Chunk:
    """Whole lines of one file and their position in it.

    Attributes:
        data: the lines' bytes.
        first_line: number of the first line, from 1.
        end: offset after them in the decompressed stream.
        read: bytes of the file on disk read so far, for progress.
    """

    data: bytes
    first_line: int
    end: int
    read: int


def split_name(name: str | Path) -> tuple[Path, str | None]:
    """The file on disk and the archive member, if one is named."""
    path, _, member = str(name).partition(MEMBER)
    return Path(path), member or None


def check_input(name: str | Path) -> Path:
    """The file on disk, after a check that it can be opened.

    Raises:
        UsageError: no such file or member, an ambiguous archive, or zstandard is not installed.
    """
    with _open(name):
        return split_name(name)[0]


@contextmanager
def _open(name: str | Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The decompressed stream, and the file on disk below it."""
    path, member = split_name(name)
    if not path.is_file():
        raise UsageError("no such file", where=path, remedy="check the path")
    with path.open("rb") as disk:
        if path.suffix == ".gz":
            with gzip.open(disk) as stream:
                yield cast(IO[bytes], stream), disk
        elif path.suffix == ".bz2":
            with bz2.open(disk) as stream:
                yield stream, disk
        elif path.suffix == ".zst":
            with _zstandard(path).ZstdDecompressor().stream_reader(disk, read_across_frames=True) as raw:
                yield io.BufferedReader(raw, 1 << 20), disk
        elif path.suffix == ".zip":
            with zipfile.ZipFile(disk) as archive, archive.open(_member(archive, path, member)) as stream:
                yield stream, disk
        else:
            yield disk, disk


def _zstandard(path: Path):  # type: ignore[no-untyped-def]  # the module, which has no common type
    try:
        return importlib.import_module("zstandard")
    except ImportError:
        raise UsageError(
            "reading .zst needs the package zstandard", where=path, remedy="pip install 'tldr-feedback[zst]'"
        ) from None


def _member(archive: zipfile.ZipFile, path: Path, member: str | None) -> str:
    names = [
        n for n in archive.namelist() if n.endswith((".json", ".jsonl")) and not n.startswith("__MACOSX")
    ]
    if member is not None and member in archive.namelist():
        return member
    if member is None and len(names) == 1:
        return names[0]
    what = f"no member '{member}'" if member else f"{len(names)} .json/.jsonl members"
    raise UsageError(
        f"{what} in the archive, which holds {', '.join(names[:5]) or 'none'}",
        where=path,
        remedy=f"name one: {path.name}{MEMBER}MEMBER",
    )


def _skip(stream: IO[bytes], count: int) -> None:
    """Skip bytes by reading them, as not every compressed stream can seek."""
    while count:
        if not (data := stream.read(min(count, 1 << 20))):
            raise EOFError("the file is shorter than it was")
        count -= len(data)


def read_chunks(name: str | Path, size: int, start: int = 0, first_line: int = 1) -> Iterator[Chunk]:
    """Yield the file's lines in chunks of about `size` bytes that end at line ends.

    Args:
        start, first_line: where to resume in the decompressed stream (the start of a line).

    Raises:
        UsageError: see `check_input`; or the compressed data is broken or ends too early.
    """
    path = split_name(name)[0]
    try:
        with _open(name) as (stream, disk):
            _skip(stream, start)
            end = start
            while data := stream.read(size):
                data += stream.readline()
                end += len(data)
                yield Chunk(data, first_line, end, disk.tell())
                first_line += data.count(b"\n")
    except (EOFError, OSError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"cannot be read to its end: {error}", where=path, remedy="the file is damaged: download it again"
        ) from error
