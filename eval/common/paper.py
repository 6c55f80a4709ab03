"""The papers' published numbers, read from ``results/paper/*.csv`` (columns: its README)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tldr.errors import UsageError

_INSTALLED = Path(__file__).resolve().parents[1] / "published"  # where a wheel puts results/paper
PAPER_FOLDER = _INSTALLED if _INSTALLED.is_dir() else _INSTALLED.parents[1] / "results" / "paper"
COLUMNS = ("item", "x", "series", "value", "se", "tag", "source")
TAGS = frozenset({"seen", "dig", "calc", "2nd"})
"""Tags a number may carry. A number that was not read in a source is not shown beside ours."""


def load_paper(name: str, item: str | None = None, folder: Path = PAPER_FOLDER) -> pd.DataFrame:
    """The rows of ``<name>.csv``, of one `item` if given; `x` is numeric where the item's all are.

    Raises:
        UsageError: no such file or item, wrong columns, or an unknown tag.
    """
    path = folder / f"{name}.csv"
    if not path.is_file():
        raise UsageError("no such file of published numbers", where=path, remedy="run from a source checkout")
    table = pd.read_csv(path, dtype={"x": str})
    if tuple(table.columns) != COLUMNS:
        raise UsageError(f"columns {list(table.columns)}, expected {list(COLUMNS)}", where=path)
    unknown = set(table["tag"]) - TAGS
    if unknown:
        raise UsageError(
            f"unknown tags {sorted(map(str, unknown))}", where=path, remedy=f"use {sorted(TAGS)}"
        )
    if item is None:
        return table
    rows = table[table["item"] == item].reset_index(drop=True)
    if rows.empty:
        raise UsageError(f"no item {item!r}, only {sorted(set(table['item']))}", where=path)
    numbers = pd.to_numeric(rows["x"], errors="coerce")
    return rows.assign(x=numbers) if numbers.notna().all() else rows
