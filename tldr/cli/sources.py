"""``data sources`` and ``data fetch``: the known copies of the paper's data, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tldr.cli.reporting import reports_errors


def add_source_commands(app: typer.Typer) -> None:
    """Add the commands to ``data``."""
    app.command("sources")(reports_errors(sources_command))
    app.command("fetch")(reports_errors(fetch_command))


def sources_command() -> None:
    """List the known data sets: record type, splits, sizes and notes."""
    from tldr.sources.hub.catalog import CATALOG
    from tldr.sources.hub.layout import split_name

    console = Console(highlight=False)
    for known in CATALOG.values():
        names = map(split_name, known.files)
        splits = dict.fromkeys([*known.rows, *(name for name in names if name not in known.rows)])
        # without known sizes, a folder stands for all its splits
        splits = dict.fromkeys(split if split in known.rows else split.split("/")[0] for split in splits)
        sizes = [
            f"{split} {'~' * (split in known.unsure)}{known.rows[split]:,}" if split in known.rows else split
            for split in splits
        ]
        console.print(f"[bold]{known.name}[/bold]  {known.gives}")
        console.print(Padding(", ".join(sizes), (0, 0, 0, 2)))
        console.print(Padding(escape(known.note), (0, 0, 1, 2)))
    typer.echo("~ an approximate size, not verified")


def fetch_command(
    name: Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="A known source, or a local folder.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the result.", show_default=False)],
    split: Annotated[
        list[str] | None,
        typer.Option("--split", help="Split or folder of splits; may be repeated. All by default."),
    ] = None,
    origin: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="URL|FOLDER", help="Mirror or folder to take the source's files from."
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not use the network (as HF_HUB_OFFLINE=1).")
    ] = False,
    on_error: Annotated[
        Literal["stop", "skip"],
        typer.Option("--on-error", help="What to do with a row that is not a record."),
    ] = "stop",
) -> None:
    """Fetch a source and write its splits as JSON lines of the project's records, text unchanged.

    A broken connection is resumed. After an interruption, complete files are kept; of an incomplete one,
    a plain URL's resumes and the hub's starts again. Files are checked by sha256 and row counts against
    the known sizes. OUT/manifest.json records what was fetched.
    """
    from tldr.sources.hub.fetch import fetch
    from tldr.sources.hub.load import open_source

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def shown(path: str, there: int, size: int | None) -> None:
            bar.update(task, description=escape(path), completed=there, total=size)

        def counted(of: str, rows: int) -> None:
            bar.update(task, description=escape(f"{of}: {rows:,} rows"), total=None)

        source = open_source(name, origin, offline=offline, refresh=True, shown=shown)
        wanted = "+".join(split) if split else None
        fetched = fetch(source, wanted, out, on_error=on_error, counted=counted)
    table = Table("split", "record", "rows", "bad", "white space")
    for result in fetched.splits:
        white = str(result.convention)
        table.add_row(result.split, result.record, f"{result.rows:,}", f"{len(result.bad):,}", white)
    Console().print(table)
    for warning in fetched.warnings:
        typer.secho(f"WARNING: {warning}", fg=typer.colors.RED, err=True)
    typer.echo(out)
