"""``judge``: which of two summaries is better, by a language model, a reward model or an embedding."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eval.judge.prompt import AXES
from tldr.cli.evaluate import OnError, tell_bad_lines
from tldr.errors import UsageError
from tldr.records import Judgement, ReadReport, read_records, write_records

if TYPE_CHECKING:
    import pandas as pd

    from eval.judge.budget import CostEstimate
    from eval.judge.endpoint import Connection
    from eval.judge.llm import Limits, LLMJudge
    from eval.judge.pairs import Judge

CONFIRM_ABOVE = 1.0
"""Dollars that are spent at a terminal without asking."""

REMEDY = "give openai:MODEL, rm:CHECKPOINT or embed:MODEL"


def judge(
    samples: Annotated[list[Path], typer.Argument(help="Samples: JSON-lines files or run folders.")],
    posts: Annotated[Path, typer.Option(help="The posts they were sampled for, with references.")],
    judge_name: Annotated[
        str, typer.Option("--judge", metavar="KIND:MODEL", help="openai:MODEL, rm:CHECKPOINT or embed:MODEL.")
    ],
    out: Annotated[Path, typer.Option(help="Judgements; what other judges said in it stays there.")],
    against: Annotated[str, typer.Option(help="The reference, or a policy among the samples.")] = "reference",
    policy: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose the samples are that name no policy.")
    ] = None,
    axis: Annotated[
        list[str], typer.Option(metavar="|".join(AXES), help="What to judge; may be repeated.")
    ] = ["overall"],  # noqa: B006
    limit: Annotated[
        int | None, typer.Option(min=1, help="Judge so many posts, the same for every policy.")
    ] = None,
    base_url: Annotated[
        str, typer.Option(metavar="URL", help="An OpenAI-compatible endpoint; its key: OPENAI_API_KEY.")
    ] = "https://api.openai.com/v1",
    price: Annotated[
        str | None,
        typer.Option(metavar="PROMPT/ANSWER", help="Dollars a million tokens; 0/0 for a server of your own."),
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(min=0, help="Dollars these questions may cost, paid ones included.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 8,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for a request.")] = 60.0,
    cache: Annotated[
        Path | None, typer.Option(help="Answers ever paid for.", show_default="judge-cache.sqlite beside OUT")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before spending.")] = False,
    on_error: OnError = "stop",
) -> None:
    """Judge samples against references, both orders always; a stopped run goes on where it was.

    The cost is estimated before anything is asked. Without a terminal to ask at, --max-cost must say
    how much may be spent.
    """
    from eval.common.io import load_posts, load_samples
    from eval.judge.endpoint import Connection
    from eval.judge.llm import Limits
    from eval.judge.pairs import pairs_to_judge

    before = read_records(out, Judgement) if out.exists() else []
    reports: list[ReadReport] = []
    texts = load_samples(samples, policy=policy, on_error=on_error, reports=reports)
    known = load_posts(posts, on_error=on_error, reports=reports)
    tell_bad_lines(reports)
    pairs = pairs_to_judge(texts, known, against=against, limit=limit)
    axes = [one for one in AXES if one in axis]
    if unknown := set(axis) - set(AXES):
        raise UsageError(
            f"no axis {', '.join(sorted(unknown))}", where="--axis", remedy=f"choose from {', '.join(AXES)}"
        )
    kind, _, model = judge_name.partition(":")
    if kind not in ("openai", "rm", "embed") or not model:
        raise UsageError(f"no judge {judge_name!r}", where="--judge", remedy=REMEDY)
    total = 2 * len(pairs) * len(axes)
    if kind != "openai":
        _collect(_local(kind, model).judge(pairs, axes), total, before, out)
        return
    limits = Limits(max_cost=max_cost, concurrency=concurrency)
    connection = Connection(model, base_url, timeout)
    with _asking(connection, price, cache or out.parent / "judge-cache.sqlite", limits) as llm:
        estimate = llm.estimate(pairs, axes)
        _agree(estimate, len(pairs), max_cost, yes)
        _collect(llm.judge(pairs, axes), total, before, out)


def _local(kind: str, model: str) -> Judge:
    """A judge that runs here; torch is loaded for it."""
    from eval.judge.scored import ScoreJudge
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


@contextmanager
def _asking(connection: Connection, price: str | None, cache: Path, limits: Limits) -> Iterator[LLMJudge]:
    """A judge at an endpoint, with its cache open.

    Raises:
        UsageError: no price, or as `Endpoint` and `Cache`.
    """
    from eval.judge.budget import Price
    from eval.judge.cache import Cache
    from eval.judge.endpoint import Endpoint
    from eval.judge.llm import LLMJudge

    if price is None:
        raise UsageError(
            f"the price of {connection.model} is not known here, so its cost cannot be told or limited",
            where="--price",
            remedy="give --price PROMPT/ANSWER in dollars a million tokens (0/0 for a server of your own)",
        )
    with closing(Endpoint(connection)) as endpoint, closing(Cache(cache)) as answers:
        yield LLMJudge(endpoint, answers, Price.parse(price), limits)


def at_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty()


def _agree(estimate: CostEstimate, pairs: int, max_cost: float | None, yes: bool) -> None:
    """Tell what it may cost, and make sure that this is wanted.

    Raises:
        UsageError: nobody is there to ask, and no --max-cost.
    """
    typer.echo(
        f"{pairs:,} pairs, both orders: {estimate.questions:,} questions, {estimate.answered:,} answered "
        f"before (${estimate.paid:.2f}).\n"
        f"The rest, estimated from its length: up to {estimate.prompt_tokens:,} tokens of prompt and "
        f"{estimate.answer_tokens:,} of answer, ${estimate.cost:.2f}.",
        err=True,
    )
    if estimate.cost == 0:
        return
    if max_cost is None and not at_terminal():
        raise UsageError(
            "there is no terminal to ask whether this may be spent",
            where="--max-cost",
            remedy="say how many dollars may be spent with --max-cost",
        )
    asked = at_terminal() and not yes and estimate.cost > CONFIRM_ABOVE
    if asked and not typer.confirm("Go on?", err=True):
        raise typer.Exit(1)


def _collect(found: Iterable[Judgement], total: int, before: list[Judgement], out: Path) -> None:
    """Write all judgements, whatever ends the run, and show what follows from them."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    from eval.common.tables import result_table, to_markdown
    from eval.judge.measure import complete, judge_results

    rows: list[Judgement] = []
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=Console(stderr=True)) as bar:
            for row in bar.track(found, total=total, description="judging"):
                rows.append(row)
    finally:
        paired = sorted(complete(rows), key=_identity)  # answers arrive in any order
        new = {_identity(row) for row in paired}
        write_records(out, [row for row in before if _identity(row) not in new] + paired)
        if half := len(rows) - len(paired):
            typer.echo(f"{half} judgements wait in the cache for their pair's other order", err=True)
    if paired:
        typer.echo(to_markdown(_told_measures(result_table(judge_results(paired)))))
    typer.echo(out)


def _told_measures(table: pd.DataFrame) -> pd.DataFrame:
    """A row a measure, its interval beside the value; each counts something else, as `unit` says."""
    intervals = [f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]" for row in table.itertuples(index=False)]
    named = table.assign(value=intervals).rename(columns={"scorer": "judge"})
    return named[["judge", "policy", "measure", "value", "unit", "n", "posts", "runs"]]


def _identity(row: Judgement) -> tuple[str, ...]:
    return row.judge, row.axis, row.id, *row.policies, *map(str, row.order), *(row.texts or ()), *row.runs
