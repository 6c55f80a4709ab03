"""Opening a file as a stream of its unpacked bytes: plain, .gz, .bz2, .xz, .zst, or a member of a .zip.

Damaged data never passes for whole data. The libraries' own streams do not ensure that: zstandard's takes the
end of a cut file for the end of the data, and those of bz2, lzma and zipfile ignore what follows the data.
"""

from __future__ import annotations

import bz2
import importlib
import io
import lzma
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from tldr.errors import UsageError

MEMBER = "::"
"""``dump.zip::posts.json`` names a member of an archive that holds several."""
PACKED = (".gz", ".bz2", ".xz", ".zst")
"""Suffixes of files that hold one compressed file."""
INPUT_BYTES = 4096
"""Compressed bytes that are unpacked at a time: the densest possible 4 KiB unpack to some 100 MB."""
LONGEST_WINDOW = 1 << 31
"""Bytes that a zstd frame may refer back to: as made with ``--long=31``, which is beyond zstd's default."""
ZIP_END_BYTES = 22
ENCRYPTED = 1
"""The bit of a zip member's flags that says so."""
METHODS = {9: "deflate64", 93: "zstd", 95: "xz", 98: "ppmd"}
"""Names of compression methods of zip that Python may lack."""
DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,
    MemoryError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)
"""What the libraries raise at damaged data."""
DAMAGED = "the file is damaged: download it again, and compare its size or checksum with its source's"
UNPACK = "unpack it with another program, and give the unpacked file"


class Decompressor(Protocol):
    """Unpacks one compressed stream."""

    @property
    def eof(self) -> bool:
        """Whether the stream's end was reached."""

    @property
    def unused_data(self) -> bytes:
        """What followed the end in the data given."""

    def decompress(self, data: bytes, /) -> bytes:
        """The next bytes."""


@dataclass(frozen=True)
class OpenedFile:
    """An open file.

    Attributes:
        stream: its unpacked bytes.
        disk: the file on disk below `stream`.
        length: bytes that `stream` must have, where the archive says so.
    """

    stream: IO[bytes]
    disk: IO[bytes]
    length: int | None = None

    def check_length(self, end: int) -> None:
        """Compare the bytes read with the length that the archive states.

        Raises:
            EOFError: they differ.
        """
        if self.length is not None and end != self.length:
            raise EOFError(f"it holds {end:,} bytes, but its directory says {self.length:,}")


class _Streams(io.RawIOBase):
    """The unpacked bytes of a file that consists of compressed streams, one after the other.

    Args:
        begin: makes the decompressor of the next stream.
        padding: zero bytes may follow a stream, in multiples of this number; 0: none may.

    Raises (when read):
        EOFError: the file ends within a stream, or is empty. Whatever `begin`'s library raises: a stream is
            damaged, or something else follows it.
    """

    def __init__(self, disk: IO[bytes], begin: Callable[[], Decompressor], padding: int = 0):
        self._disk, self._begin, self._padding = disk, begin, padding
        self._current: Decompressor | None = None
        self._unpacked = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._unpacked:
            if not (packed := self._packed()):
                return 0
            assert self._current is not None
            self._unpacked = memoryview(self._current.decompress(packed))
        count = min(len(buffer), len(self._unpacked))
        buffer[:count] = self._unpacked[:count]
        self._unpacked = self._unpacked[count:]
        return count

    def _packed(self) -> bytes:
        """The next bytes of the current stream, or of the one after it; b"" at the end of the last."""
        if self._current is not None and not self._current.eof:
            if data := self._disk.read(INPUT_BYTES):
                return data
            raise EOFError("it ends within the compressed data")
        rest = b"" if self._current is None else self._current.unused_data
        data = rest or self._disk.read(INPUT_BYTES)
        if self._current is None and not data:
            raise EOFError("the file is empty")
        if self._current is not None and self._padding:
            data = self._without_padding(data)
        if data:
            self._current = self._begin()
        return data

    def _without_padding(self, data: bytes) -> bytes:
        zeros = 0
        while data and not (left := data.lstrip(b"\0")):
            zeros += len(data)
            data = self._disk.read(INPUT_BYTES)
        if data:
            zeros += len(data) - len(left)
            data = left
        if zeros % self._padding:
            raise EOFError(f"{zeros} zero bytes follow the compressed data")
        return data


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Turn what a library raises at data that it cannot unpack into an error that names the file.

    Raises:
        UsageError: the file cannot be read, or it is damaged.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, (*DAMAGE, *_zstandard_errors())):
            raise
        if isinstance(error, OSError) and error.errno is not None:
            raise UsageError(
                f"cannot be read: {error.strerror}", where=path, remedy="check the disk and the permissions"
            ) from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"cannot be read to its end: {reason}", where=path, remedy=DAMAGED) from error


