"""Locks for what only one process may do at a time; a lock names its holder.

A lock is held on a file by the operating system (`filelock`), so it ends with its process, however that ends.
The holder writes its host and process into the file. On a network file system the lock holds between machines
if the server supports it (NFS 4, or NFS 3 with its lock daemon), and on one machine in any case.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

from tldr.errors import LabError, UsageError
from tldr.files import host

PATIENCE = 1.0
"""Seconds for which a lock is tried: `holder` may have it for some microseconds."""
_POLL = 0.01
"""Seconds between two tries."""


class Busy(LabError):
    """Another process holds the lock."""

    exit_code = 75


def lock_beside(path: Path) -> Path:
    """The lock of a file or folder that itself holds nothing but results: ``.NAME.lock`` beside it.

    Its folder is made. Links and other spellings of one path lead to one lock.
    """
    real = path.resolve()
    real.parent.mkdir(parents=True, exist_ok=True)
    return real.with_name(f".{real.name}.lock")


@contextmanager
def locked(
    path: Path, doing: str, *, where: Path | None = None, waiting: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold a lock; the system releases it when the process ends for any reason.

    Args:
        path: the lock's file; its folder must exist.
        doing: what the holder does, for the error: "executing this run".
        where: what is locked, for the error; the lock's file by default.
        waiting: wait for the holder, and first call this with a sentence that names it.

    Raises:
        Busy: another process holds it (without `waiting`).
        UsageError: the file cannot be locked: the folder is read-only, or its file system has no locks.
        FileNotFoundError: there is no such folder, or it was moved away meanwhile.
    """
    lock = _acquired(path, doing, where or path, waiting)
    own = f"{host()} {os.getpid()}\n"
    # Of a file system without such locks, `filelock` uses the content itself.
    named = not isinstance(lock, SoftFileLock)
    try:
        if named:
            with suppress(OSError):  # without a name the lock is held all the same
                path.write_text(own, encoding="utf-8")
        yield
    finally:
        if named:
            with suppress(OSError, ValueError):  # the block may have moved or removed the folder
                if path.read_text(encoding="utf-8") == own:
                    os.truncate(path, 0)
        lock.release()


def _acquired(
    path: Path, doing: str, where: Path, waiting: Callable[[str], None] | None
) -> FileLock | SoftFileLock:
    while True:
        if not path.parent.is_dir():  # `filelock` would make it
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
        lock = FileLock(path)
        try:
            lock.acquire(timeout=PATIENCE, poll_interval=_POLL)
        except Timeout:
            told = f"{holder(path) or 'another process'} is {doing}"
            if waiting is None:
                raise Busy(told, where=where) from None
            waiting(f"{where}: {told}; waiting for it")
            lock.acquire()
        except FileNotFoundError:
            raise
        except OSError as error:
            reason = error.strerror or str(error)
            raise UsageError(f"cannot be locked: {reason}", where=where) from None
        if holder(path) is not None:
            return lock
        lock.release()  # its folder was moved away before the lock was ours: this lock guards nothing


def holder(path: Path) -> str | None:
    """Who holds a lock, as ``process 12 on HOST``; None if nobody does. Nothing is written.

    A process that wants the lock at this very moment is not turned away (`PATIENCE`).
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES, errno.ENOSYS):
            return None
        return _named(os.read(handle, 1000))
    finally:
        os.close(handle)
    return None


def _named(note: bytes) -> str:
    name, _, pid = note.decode(errors="replace").strip().partition(" ")
    return f"process {pid} on {name}" if name and pid.isdigit() else "another process"
