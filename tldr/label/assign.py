"""Which item a labeler gets next.

First the training round, then three pools mixed: calibration items at their share, the shared pool, and the
main pool, in which an item is given to `labelers_per_item` people and to no one beyond. The shared pool comes
in at the rate at which it is used up together with the main pool. A labeler never gets an item twice.
"""

from __future__ import annotations

import sqlite3

from tldr.label.labelers import Labeler
from tldr.label.pools import draw
from tldr.label.settings import LabelSettings

_FREE = """pool=:pool AND open=1 AND held=0
    AND NOT EXISTS (SELECT 1 FROM labels WHERE item=items.id AND labeler=:labeler)"""
_ROOM = f"""{_FREE} AND count + (
    SELECT count(*) FROM leases WHERE item=items.id AND labeler<>:labeler AND expires>:now) < :each"""


def held_item(sql: sqlite3.Connection, who: Labeler, now: float, each: int) -> str | None:
    """The item that the labeler has not finished: the last one taken whose lease lives or can be renewed."""
    rows = sql.execute(
        "SELECT item, expires FROM leases WHERE labeler=? ORDER BY taken DESC, rowid DESC", (who.id,)
    ).fetchall()
    for row in rows:
        held = sql.execute("SELECT held FROM items WHERE id=?", (row["item"],)).fetchone()["held"]
        if not held and (row["expires"] > now or has_room(sql, row["item"], who, now, each)):
            return str(row["item"])
    return None


def has_room(sql: sqlite3.Connection, item: str, who: Labeler, now: float, each: int) -> bool:
    """Whether the labeler may answer an item: others who did or are at it leave room."""
    pool = sql.execute("SELECT pool FROM items WHERE id=?", (item,)).fetchone()["pool"]
    values = {"pool": pool, "labeler": who.id, "now": now, "each": each, "item": item}
    where = _ROOM if pool == "main" else _FREE
    return sql.execute(f"SELECT 1 FROM items WHERE id=:item AND {where}", values).fetchone() is not None


def next_item(sql: sqlite3.Connection, who: Labeler, now: float, settings: LabelSettings) -> str | None:
    """A fresh item for the labeler; None if there is nothing left for them.

    The same state of the database gives the same item.
    """
    each = settings.labelers_per_item

    def first(pool: str) -> str | None:
        values = {"pool": pool, "labeler": who.id, "now": now, "each": each}
        where = _ROOM if pool == "main" else _FREE
        row = sql.execute(f"SELECT id FROM items WHERE {where} ORDER BY place LIMIT 1", values).fetchone()
        return None if row is None else str(row["id"])

    if (training := first("training")) is not None:
        return training
    (done,) = sql.execute("SELECT count(*) FROM labels WHERE labeler=?", (who.id,)).fetchone()
    chance = draw(settings.seed, "pool", who.worker, done)
    if chance < settings.calibration and (known := first("calibration")) is not None:
        return known
    rest = (chance - settings.calibration) / (1 - settings.calibration)
    pools = ("shared", "main") if rest < _shared_rate(sql, who, each) else ("main", "shared")
    return next((item for pool in pools if (item := first(pool)) is not None), None)


def _shared_rate(sql: sqlite3.Connection, who: Labeler, each: int) -> float:
    """The part of the shared pool in what lies before this labeler."""
    (shared,) = sql.execute(
        "SELECT count(*) FROM items WHERE pool='shared' AND held=0 AND NOT EXISTS"
        " (SELECT 1 FROM labels WHERE item=items.id AND labeler=?)",
        (who.id,),
    ).fetchone()
    if not shared:
        return 0.0
    (main,) = sql.execute("SELECT count(*) FROM items WHERE pool='main' AND open=1 AND held=0").fetchone()
    (people,) = sql.execute(
        "SELECT count(*) FROM labelers WHERE status='active' AND secret IS NOT NULL"
    ).fetchone()
    return float(shared / (shared + main * each / max(people, 1)))