def _zstandard_errors() -> tuple[type[Exception], ...]:
    """The errors of zstandard, if it was imported."""
    module = sys.modules.get("zstandard")
    return () if module is None else (module.ZstdError,)


def split_member(name: str | Path) -> tuple[Path, str | None]:
    """The file on disk and the archive member, if one is named."""
    path, _, member = str(name).partition(MEMBER)
    return Path(path), member or None


@contextmanager
def open_file(name: str | Path) -> Iterator[OpenedFile]:
    """Open a file, unpacked as its suffix says.

    Raises:
        UsageError: no such file or member, an ambiguous or encrypted archive, or zstandard is not installed.
        Other errors: see `naming_damage`, which makes them a UsageError.
    """
    path, member = split_member(name)
    if not path.is_file():
        raise UsageError("no such file", where=path, remedy="check the path")
    with path.open("rb") as disk:
        if path.suffix == ".zip":
            with zipfile.ZipFile(disk) as archive:
                _check_zip_end(archive, disk)
                info = archive.getinfo(_member(archive, path, member))
                with _open_member(archive, info, path) as stream:
                    yield OpenedFile(stream, disk, info.file_size)
        elif path.suffix in PACKED:
            begin, padding = _decompression(path)
            yield OpenedFile(io.BufferedReader(_Streams(disk, begin, padding), 1 << 20), disk)
        else:
            yield OpenedFile(disk, disk)


def _decompression(path: Path) -> tuple[Callable[[], Decompressor], int]:
    """What makes a decompressor for a file, and the padding that its format allows between streams."""
    if path.suffix == ".gz":
        return (lambda: zlib.decompressobj(wbits=31)), 1
    if path.suffix == ".bz2":
        return bz2.BZ2Decompressor, 0
    if path.suffix == ".xz":
        return (lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ)), 4
    try:
        zstandard = importlib.import_module("zstandard")
    except ImportError:
        raise UsageError(
            "reading .zst needs the package zstandard", where=path, remedy="pip install 'tldr-feedback[zst]'"
        ) from None
    # one decompressor for all frames: each has a window of up to 2 GiB
    return zstandard.ZstdDecompressor(max_window_size=LONGEST_WINDOW).decompressobj, 0


def _check_zip_end(archive: zipfile.ZipFile, disk: IO[bytes]) -> None:
    """Refuse an archive whose last record is not at the end of the file."""
    size = disk.seek(0, io.SEEK_END)
    disk.seek(max(0, size - ZIP_END_BYTES - len(archive.comment)))
    if disk.read(4) != b"PK\5\6":
        raise EOFError("something follows the archive's end")


def _open_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> IO[bytes]:
    if info.flag_bits & ENCRYPTED:
        raise UsageError(f"the member {info.filename} is encrypted", where=path, remedy=UNPACK)
    try:
        return archive.open(info)
    except NotImplementedError:
        method = METHODS.get(info.compress_type, f"method {info.compress_type}")
        raise UsageError(
            f"the member {info.filename} is compressed by {method}, which Python's zipfile cannot read",
            where=path,
            remedy=UNPACK,
        ) from None


def _member(archive: zipfile.ZipFile, path: Path, member: str | None) -> str:
    every = archive.namelist()
    names = [n for n in every if n.endswith((".json", ".jsonl")) and not n.startswith("__MACOSX")]
    if member is not None and every.count(member) == 1:
        return member
    if member is None and len(names) == 1:
        return names[0]
    count = "no" if member not in every else f"{every.count(member)} times the"
    what = f"{count} member '{member}'" if member else f"{len(names)} .json/.jsonl members"
    raise UsageError(
        f"{what} in the archive, which holds {', '.join(names[:5]) or 'none'}",
        where=path,
        remedy=f"name one: {path.name}{MEMBER}MEMBER",
    )
