"""Reading the raw dump as a stream of whole lines, from any file that `tldr.sources.archive` opens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tldr.sources.archive import naming_damage, open_file, split_member
from tldr.strict_json import BOM


@dataclass(frozen=True)
class Chunk:
    """Whole lines of one file and their position in it.

    Attributes:
        data: the lines' bytes; a byte order mark at the file's start is left out.
        first_line: number of the first line, from 1.
        end: offset after them in the decompressed stream.
        read: bytes of the file on disk read so far, for progress.
    """

    data: bytes
    first_line: int
    end: int
    read: int


def check_input(name: str | Path) -> Path:
    """The file on disk, after a check that it can be opened.

    Raises:
        UsageError: no such file or member, an archive that cannot be read, or zstandard is not installed.
    """
    path = split_member(name)[0]
    with naming_damage(path), open_file(name):
        return path


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
        UsageError: see `check_input`; or the compressed data is broken, ends too early, or something else
            follows it.
    """
    with naming_damage(split_member(name)[0]), open_file(name) as file:
        _skip(file.stream, start)
        end = start
        while data := file.stream.read(size):
            data += file.stream.readline()
            whole = len(data)
            if end == 0:
                data = data.removeprefix(BOM)
            end += whole
            yield Chunk(data, first_line, end, file.disk.tell())
            first_line += data.count(b"\n")
        file.check_length(end)
