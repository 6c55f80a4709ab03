"""A folder that cannot be written to, also by root: an audit hook refuses it."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_protected: list[str] = []
_refused: list[str] = []
_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if not _protected or event not in _CHANGES | {"open"}:
        return
    if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITES):
        return
    for path in arguments[:2]:
        if isinstance(path, str | bytes | os.PathLike):
            place = os.path.abspath(os.fsdecode(path))
            if any(os.path.commonpath([place, folder]) == folder for folder in _protected):
                _refused.append(f"{event} {place}")
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), place)


@contextmanager
def read_only(folder: Path) -> Iterator[list[str]]:
    """Refuse every write into a folder inside the block; what was tried is in the list."""
    if _refuse not in _hooked:
        sys.addaudithook(_refuse)  # for good: Python removes none
        _hooked.append(_refuse)
    _refused.clear()
    _protected.append(os.path.abspath(folder))
    try:
        yield _refused
    finally:
        _protected.pop()


_hooked: list[Any] = []
