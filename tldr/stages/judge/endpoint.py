"""A language model's verdicts on every policy's summaries, each against the reference, in both orders."""

from __future__ import annotations

from contextlib import closing

from tldr.judge.cache import Cache
from tldr.judge.endpoint import Connection, Endpoint
from tldr.judge.llm import Limits, LLMJudge
from tldr.stages.judge import JudgeRun
from tldr.stages.judge.stage import pairs_of, write_verdicts

CACHE = "judge-cache.sqlite"
"""Beside the runs: all answers of language models, whichever run asked."""


def run(ctx: JudgeRun) -> None:
    """Write ``judgements.jsonl`` and ``judge.json``.

    Inputs: ``data`` and ``samples-<name>`` for all that is judged.

    Raises:
        LabError: as of `tldr.judge.llm.LLMJudge`; every answer that was paid for is kept.
    """
    settings = ctx.settings
    assert settings.model is not None
    connection = Connection(settings.model, settings.base_url, settings.timeout)
    limits = Limits(max_cost=settings.max_cost, concurrency=settings.concurrency)
    about = {"model": settings.model, "base_url": settings.base_url}
    cache = Cache(ctx.folder.parent / CACHE)
    with closing(Endpoint(connection)) as endpoint, closing(cache) as answers:
        write_verdicts(ctx, pairs_of(ctx), LLMJudge(endpoint, answers, settings.per_million, limits), about)
