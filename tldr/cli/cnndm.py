"""``data cnndm`` and ``data summeval``: news articles and ratings of their summaries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tldr.cli.reporting import reports_errors

if TYPE_CHECKING:
    from tldr.records import Article

OutputFile = Annotated[Path, typer.Option("--out", help="The JSON-lines file to write.", show_default=False)]


def add_cnndm_commands(app: typer.Typer) -> None:
    """Add the commands to ``data``."""
    app.command("cnndm")(reports_errors(cnndm_command))
    app.command("summeval")(reports_errors(summeval_command))


def cnndm_command(
    source: Annotated[
        Path,
        typer.Argument(help="Folder of .story files, or rows as JSON lines or Parquet.", show_default=False),
    ],
    out: OutputFile,
    subset: Annotated[
        Literal["all", "filtered24to48", "filtered48to64"],
        typer.Option(
            "--subset", help="By the reference's tokens; filtered48to64 has bullet lists as references."
        ),
    ] = "all",
    tokenizer: Annotated[
        str, typer.Option("--tokenizer", help="Tokenizer that counts them: folder or hub name.")
    ] = "openai-community/gpt2",
    ftfy: Annotated[bool, typer.Option(help="Fix broken text with ftfy, as the paper did.")] = True,
    on_error: Annotated[
        Literal["stop", "skip"],
        typer.Option("--on-error", help="What to do with a story or row that is not an article."),
    ] = "stop",
) -> None:
    """Clean CNN/DM articles as the paper did, for a study's data.cnndm."""
    from tldr.queries.tokenizer import load_tokenizer
    from tldr.records import ReadReport, write_records
    from tldr.sources.cnndm import SUBSETS, in_subset, iter_articles

    wanted = SUBSETS.get(subset)
    counter = load_tokenizer(tokenizer) if wanted else None
    report, kept = ReadReport(source), 0

    def chosen() -> Iterator[Article]:
        nonlocal kept
        bullets = wanted is not None and wanted.bullets
        for article in iter_articles(source, bullets=bullets, ftfy=ftfy, on_error=on_error, report=report):
            if wanted is None or counter is None or in_subset(counter, article, wanted):
                kept += 1
                yield article

    write_records(out, chosen())
    typer.echo(f"{report.good:,} articles, {kept:,} kept, {len(report.bad):,} bad set aside", err=True)
    for line in report.bad[:3]:
        typer.echo(f"  {line}", err=True)
    typer.echo(out)


def summeval_command(
    source: Annotated[Path, typer.Argument(help="SummEval rows: article and systems, JSON lines.")],
    out: OutputFile,
) -> None:
    """Turn SummEval's expert scores into ratings on the paper's axes, for evaluate --ratings."""
    from tldr.records import ReadReport, make_records, write_records
    from tldr.sources.hub.layout import iter_rows, parse_fields
    from tldr.sources.summeval import SummEvalRow

    rows = make_records(
        iter_rows(source),
        lambda row: SummEvalRow.model_validate(parse_fields(row)),
        "SummEval row",
        report=ReadReport(source),
    )
    write_records(out, (rating for row in rows for rating in row.ratings()))
    typer.echo(out)
