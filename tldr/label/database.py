"""The SQLite file of a labeling project: its tables, and transactions that are on disk when they return.

A write-ahead log with ``synchronous=FULL`` costs one fsync an answer, and it lets `export` read while the
server writes. It needs shared memory, so the folder must be on a local disk, not on a network file system.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tldr.errors import DiskFullError, LabError, UsageError
from tldr.locks import Busy, locked

NAME = "labels.sqlite"
VERSION = 1
PATIENCE = 20
"""Seconds for which another program may hold the file."""
_SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE labelers(
    id INTEGER PRIMARY KEY, worker TEXT NOT NULL UNIQUE, name TEXT NOT NULL UNIQUE, secret TEXT UNIQUE,
    held_out INTEGER NOT NULL DEFAULT 0, status TEXT NOT NULL DEFAULT 'active', created REAL NOT NULL) STRICT;
CREATE TABLE items(
    id TEXT PRIMARY KEY, place INTEGER NOT NULL, body TEXT NOT NULL, pool TEXT NOT NULL,
    count INTEGER NOT NULL DEFAULT 0, open INTEGER NOT NULL DEFAULT 1, flag TEXT,
    held INTEGER NOT NULL DEFAULT 0
    ) STRICT;
CREATE INDEX items_open ON items(pool, open, held, place);
CREATE TABLE leases(
    item TEXT NOT NULL REFERENCES items(id), labeler INTEGER NOT NULL REFERENCES labelers(id),
    ticket TEXT NOT NULL UNIQUE, shown TEXT NOT NULL, before TEXT, taken REAL NOT NULL, expires REAL NOT NULL,
    PRIMARY KEY(item, labeler)) STRICT;
CREATE TABLE labels(
    id INTEGER PRIMARY KEY, item TEXT NOT NULL REFERENCES items(id),
    labeler INTEGER NOT NULL REFERENCES labelers(id), answer_id TEXT NOT NULL UNIQUE,
    ticket TEXT NOT NULL, shown TEXT NOT NULL, answer TEXT, skip TEXT,
    seconds REAL NOT NULL, idle REAL NOT NULL, at REAL NOT NULL, UNIQUE(item, labeler)) STRICT;
CREATE INDEX labels_labeler ON labels(labeler, id);
CREATE TABLE set_aside(
    answer_id TEXT NOT NULL, item TEXT NOT NULL, labeler INTEGER NOT NULL, answer TEXT, reason TEXT NOT NULL,
    at REAL NOT NULL) STRICT;
CREATE INDEX set_aside_answer ON set_aside(answer_id);
"""


class Database:
    """A connection that several threads share, one transaction at a time.

    Args:
        path: the file; None for one in memory.
    """

    def __init__(self, path: Path | None):
        self.path = path
        self._lock = threading.RLock()
        self._sql = sqlite3.connect(
            path or ":memory:", isolation_level=None, check_same_thread=False, timeout=PATIENCE
        )
        self._sql.row_factory = sqlite3.Row
        try:
            self._log_ahead()
            for pragma in ("synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY"):
                self._sql.execute(f"PRAGMA {pragma}")
            if self._version() == 0:
                self._set_up()
        except sqlite3.DatabaseError as error:
            self._sql.close()
            what = f"cannot be used: {error}"
            if _is_busy(error):
                raise Busy(what, where=path, remedy="end the other program that writes to it") from None
            raise LabError(what, where=path, remedy="restore it from a copy") from None
        if (version := self._version()) != VERSION:
            self._sql.close()
            raise UsageError(
                f"has the tables of version {version}, this program knows {VERSION}",
                where=path,
                remedy="use the version of tldr-feedback that wrote it",
            )

    def _log_ahead(self) -> None:
        """Switch to the write-ahead log. Of two that do it at once on a new file SQLite may refuse both
        without waiting, since each holds what the other needs."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self._sql.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() > end:
                    raise
            time.sleep(0.01)

    def _version(self) -> int:
        return int(self._sql.execute("PRAGMA user_version").fetchone()[0])

    def _set_up(self) -> None:
        """Make the tables, unless another connection has made them since this one looked."""
        self._sql.execute("BEGIN IMMEDIATE")
        if self._version() == 0:
            for statement in _SCHEMA.split(";"):
                self._sql.execute(statement)
            self._sql.execute(f"PRAGMA user_version={VERSION}")
        self._sql.execute("COMMIT")

    @contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """A transaction. When the block ends it is on disk; when the block raises, nothing of it is.

        Args:
            durable: False leaves it to the next durable one, or to the system, to bring it to disk. A killed
                process loses nothing of it, a power cut may: it is for leases, which can be taken again.

        Raises:
            DiskFullError: it could not be written; nothing of it was kept.
            Busy: nor could it because another program was writing all the time.
        """
        with self._lock:
            try:
                self._sql.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                self._sql.execute("BEGIN IMMEDIATE")
                yield self._sql
                self._sql.execute("COMMIT")
            except BaseException as error:
                if self._sql.in_transaction:
                    self._sql.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError):
                    raise self._unwritten(error) from None
                raise

    def _unwritten(self, error: sqlite3.OperationalError) -> LabError:
        what = f"the answer could not be written ({error}): it is not counted"
        if _is_busy(error):
            return Busy(what, where=self.path, remedy="end the other program that writes to it")
        remedy = "make room on the server's disk; the page sends the answer again by itself"
        return DiskFullError(what, where=self.path, remedy=remedy)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One state of all tables for the length of the block."""
        with self._lock:
            self._sql.execute("BEGIN")
            try:
                yield self._sql
            finally:
                self._sql.execute("COMMIT")

    def close(self) -> None:
        """Close the connection; the last one folds the log into the file."""
        with self._lock:
            self._sql.close()


def _is_busy(error: sqlite3.Error) -> bool:
    code: int = getattr(error, "sqlite_errorcode", 0)  # Python's own errors have none
    return code & 0xFF == sqlite3.SQLITE_BUSY  # the low byte is the kind


@contextmanager
def sole_server(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: one server at a time.

    Raises:
        Busy: another process serves the folder.
    """
    with locked(folder / ".serving.lock", "serving this folder", where=folder):
        yield
