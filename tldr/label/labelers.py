"""Who labels: named links with a secret each. The database has the secrets' hashes, never the secrets."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from tldr.errors import UsageError
from tldr.label.database import Database

LabelerStatus: TypeAlias = Literal["active", "paused", "dropped"]
SECRET_BYTES = 24
"""Of a secret: 192 random bits cannot be guessed, so a plain hash protects them."""


@dataclass(frozen=True)
class Labeler:
    """One person: `worker` is the pseudonym in all files, `name` is for the owner alone."""

    id: int
    worker: str
    name: str
    held_out: bool
    status: LabelerStatus


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _labeler(row: sqlite3.Row) -> Labeler:
    return Labeler(row["id"], row["worker"], row["name"], bool(row["held_out"]), row["status"])


class Labelers:
    """The labelers and the owner of a project."""

    def __init__(self, database: Database):
        self.database = database

    def all(self) -> list[Labeler]:
        """All of them, in the order in which they were added."""
        with self.database.reading() as sql:
            return [_labeler(row) for row in sql.execute("SELECT * FROM labelers ORDER BY id")]

    def add(
        self, name: str, at: float, *, worker: str | None = None, held_out: bool = False, link: bool = True
    ) -> str:
        """Add a labeler.

        Args:
            worker: the pseudonym; ``worker-NN`` by default.
            at: now, in seconds since 1970.
            link: whether they label on the page; else their labels come from elsewhere.

        Returns:
            The secret of the labeler's link, which cannot be read again.

        Raises:
            UsageError: the name or the pseudonym is taken or empty.
        """
        if not name.strip():
            raise UsageError("a labeler needs a name", where="--add")
        secret = secrets.token_urlsafe(SECRET_BYTES)
        with self.database.writing() as sql:
            taken = {row["worker"] for row in sql.execute("SELECT worker FROM labelers")}
            fresh = next(f"worker-{n:02d}" for n in range(len(taken) + 1) if f"worker-{n:02d}" not in taken)
            row = (worker or fresh, name, _hash(secret) if link else None, int(held_out), at)
            try:
                sql.execute(
                    "INSERT INTO labelers(worker, name, secret, held_out, created) VALUES(?,?,?,?,?)", row
                )
            except sqlite3.IntegrityError:
                raise UsageError(
                    f"there is a labeler '{name}' or '{row[0]}' already",
                    where="--add",
                    remedy="--again NAME makes a new link for a labeler",
                ) from None
        return secret

    def again(self, name: str) -> str:
        """A new secret for a labeler; the old link ends.

        Raises:
            UsageError: there is no such labeler.
        """
        secret = secrets.token_urlsafe(SECRET_BYTES)
        with self.database.writing() as sql:
            done = sql.execute("UPDATE labelers SET secret=? WHERE name=?", (_hash(secret), name))
            if not done.rowcount:
                raise UsageError(f"no labeler is called '{name}'", where="--again")
        return secret

    def new_owner(self) -> str:
        """A new secret for the owner's page; the old link ends."""
        secret = secrets.token_urlsafe(SECRET_BYTES)
        with self.database.writing() as sql:
            sql.execute("INSERT OR REPLACE INTO meta VALUES('owner', ?)", (_hash(secret),))
        return secret

    def has_owner(self) -> bool:
        """Whether an owner's link was made."""
        with self.database.reading() as sql:
            return sql.execute("SELECT 1 FROM meta WHERE key='owner'").fetchone() is not None

    def by_secret(self, secret: str) -> Labeler | None:
        """The labeler of a link; every hash is compared, in constant time."""
        wanted, found = _hash(secret), None
        with self.database.reading() as sql:
            rows = sql.execute("SELECT * FROM labelers WHERE secret IS NOT NULL").fetchall()
        for row in rows:
            if hmac.compare_digest(row["secret"], wanted):
                found = _labeler(row)
        return found

    def is_owner(self, secret: str) -> bool:
        """Whether a secret is the owner's."""
        with self.database.reading() as sql:
            row = sql.execute("SELECT value FROM meta WHERE key='owner'").fetchone()
        return row is not None and hmac.compare_digest(row["value"], _hash(secret))

    def set_status(self, worker: str, status: str) -> None:
        """Pause, drop or re-activate a labeler. A dropped labeler's labels stay, but do not count.

        Raises:
            UsageError: no such labeler or status.
        """
        if status not in get_args(LabelerStatus):
            raise UsageError(f"'{status}' is no status", remedy="active, paused or dropped")
        with self.database.writing() as sql:
            done = sql.execute("UPDATE labelers SET status=? WHERE worker=?", (status, worker))
            if not done.rowcount:
                raise UsageError(f"no labeler is called '{worker}'")
            recount(
                sql,
                "id IN (SELECT item FROM labels JOIN labelers ON labelers.id=labeler WHERE worker=?)",
                worker,
            )


def recount(sql: sqlite3.Connection, where: str, *values: object) -> None:
    """Count the labels of some items again, without skips, dropped and held-out labelers, and open or close
    them: labels of held-out labelers come on top."""
    sql.execute(
        f"""UPDATE items SET count=(SELECT count(*) FROM labels JOIN labelers ON labelers.id=labels.labeler
        WHERE item=items.id AND skip IS NULL AND status<>'dropped' AND held_out=0) WHERE {where}""",
        values,
    )
    sql.execute(
        f"""UPDATE items SET open=(pool<>'main' OR
        count<(SELECT CAST(value AS INTEGER) FROM meta WHERE key='labelers_per_item')) WHERE {where}""",
        values,
    )
