"""What a study's language-model judges are asked, and what that costs at most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from tldr.judge.budget import estimated_tokens
from tldr.judge.llm import Limits
from tldr.judge.pairs import ORDERS
from tldr.judge.prompt import build_prompt
from tldr.measures.best_of_n import doublings
from tldr.plan.costs import PlannedRun, cost_of
from tldr.plan.counts import Counts
from tldr.plan.study import Planner
from tldr.records import Post
from tldr.stages.best_of_n.settings import BestOfNSettings
from tldr.stages.data.settings import DataSettings
from tldr.stages.judge.settings import JudgeSettings
from tldr.study.runs import InputSource, Run
from tldr.toy.settings import ToyData


@dataclass(frozen=True)
class JudgingPlan:
    """What a run asks of an endpoint.

    Attributes:
        questions: pairs in both orders; fewer where summaries are equal or answers are cached.
        prompt_tokens: of one question, as `tldr.judge.budget` counts them: rather too many.
        dollars: if all are asked and all answers are as long as they may be. limit: `max_cost`.
    """

    run: str
    title: str
    model: str
    questions: int
    prompt_tokens: int
    dollars: float
    limit: float | None

    def row(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return asdict(self)


def judged_summaries(run: Run) -> int:
    """Summaries of each post that a judge compares with the reference, at most: equal ones count once."""
    scored = [source.runs[0] for name, source in run.parents.items() if name.startswith("samples-")]
    drawn = {one.parents["samples"].runs[0].name: one.parents["samples"].runs[0] for one in scored}
    return sum(cost_of(one.stage).sampled(one).summaries for one in drawn.values())


def judged_pools(run: Run, reported: Callable[[int | None], int]) -> list[tuple[int, int]]:
    """Posts of each pool that a judge sees, and at most how many summaries of each of them (`most_texts`).

    Args:
        reported: posts that are reported on, at most so many.
    """
    assert isinstance(run.settings, JudgeSettings)
    found = []
    for name, source in run.parents.items():
        pool = source.runs[0].settings if name.startswith("pool-") else None
        if isinstance(pool, BestOfNSettings):
            posts = run.settings.pool_posts(reported(pool.posts))
            found.append((posts, most_texts(pool.n, _choosers(source.runs[0], pool))))
    return found


def most_texts(n: int, choosers: int) -> int:
    """Different texts that are the best of the first 1, 2, 4, ..., n samples by so many choosers, at most.

    At each doubling every chooser may find a better one among the new samples, as far as these go round.
    There are fewer where the best stays the same, or choosers agree.
    """
    return 1 + sum(min(choosers, more - fewer) for fewer, more in pairwise(doublings(n)))


def _choosers(run: Run, pool: BestOfNSettings) -> int:
    """What a pool's samples can be chosen by: reward models, length, ROUGE and planted truth."""
    models = {tuple(one.key for one in source.runs) or source.identity for source in _rewards(run)}
    data = run.parents["data"].runs[0].settings
    planted = isinstance(data, DataSettings) and isinstance(data.data, ToyData)
    return len(models) + 1 + ("rouge" in pool.scorers) + planted


def _rewards(run: Run) -> list[InputSource]:
    return [source for name, source in run.parents.items() if name.split("-")[0] == "reward"]


def judging_plans(planner: Planner) -> list[JudgingPlan]:
    """The questions of every run that asks a language model."""
    return [
        _plan(run, run.settings, planner.counts)
        for run in planner.runs
        if isinstance(run.settings, JudgeSettings) and run.settings.kind == "openai"
    ]


def _plan(run: Run, settings: JudgeSettings, counts: Counts) -> JudgingPlan:
    planned = PlannedRun(run, counts)
    posts, summaries = planned.reported(settings.posts), judged_summaries(run)
    mean = planned.portion(posts, 2).mean
    empty = build_prompt(Post(id="p", subreddit="", title="", post="-"), "", "")
    tokens = estimated_tokens(empty) + round(mean.query + 2 * mean.response)
    of_pools = sum(some * each for some, each in judged_pools(run, planned.reported))
    questions = len(ORDERS) * (posts * summaries + of_pools)
    dollars = questions * settings.per_million.of(tokens, Limits().answer_tokens)
    assert settings.model is not None
    return JudgingPlan(run.name, run.title, settings.model, questions, tokens, dollars, settings.max_cost)
