"""What a study's language-model judges are asked, and what that costs at most."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tldr.judge.budget import estimated_tokens
from tldr.judge.llm import Limits
from tldr.judge.pairs import ORDERS
from tldr.judge.prompt import build_prompt
from tldr.plan.costs import PlannedRun, cost_of
from tldr.plan.counts import Counts
from tldr.plan.study import Planner
from tldr.records import Post
from tldr.stages.judge.settings import JudgeSettings
from tldr.study.runs import Run


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
    questions = len(ORDERS) * posts * summaries
    dollars = questions * settings.per_million.of(tokens, Limits().answer_tokens)
    assert settings.model is not None
    return JudgingPlan(run.name, run.title, settings.model, questions, tokens, dollars, settings.max_cost)
