"""``data filter`` and ``data fake-dump``: from the raw Reddit dump to posts and queries."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from tldr.cli.cnndm import add_cnndm_commands
from tldr.cli.evaluate import OnErrorOption, tell_bad_lines
from tldr.cli.fake_release import fake_release_command
from tldr.cli.overlap import overlap_command
from tldr.cli.reporting import reports_errors
from tldr.cli.sources import add_source_commands
from tldr.cli.study import Overrides
from tldr.study.load import read_settings


def add_data_commands(app: typer.Typer) -> None:
    """Add the commands to ``data``."""
    app.command("filter")(reports_errors(filter_command))
    app.command("fake-dump")(reports_errors(fake_dump_command))
    app.command("fake-release")(reports_errors(fake_release_command))
    add_source_commands(app)
    app.command("split")(reports_errors(split_command))
    app.command("overlap")(reports_errors(overlap_command))
    add_cnndm_commands(app)


def filter_command(
    raw: Annotated[
        list[str],
        typer.Argument(help="Raw Webis-TLDR-17 files: .json, .jsonl, .gz, .bz2, .xz, .zst, .zip[::MEMBER]."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the result.", show_default=False)],
    tokenizer: Annotated[
        str, typer.Option("--tokenizer", help="Folder or hub name; the paper counts GPT-2 tokens.")
    ] = "openai-community/gpt2",
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes; by default one per core.")
    ] = None,
    on_error: Annotated[
        Literal["stop", "skip"], typer.Option("--on-error", help="What to do at a line that holds no row.")
    ] = "stop",
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Filter the raw dump as the paper did: PPO queries, SFT posts, and the rows each rule removed.

    An interrupted filter resumes where it stopped. The settings are in tldr/sources/filter_rules.py; the
    list `off` switches rules off.
    """
    from eval.common.style import save
    from eval.funnel.figure import funnel_figure
    from tldr.sources import filter as filtering
    from tldr.sources.filter_rules import FilterOptions

    options = read_settings(FilterOptions, {}, overrides, where="--set")
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("filter", total=None)

        def show(state: filtering.FilterProgress) -> None:
            funnel = state.funnel
            text = f"{funnel.rows:,} rows, {funnel.queries:,} queries, {funnel.posts:,} posts"
            bar.update(task, description=text, total=state.total, completed=state.read)

        funnel = filtering.run_filter(
            raw, out, tokenizer, options, workers=workers, on_error=on_error, progress=show
        )
    save(funnel_figure(json.loads((out / "funnel.json").read_text(encoding="utf-8"))), out, "funnel")
    Console().print(Markdown(funnel.to_markdown().split("## Splits")[0]))
    typer.echo(out)


def fake_dump_command(
    out: Annotated[Path, typer.Argument(help="The file to write.")],
    rows: Annotated[int, typer.Option("--rows", min=1, help="Lines.")] = 100_000,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
) -> None:
    """Write a synthetic raw dump with planted rule violations, to try the filter."""
    from tldr.sources.fake_dump import write_fake_dump

    for fate, count in sorted(write_fake_dump(out, rows, seed).items()):
        typer.echo(f"{fate}: {count:,}")


def split_command(
    posts: Annotated[Path, typer.Argument(help="Posts with references, as JSON lines.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the three files.", show_default=False)],
    valid1: Annotated[float, typer.Option(help="Share of posts for selecting models.")] = 0.05,
    valid2: Annotated[float, typer.Option(help="Share of posts for reporting.")] = 0.05,
    apart: Annotated[
        list[Path] | None,
        typer.Option("--apart", help="Comparisons whose posts are left out of all three sets."),
    ] = None,
    on_error: OnErrorOption = "stop",
) -> None:
    """Split posts into sft, valid1 and valid2 by a hash of their ids; more posts move none to another set."""
    from tldr.inputs.posts import load_comparisons, load_posts, post_keys
    from tldr.locks import lock_beside, locked
    from tldr.records import ReadReport, write_records
    from tldr.sources.split import split_posts

    report, *labels = (ReadReport(path) for path in (posts, *(apart or ())))
    keys = post_keys(
        row.info for lines in labels for row in load_comparisons(lines.path, on_error=on_error, report=lines)
    )
    read = load_posts(posts, on_error=on_error, report=report)
    tell_bad_lines([report, *labels])
    sets = split_posts(read, valid1=valid1, valid2=valid2, apart=keys)
    with locked(lock_beside(out), "writing these sets", where=out, waiting=partial(typer.echo, err=True)):
        for name, rows in sets.items():
            typer.echo(f"{write_records(out / f'{name}.jsonl', rows)}: {len(rows):,} posts")
