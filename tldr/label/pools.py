"""Items in the database: which of them every labeler gets, and which are known."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from tldr.errors import UsageError
from tldr.label.database import Database
from tldr.label.items import LabelItem
from tldr.label.labelers import recount
from tldr.label.settings import LabelSettings


def draw(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:7], "big") / (1 << 56)


def pool_of(item: LabelItem, settings: LabelSettings) -> str:
    """``training``, ``calibration``, ``shared`` or ``main``; further items move none to another pool."""
    if item.role != "label":
        return item.role
    return "shared" if draw(settings.seed, "shared", item.id) < settings.shared else "main"


def load_items(database: Database, items: Sequence[LabelItem], settings: LabelSettings) -> None:
    """Bring the database to the items of the file. Items may be added; an item with labels must not change.

    Raises:
        UsageError: an item that has labels was changed or removed.
    """
    bodies = {item.id: item.to_json() for item in items}
    with database.writing() as sql:
        known = {row["id"]: tuple(row) for row in sql.execute("SELECT id, place, body, pool FROM items")}
        there = {id: row[2] for id, row in known.items()}
        used = {row["item"] for row in sql.execute("SELECT DISTINCT item FROM labels")}
        changed = sorted(id for id in used if bodies.get(id) != there[id])
        if changed:
            raise UsageError(
                f"{len(changed)} items with labels were changed or removed, such as '{changed[0]}'",
                where="items.jsonl",
                remedy="restore them, and give what is asked anew an id of its own",
            )
        gone = [(id,) for id in there if id not in bodies]
        sql.executemany("DELETE FROM leases WHERE item=?", gone)
        sql.executemany("DELETE FROM items WHERE id=?", gone)
        rows = [
            (item.id, place, bodies[item.id], pool_of(item, settings)) for place, item in enumerate(items)
        ]
        rows = [row for row in rows if known.get(row[0]) != row]
        sql.executemany(
            """INSERT INTO items(id, place, body, pool) VALUES(?,?,?,?) ON CONFLICT(id) DO UPDATE SET
            place=excluded.place, body=excluded.body, pool=excluded.pool""",
            rows,
        )
        each = str(settings.labelers_per_item)
        before = sql.execute("SELECT value FROM meta WHERE key='labelers_per_item'").fetchone()
        if before is None or before["value"] != each:
            sql.execute("INSERT OR REPLACE INTO meta VALUES('labelers_per_item', ?)", (each,))
            recount(sql, "1")
