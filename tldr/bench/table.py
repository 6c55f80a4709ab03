"""Rounds as a table: medians and ranges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from rich.table import Table

from tldr.bench.measure import ERROR, BenchRow

GIB = 2**30
MILLION = 1_000_000


def table_of(results: Iterable[BenchRow]) -> Table:
    """One row per stage, size and precision; speeds as median (lowest-highest)."""
    names = ["stage", "precision", "rounds", "tokens/s", "per second", "MFU", "phases", "peak / plan GiB"]
    table = Table(*names, box=None, pad_edge=False)
    groups: dict[tuple[str, ...], list[BenchRow]] = {}
    for row in results:
        groups.setdefault((row["stage"], row["size"], row.get("precision", "")), []).append(row)
    for (stage, size, precision), rows in groups.items():
        good = [row for row in rows if ERROR not in row]
        if good:
            table.add_row(f"{stage}-{size}", precision, str(len(good)), *_figures(good))
        for row in rows:
            if ERROR in row:
                table.add_row(f"{stage}-{size}", precision, "", f"[red]{row[ERROR]}[/]")
    return table


def _figures(rows: Sequence[BenchRow]) -> list[str]:
    peaks = [row["peak_bytes"] for row in rows if row["peak_bytes"] is not None]
    peak = f"{max(peaks) / GIB:.2f}" if peaks else "-"
    return [
        spread([row["tokens_per_s"] for row in rows], ",.0f"),
        _things(rows),
        f"{100 * median(row['mfu'] for row in rows):.1f} %",
        _phases(rows),
        f"{peak} / {rows[0]['planned_bytes'] / GIB:.2f}",
    ]


def spread(values: Sequence[float], form: str) -> str:
    """``median (lowest-highest)``."""
    return f"{median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def _things(rows: Sequence[BenchRow]) -> str:
    """Pairs per second, or episodes per second with the hours for a million."""
    for name in ("pairs", "episodes"):
        if (key := f"{name}_per_s") in rows[0]:
            speeds = [row[key] for row in rows]
            hours = f", 1M in {MILLION / median(speeds) / 3600:,.1f} h" if name == "episodes" else ""
            return f"{spread(speeds, '.3g')} {name}{hours}"
    return ""


def _phases(rows: Sequence[BenchRow]) -> str:
    found = [name for name in ("generation", "scoring", "update") if f"{name}_s" in rows[0]]
    return ", ".join(f"{name} {median(row[f'{name}_s'] for row in rows):.2f} s" for name in found)
