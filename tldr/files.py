"""Files that several processes write or read: each appears whole or not at all, and links are followed.

A file is written under a temporary name that no other process uses, ``NAME.HOST-PID-RANDOM.partial``, and
then renamed. Of two processes that write one file at once the last one wins, with all of its bytes. Where
nothing may be lost, they also hold a lock (`tldr.locks`). docs/many-processes.md lists every such file.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path

from tldr.errors import DiskFullError, UsageError

PARTIAL = ".partial"
"""Ending of the name of a file or folder that is still being written."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_TEXTS = (*(os.strerror(code) for code in _FULL), "database or disk is full")
_LONGEST = 40
"""Characters of a file's name that its temporary name repeats; file systems allow 255 bytes in all."""


def host() -> str:
    """The name of this machine."""
    return socket.gethostname()


def partial_beside(path: Path) -> Path:
    """A temporary name beside `path` that no other process and no other call uses."""
    own = f"{host()[:_LONGEST]}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    return path.with_name(f"{path.name[:_LONGEST]}.{own}{PARTIAL}")


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Write a file whole or not at all: the block writes to the path that it is given.

    At the end of the block that file replaces `path`; a reader sees the old file or the new one. If the block
    fails, it is removed.

    Args:
        durable: flush the file to disk first, so that it is whole after a power failure too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_beside(path)
    try:
        yield partial
        if durable:
            sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Write a folder whole or not at all, as `replacing`; until the end of the block the old one is kept."""
    partial, old = partial_beside(folder), partial_beside(folder)
    partial.mkdir(parents=True)
    try:
        yield partial
        while True:
            try:
                partial.rename(folder)
                break
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
            with suppress(FileNotFoundError):  # another process has just moved it away
                folder.rename(old)
            _remove(old)
    finally:
        _remove(partial)


def link_folder(source: Path, target: Path) -> None:
    """Make `target` a folder with the files of `source`, whole or not at all; a link in it is resolved.

    The files are hard links, so they take no disk and outlive `source`. Where the file system has none, or
    the two lie on different ones, they are copies.
    """
    with replacing_folder(target) as partial:
        for path in files_below(source):
            place = partial / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path.resolve(), place)
            except OSError as error:
                if is_disk_full(error):
                    raise
                shutil.copyfile(path, place)


def write_text(path: Path, text: str, *, durable: bool = True) -> Path:
    """Write a text file whole or not at all (`replacing`)."""
    with replacing(path, durable=durable) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def sync(path: Path) -> None:
    """Flush a file or a folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def drop_abandoned(folder: Path) -> None:
    """Remove the temporary files in a folder whose process on this machine was killed while it wrote them."""
    ours = re.compile(rf"\.{re.escape(host()[:_LONGEST])}-(\d+)-[0-9a-f]{{8}}{re.escape(PARTIAL)}$")
    for path in folder.glob(f"*{PARTIAL}"):
        if (found := ours.search(path.name)) and not _is_alive(int(found[1])):
            _remove(path)


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # a process of another user
    return True


def files_below(folder: Path, pattern: str = "*") -> list[Path]:
    """Every file in a folder and below whose name matches, sorted; links to folders are followed.

    A file that is reached on two ways is named twice; `distinct` leaves one of them.

    Raises:
        UsageError: a link leads back to a folder that contains it, or a folder cannot be read.
    """
    return sorted(_below(folder, pattern, ()))


def _below(folder: Path, pattern: str, above: tuple[Path, ...]) -> Iterator[Path]:
    real = folder.resolve()
    if real in above:
        raise UsageError(
            f"this link leads back to {real}, which contains it", where=folder, remedy="remove the link"
        )
    try:
        entries = list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return  # as for `Path.rglob`; a folder may be removed meanwhile
    except OSError as error:
        raise UsageError(f"the folder cannot be read: {error.strerror}", where=folder) from None
    for path in entries:
        if path.is_dir():
            yield from _below(path, pattern, (*above, real))
        elif fnmatchcase(path.name, pattern) and path.is_file():
            yield path


def distinct(paths: Iterable[Path]) -> list[Path]:
    """One path to each file, in the order given; the path without links, if there is one."""
    found: dict[Path, Path] = {}
    for path in paths:
        real = path.resolve()
        if real not in found or path.absolute() == real:
            found[real] = path
    return list(found.values())


def by_number(path: Path) -> list[tuple[bool, int, str]]:
    """A key that sorts paths by the numbers in them: ``labels-9`` comes before ``labels-10``."""
    parts = re.split(r"(\d+)", str(path))
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, says that the disk or the user's share of it is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if any(text in str(error) for text in _FULL_TEXTS):  # libraries that tell it in words only
            return True
        error = error.__cause__ or error.__context__
    return False


def disk_full(error: BaseException, *, where: Path | None = None, remedy: str) -> DiskFullError:
    """The error to show instead of one that `is_disk_full` recognises."""
    what = getattr(error, "what", None) or str(error)
    return DiskFullError(f"cannot be written, the disk is full: {what}", where=where, remedy=remedy)
