"""``evaluate`` and ``agreement``: measures on files from any source."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tldr.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from eval.common.study import Section
    from tldr.records import Rating, ReadReport

PostsOption = Annotated[
    list[Path],
    typer.Option("--posts", help="Posts with references (for ROUGE, copying).", show_default=False),
]
TablesOption = Annotated[
    Path | None,
    typer.Option("--out", help="Folder for the tables as csv, md and tex.", show_default=False),
]
StemmerOption = Annotated[bool, typer.Option("--stemmer", help="ROUGE with the Porter stemmer.")]
OnErrorOption = Annotated[
    Literal["stop", "skip"],
    typer.Option("--on-error", help="At an invalid line: stop, or skip and count it."),
]
_SHOWN_BAD, _SHOWN_ROWS = 3, 60


def evaluate(
    samples: Annotated[
        list[Path],
        typer.Argument(help="Files of samples, or run folders.", show_default=False),
    ] = [],  # noqa: B006
    posts: PostsOption = [],  # noqa: B006
    comparisons: Annotated[
        list[Path],
        typer.Option(help="Human comparisons in OpenAI's schema; repeatable.", show_default=False),
    ] = [],  # noqa: B006
    judgements: Annotated[
        list[Path],
        typer.Option(help="Judges' verdicts; repeatable.", show_default=False),
    ] = [],  # noqa: B006
    ratings: Annotated[
        list[Path],
        typer.Option(help="Axis ratings from 1 to 7 in OpenAI's schema; repeatable.", show_default=False),
    ] = [],  # noqa: B006
    policy: Annotated[
        str | None,
        typer.Option(help="Policy name for samples without one.", show_default=False),
    ] = None,
    by: Annotated[
        Literal["subreddit", "length"] | None,
        typer.Option(help="Also break preference down by this.", show_default=False),
    ] = None,
    stemmer: StemmerOption = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for tables, and figures of human labels and ratings.", show_default=False),
    ] = None,
    split: Annotated[
        list[str], typer.Option(help="Draw the human labels and ratings of this split; repeatable.")
    ] = ["valid2"],  # noqa: B006
    on_error: OnErrorOption = "stop",
    draws: Annotated[int, typer.Option(min=1, help="Bootstrap draws.")] = 2000,
) -> None:
    """Measure samples, human comparisons, judgements and ratings from any source.

    Measures ROUGE, length and copying, and preference over the reference by every scorer: overall, at equal
    length, as Elo and between policies. Rows with only id and text need --policy NAME; a field
    judge_preferred ("ours" or "reference") counts as a scorer. With --out, human comparisons and ratings
    are also drawn as the paper's figures; policies are known by their names in OpenAI's release.
    """
    from eval.common.io import load_posts, load_samples
    from eval.common.pairs import load_comparisons, read_judgements, read_ratings
    from eval.report.files import file_sections

    if not (samples or comparisons or judgements or ratings):
        raise UsageError(
            "nothing to measure", remedy="give samples, --comparisons, --judgements or --ratings"
        )
    reports: list[ReadReport] = []
    people = load_comparisons(comparisons, on_error=on_error, reports=reports) if comparisons else None
    rated = read_ratings(ratings, on_error=on_error, reports=reports)
    sections = file_sections(
        load_samples(samples, policy=policy, on_error=on_error, reports=reports) if samples else None,
        load_posts(posts, on_error=on_error, reports=reports) if posts else None,
        people,
        read_judgements(judgements, on_error=on_error, reports=reports) if judgements else (),
        rated,
        by=by,
        stemmer=stemmer,
        draws=draws,
    )
    if out is not None and (comparisons or ratings):
        sections.append(_figures(people, rated, split, draws))
    tell_bad_lines(reports)
    _show_sections(sections, out)


def _figures(
    comparisons: pd.DataFrame | None, ratings: list[Rating], splits: list[str], draws: int
) -> Section:
    from eval.common.paper import PAPER_FOLDER
    from eval.report.people import Drawing, people_section

    return people_section(comparisons, ratings, Drawing(splits, PAPER_FOLDER, draws))


def _show_sections(sections: list[Section], out: Path | None) -> None:
    """Print tables and what is missing, and write tables and figures to `out`."""
    tables = [table for section in sections for table in section.tables]
    for table in tables:
        _show(table.shown, f"{table.name}: {table.caption}")
        _write(out, table.name, table.frame, table.shown)
    pictures = [picture for section in sections for picture in section.pictures]
    if out is not None and pictures:
        from eval.report.people import write_pictures

        for path in write_pictures(pictures, out):
            typer.echo(path)
    for kind in ("measured", "drawn"):
        for section in sections:
            for line in section.missing if kind == "measured" else section.undrawn:
                typer.echo(f"not {kind}: {line}", err=True)
    if not tables:
        raise UsageError("no measure is possible with these files", remedy="see above what is missing")


def agreement(
    comparisons: Annotated[
        list[Path], typer.Argument(help="Human comparisons in OpenAI's schema.", show_default=False)
    ],
    posts: PostsOption = [],  # noqa: B006
    same_policy: Annotated[
        bool, typer.Option("--same-policy", help="Only pairs of samples of one policy, as in the paper.")
    ] = False,
    ensemble: Annotated[int, typer.Option(min=2, help="Minimum number of other workers in an ensemble.")] = 3,
    unit: Annotated[Literal["words", "characters"], typer.Option(help="Unit of length.")] = "words",
    stemmer: StemmerOption = False,
    out: TablesOption = None,
    on_error: OnErrorOption = "stop",
    draws: Annotated[int, typer.Option(min=1, help="Bootstrap draws.")] = 2000,
) -> None:
    """Measure how often labelers, ensembles of them, ROUGE, length, copying and scorers agree.

    Scorers come from the `scores` of the comparisons' summaries. Indifferent answers are excluded.
    """
    from eval.agreement.measure import agreement_matrix, comparison_agreement
    from eval.common.io import load_posts
    from eval.common.pairs import load_comparisons

    reports: list[ReadReport] = []
    table = comparison_agreement(
        load_comparisons(comparisons, on_error=on_error, reports=reports),
        load_posts(posts, on_error=on_error, reports=reports) if posts else None,
        same_policy=same_policy,
        ensemble_of=ensemble,
        unit=unit,
        stemmer=stemmer,
        draws=draws,
    ).assign(runs=" ".join(sorted(path.stem for path in comparisons)))
    tell_bad_lines(reports)
    cells = [f"{row.value:.1%} ± {row.se:.1%} ({row.n})" for row in table.itertuples()]
    shown = agreement_matrix(table.assign(cell=cells), "cell").fillna("").rename_axis("").reset_index()
    rouge = "Porter stemmer" if stemmer else "no stemming"
    _show(shown, f"agreement ± standard error over posts (pairs); ROUGE with {rouge}")
    _write(out, "agreement", table, shown)


def tell_bad_lines(reports: list[ReadReport]) -> None:
    """Print how many lines of each file were skipped, and the first of them."""
    for report in reports:
        if report.bad:
            typer.echo(
                f"{report.path}: {len(report.bad)} invalid lines skipped, {report.good} read", err=True
            )
            for line in report.bad[:_SHOWN_BAD]:
                typer.echo(f"  {line}", err=True)


def _show(table: pd.DataFrame, title: str) -> None:
    """Print a table; cells are external text, never markup."""
    shown = Table(title=Text(title), title_justify="left")
    for name in table.columns:
        shown.add_column(Text(str(name)), overflow="fold")
    rows = table.head(_SHOWN_ROWS)
    if more := len(table) - len(rows):
        shown.caption = Text(f"and {more} more rows: --out writes all of them")
    for row in rows.astype(object).where(rows.notna(), "").itertuples(index=False):
        shown.add_row(*(Text(f"{cell:.3g}" if isinstance(cell, float) else str(cell)) for cell in row))
    # Do not fold cells if the output is a file or a pipe.
    Console(width=None if sys.stdout.isatty() else 1000).print(shown)


def _write(out: Path | None, name: str, table: pd.DataFrame, shown: pd.DataFrame) -> None:
    from eval.common.tables import write_table

    if out is not None:
        typer.echo(write_table(table, shown, out, name)[0])
