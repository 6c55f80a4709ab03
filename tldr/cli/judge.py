"""``judge``: compare two summaries with a language model, a reward model or an embedding."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tldr.cli.evaluate import OnErrorOption, tell_bad_lines
from tldr.errors import UsageError
from tldr.files import drop_abandoned
from tldr.interrupts import exiting_on_sigterm
from tldr.judge.prompt import AXES, Axis
from tldr.locks import lock_beside, locked
from tldr.records import Judgement, ReadReport, read_records, write_records

if TYPE_CHECKING:
    import pandas as pd

    from tldr.judge.budget import CostEstimate, Price
    from tldr.judge.pairs import Judge

CONFIRM_ABOVE = 1.0
"""Dollars that may be spent at a terminal without confirmation."""

REMEDY = "give openai:MODEL, rm:CHECKPOINT or embed:MODEL"


def judge(
    samples: Annotated[list[Path], typer.Argument(help="Samples: JSON-lines files or run folders.")],
    posts: Annotated[Path, typer.Option(help="The posts they were sampled for, with references.")],
    judge_name: Annotated[
        str, typer.Option("--judge", metavar="KIND:MODEL", help="openai:MODEL, rm:CHECKPOINT or embed:MODEL.")
    ],
    out: Annotated[Path, typer.Option(help="File for judgements; those of other judges in it are kept.")],
    against: Annotated[str, typer.Option(help="The reference, or a policy among the samples.")] = "reference",
    policy: Annotated[
        str | None, typer.Option(metavar="NAME", help="Policy name for samples without one.")
    ] = None,
    axis: Annotated[
        list[str], typer.Option(metavar="|".join(AXES), help="Criterion to judge by; repeatable.")
    ] = ["overall"],  # noqa: B006
    limit: Annotated[
        int | None, typer.Option(min=1, help="Number of posts to judge, the same for every policy.")
    ] = None,
    base_url: Annotated[
        str, typer.Option(metavar="URL", help="An OpenAI-compatible endpoint; its key is OPENAI_API_KEY.")
    ] = "https://api.openai.com/v1",
    price: Annotated[
        str | None,
        typer.Option(metavar="PROMPT/ANSWER", help="Dollars per million tokens; 0/0 for your own server."),
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(min=0, help="Maximum cost in dollars, including answers already paid for.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Concurrent requests.")] = 8,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds per request.")] = 60.0,
    cache: Annotated[
        Path | None, typer.Option(help="Cache of all answers.", show_default="judge-cache.sqlite beside OUT")
    ] = None,
    retry_invalid: Annotated[
        bool, typer.Option("--retry-invalid", help="Pay again for cached answers that hold no verdict.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before spending.")] = False,
    on_error: OnErrorOption = "stop",
) -> None:
    """Judge samples against references, always in both orders; a stopped run resumes where it was.

    The cost is estimated before any request. Without a terminal for confirmation, --max-cost is required.
    """
    from eval.common.io import load_posts, load_samples
    from eval.judge.pairs import pairs_to_judge
    from tldr.judge.endpoint import Connection
    from tldr.judge.llm import Limits, asking

    if out.exists():
        read_records(out, Judgement)  # a file of something else is refused before anything is asked
    reports: list[ReadReport] = []
    texts = load_samples(samples, policy=policy, on_error=on_error, reports=reports)
    known = load_posts(posts, on_error=on_error, reports=reports)
    tell_bad_lines(reports)
    pairs = pairs_to_judge(texts, known, against=against, limit=limit)
    axes = _known_axes(axis)
    kind, _, model = judge_name.partition(":")
    if kind not in ("openai", "rm", "embed") or not model:
        raise UsageError(f"unknown judge {judge_name!r}", where="--judge", remedy=REMEDY)
    total = 2 * len(pairs) * len(axes)
    if kind != "openai":
        _collect(_local(kind, model).judge(pairs, axes), total, out)
        return
    limits = Limits(max_cost=max_cost, concurrency=concurrency, retry_invalid=retry_invalid)
    connection = Connection(model, base_url, timeout)
    kept = cache or out.parent / "judge-cache.sqlite"
    with asking(connection, kept, _price(price, model), limits) as llm:
        estimate = llm.estimate(pairs, axes)
        _agree(estimate, len(pairs), max_cost, yes)
        _collect(llm.judge(pairs, axes), total, out)


def _known_axes(asked: Sequence[str]) -> list[Axis]:
    """The criteria in their order.

    Raises:
        UsageError: one is unknown.
    """
    if unknown := set(asked) - set(AXES):
        raise UsageError(
            f"unknown axis {', '.join(sorted(unknown))}",
            where="--axis",
            remedy=f"choose from {', '.join(AXES)}",
        )
    return [name for name in AXES if name in asked]


def _local(kind: str, model: str) -> Judge:
    """A judge that runs locally; imports torch."""
    from tldr.judge.scored import ScoreJudge
    from tldr.settings.models import Lengths
    from tldr.stages.shared.judging import embedding_scores, reward_scores
    from tldr.study.folder import RUN, RunFile

    place = Path(model)
    if kind == "embed":
        return ScoreJudge(f"embed:{place.name if place.exists() else model}", embedding_scores(model))
    runs = [folder for folder in (place, place.parent) if (folder / RUN).is_file()]
    if not runs:
        return ScoreJudge(f"rm:{place.resolve().name}", reward_scores(place, Lengths()), logits=True)
    run = RunFile.read(runs[0])
    scores = reward_scores(place, run.lengths, run.precision)
    return ScoreJudge(f"rm:{runs[0].resolve().name}", scores, logits=True)


def _price(text: str | None, model: str) -> Price:
    """The price of a model.

    Raises:
        UsageError: there is none, or it is no price.
    """
    from tldr.judge.budget import Price

    if text is None:
        raise UsageError(
            f"the price of {model} is unknown, so its cost cannot be estimated or limited",
            where="--price",
            remedy="give --price PROMPT/ANSWER in dollars per million tokens (0/0 for your own server)",
        )
    return Price.parse(text)


def at_terminal() -> bool:
    """Whether a user can confirm."""
    return sys.stdin.isatty()


def _agree(estimate: CostEstimate, pairs: int, max_cost: float | None, yes: bool) -> None:
    """Print the estimated cost and ask for confirmation if necessary.

    Raises:
        UsageError: there is neither a terminal nor --max-cost.
    """
    typer.echo(
        f"{pairs:,} pairs in both orders: {estimate.questions:,} questions, {estimate.answered:,} already "
        f"answered (${estimate.paid:.2f}).\n"
        f"Estimate for the rest: up to {estimate.prompt_tokens:,} prompt tokens and "
        f"{estimate.answer_tokens:,} answer tokens, ${estimate.cost:.2f}.",
        err=True,
    )
    if estimate.cost == 0:
        return
    if max_cost is None and not at_terminal():
        raise UsageError(
            "there is no terminal to confirm the cost",
            where="--max-cost",
            remedy="give the maximum cost in dollars with --max-cost",
        )
    asked = at_terminal() and not yes and estimate.cost > CONFIRM_ABOVE
    if asked and not typer.confirm("Continue?", err=True):
        raise typer.Exit(1)


def _collect(found: Iterable[Judgement], total: int, out: Path) -> None:
    """Write all judgements, however the run ends (Ctrl-C and SIGTERM too), and print the results."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    from eval.common.tables import result_table, to_markdown
    from eval.judge.measure import complete, judge_results

    rows: list[Judgement] = []
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with exiting_on_sigterm(), Progress(*columns, console=Console(stderr=True)) as bar:
            for row in bar.track(found, total=total, description="judging"):
                rows.append(row)
    finally:
        paired = sorted(complete(rows), key=_identity)  # answers arrive in any order
        _merge_into(out, paired)
        if half := len(rows) - len(paired):
            typer.echo(f"{half} judgements stay in the cache until their other order is judged", err=True)
    if paired:
        typer.echo(to_markdown(_told_measures(result_table(judge_results(paired)))))
    typer.echo(out)


def _merge_into(out: Path, paired: list[Judgement]) -> None:
    """Add judgements to a file, in the place of those of the same questions; others may do so too."""
    new = {_identity(row) for row in paired}
    lock = lock_beside(out)
    with locked(lock, "adding its judgements", where=out, waiting=partial(typer.echo, err=True)):
        drop_abandoned(out.parent)
        before = read_records(out, Judgement) if out.exists() else []
        write_records(out, [row for row in before if _identity(row) not in new] + paired)


def _told_measures(table: pd.DataFrame) -> pd.DataFrame:
    """One row per measure, with its interval beside the value; `unit` says what each one counts."""
    intervals = [f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]" for row in table.itertuples(index=False)]
    named = table.assign(value=intervals).rename(columns={"scorer": "judge"})
    return named[["judge", "policy", "measure", "value", "unit", "n", "posts", "runs"]]


def _identity(row: Judgement) -> tuple[str, ...]:
    return row.judge, row.axis, row.id, *row.policies, *map(str, row.order), *(row.texts or ()), *row.runs
