"""A language model's verdicts on every policy's summaries, each against the reference, in both orders."""

from __future__ import annotations

from tldr.judge.endpoint import Connection
from tldr.judge.llm import Limits, asking
from tldr.stages.judge import JudgeRun
from tldr.stages.judge.stage import write_verdicts

CACHE = "judge-cache.sqlite"
"""Beside the runs: all answers of language models, whichever run asked."""


def run(ctx: JudgeRun) -> None:
    """Write ``judgements.jsonl``, ``judge.json`` and, where pools are judged, ``pool_judgements.jsonl``.

    Inputs: ``data``, ``samples-<name>`` and ``pool-<size>`` for all that is judged.

    Raises:
        LabError: as of `tldr.judge.llm.LLMJudge`; every answer that was paid for is kept.
    """
    settings = ctx.settings
    assert settings.model is not None
    connection = Connection(settings.model, settings.base_url, settings.timeout)
    limits = Limits(max_cost=settings.max_cost, concurrency=settings.concurrency)
    about = {"model": settings.model, "base_url": settings.base_url}
    with asking(connection, ctx.folder.parent / CACHE, settings.per_million, limits) as judge:
        write_verdicts(ctx, judge, about)
