"""``data overlap``: the posts that files, a study's data and its labels share."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tldr.cli.evaluate import OnErrorOption, tell_bad_lines
from tldr.errors import LabError, UsageError

if TYPE_CHECKING:
    from tldr.inputs.leakage import Collected, Overlap


def overlap_command(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=FILE|FOLDER|STUDY.yaml ...",
            help="Posts, comparisons, rankings or ratings; a data or labels run's folder; a study file.",
            show_default=False,
        ),
    ],
    refuse: Annotated[
        list[str],
        typer.Option("--refuse", metavar="A:B", help="Fail if these two share a post; may be repeated."),
    ] = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
    on_error: OnErrorOption = "stop",
) -> None:
    """Count the posts that sets share, by id, by body and by either, and fail if that is a leak.

    Sets with a study's names (sft, ppo, valid1, valid2, labels/train, labels/valid1, labels/valid2)
    follow the rules of tldr/inputs/leakage.py, other sets those of --refuse.
    """
    from tldr.inputs import leakage

    found = leakage.Collected()
    for place in places:
        _collect(place, found, on_error)
    rules: dict[str, list[str]] = defaultdict(list, {name: list(to) for name, to in leakage.LEAKS.items()})
    for rule in refuse:
        first, _, second = rule.partition(":")
        for name in (first, second):
            if name not in found.sets:
                raise UsageError(
                    f"no set '{name}'",
                    where=f"--refuse {rule}",
                    remedy=f"choose from {', '.join(found.sets)}",
                )
        rules[first].append(second)
    tell_bad_lines(found.reports)
    rows = leakage.overlaps(found.sets, rules)
    if as_json:
        sizes = {name: len(held.posts) for name, held in found.sets.items()}
        typer.echo(json.dumps({"posts": sizes, "overlaps": [asdict(row) for row in rows]}, indent=2))
    else:
        Console(width=None if Console().is_terminal else 1000).print(_table(found, rows))
    if leaks := [row for row in rows if row.leak and row.either and row.first < row.second]:
        pairs = ", ".join(f"{row.first} and {row.second} ({row.either:,})" for row in leaks)
        raise LabError(
            f"posts in sets that must not share any: {pairs}", remedy="remove them from one of the sets"
        )


def _collect(place: str, into: Collected, on_error: OnErrorOption) -> None:
    from tldr.inputs import leakage
    from tldr.sources.place import records_at
    from tldr.stages.data.overlap import collect_study
    from tldr.stages.data.settings import FileData
    from tldr.study.load import load_study

    name, equals, file = place.partition("=")
    if equals:
        leakage.read_set(name, file, into, on_error, records_at)
    elif Path(place).is_dir():
        leakage.collect_folder(Path(place), into, on_error)
    elif place.endswith((".yaml", ".yml")):
        data = load_study(place).data
        if not isinstance(data, FileData):
            raise UsageError(
                "this study's data are generated, not read from files",
                where=place,
                remedy="name the folder of its data run (runs/STUDY/data-...)",
            )
        collect_study(data, into)
    else:
        raise UsageError("neither NAME=FILE, a folder nor a study file", where=place, remedy="check the path")


def _table(found: Collected, rows: list[Overlap]) -> Table:
    """The posts of each row's set that are in each column's: by either key (by id, by body)."""
    table = Table(title=Text("posts of the row that are in the column: either (id, body); ! is a leak"))
    table.add_column("")
    table.add_column("posts", justify="right")
    for name in found.sets:
        table.add_column(Text(name), justify="right")
    cells = {(row.first, row.second): row for row in rows}
    for first, held in found.sets.items():
        line = [Text(first), Text(f"{len(held.posts):,}")]
        for second in found.sets:
            row = cells.get((first, second))
            if row is None:
                line.append(Text("-"))
            elif not (row.either or row.by_id):
                line.append(Text("0"))
            else:
                mark = "! " if row.leak else ""
                line.append(
                    Text(
                        f"{mark}{row.either:,} ({row.by_id:,}, {row.by_body:,})",
                        style="red" if row.leak else "",
                    )
                )
        table.add_row(*line)
    return table
