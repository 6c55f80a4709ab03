"""A labeling project: its folder opened, with its database, items, labelers and desk."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tldr.errors import UsageError
from tldr.label.answers import TaskKind
from tldr.label.database import NAME, Database
from tldr.label.desk import Desk
from tldr.label.items import LabelItem, kinds_of, read_items
from tldr.label.labelers import Labelers
from tldr.label.lengths import TextLength
from tldr.label.pools import load_items
from tldr.label.settings import LabelSettings

ITEMS, SETTINGS = "items.jsonl", "label.yaml"


@dataclass
class Project:
    """Everything that serves a folder."""

    folder: Path
    settings: LabelSettings
    database: Database
    labelers: Labelers
    desk: Desk
    kinds: Sequence[TaskKind]
    instructions: str | None

    @classmethod
    def open(cls, folder: Path, settings: LabelSettings, clock: Callable[[], float] = time.time) -> Project:
        """Open a folder and bring its database to its items.

        Raises:
            UsageError: a file is missing, or an item that has labels was changed.
            RecordError: an item is invalid.
        """
        items = read_items(folder / ITEMS)
        instructions = None
        if settings.instructions is not None:
            file = folder / settings.instructions
            if not file.is_file():
                raise UsageError(
                    "no such file", where=f"instructions: {file}", remedy="write it, or use null"
                )
            instructions = file.read_text(encoding="utf-8")
        tokenizer = None if settings.tokenizer is None else folder / settings.tokenizer
        database = Database(folder / NAME)
        load_items(database, items, settings)
        desk = Desk(database, settings, clock, TextLength(tokenizer))
        return cls(folder, settings, database, Labelers(database), desk, kinds_of(items), instructions)

    def items(self) -> list[LabelItem]:
        """The items in the database, in the order of the file."""
        with self.database.reading() as sql:
            rows = sql.execute("SELECT body FROM items ORDER BY place").fetchall()
        return [LabelItem.model_validate_json(row["body"]) for row in rows]

    def totals(self, sql: sqlite3.Connection) -> tuple[int, int]:
        """Labels there are, and labels wanted: some for each main item, one a person for each shared one."""
        each = self.settings.labelers_per_item
        people = sql.execute(
            "SELECT count(*) FROM labelers WHERE status='active' AND secret IS NOT NULL"
        ).fetchone()[0]
        main, main_done = sql.execute(
            "SELECT count(*), coalesce(sum(min(count, ?)), 0) FROM items WHERE pool='main'", (each,)
        ).fetchone()
        shared, shared_done = sql.execute(
            "SELECT count(*), coalesce(sum(count), 0) FROM items WHERE pool='shared'"
        ).fetchone()
        return main_done + shared_done, main * each + max(shared * people, shared_done)
