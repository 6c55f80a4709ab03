"""Verdicts of a judge on every policy's summaries, each against the reference, in both orders."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from tldr.errors import UsageError
from tldr.judge.pairs import SummaryPair
from tldr.records import Judgement, Sample, read_records, write_json, write_records
from tldr.settings.models import Lengths
from tldr.stages.judge import JudgeRun
from tldr.stages.judge.algorithm import judged_posts, pairs_against_reference
from tldr.stages.shared.posts import read_posts
from tldr.stages.shared.trained_on import posts_trained_on
from tldr.train.metrics import Progress

CACHE = "judge-cache.sqlite"
"""Beside the runs: all answers of language models, whichever run asked."""


def run(ctx: JudgeRun) -> None:
    """Write ``judgements.jsonl``, sorted, and ``judge.json``: who judged, and whether it is held out.

    Inputs: ``data``, ``samples-<name>`` for all that is judged and, for a reward model, ``reward`` and
    ``trained-<size>``.

    Raises:
        UsageError: a reward model that learned from posts that the policies' reward models learned from.
        LabError: as of `tldr.judge.llm.LLMJudge`; every answer that was paid for is kept.
    """
    name = str(ctx.tags.get("variant") or ctx.settings.kind)
    about = {"judge": name} | (_held_out(ctx) if ctx.settings.kind == "reward" else _who(ctx))
    posts = judged_posts(read_posts(ctx.inputs.data, "valid2", references=True), ctx.settings.posts)
    samples = {
        place.name: ctx.settings.judged(read_records(place / "samples.jsonl", Sample))
        for _, place in sorted(ctx.inputs.samples.items())
    }
    pairs = pairs_against_reference(samples, posts)
    progress = Progress(ctx.folder, total=2 * len(pairs))
    rows: list[Judgement] = []
    for row in _by_reward(ctx, pairs) if ctx.settings.kind == "reward" else _by_model(ctx, pairs):
        rows.append(row.model_copy(update={"judge": name}))
        if len(rows) % 100 == 0:
            progress.update(len(rows))
    rows.sort(key=lambda row: (row.policies, row.id, row.runs, row.texts, row.order))
    write_records(ctx.folder / "judgements.jsonl", rows)
    write_json(ctx.folder / "judge.json", about | {"posts": len(posts), "pairs": len(pairs)})


def _who(ctx: JudgeRun) -> dict[str, str | None]:
    return {"model": ctx.settings.model, "base_url": ctx.settings.base_url}


def _held_out(ctx: JudgeRun) -> dict[str, bool | int | None]:
    """Whether the judge learned from other posts' labels than the reward models of the policies.

    Another seed alone is not held out: it shares the first one's mistakes about the same labels (Gao et al.
    2022, whose gold model is another model).

    Returns:
        ``held_out``: null where the judge does not say what it was trained on; ``posts_trained_on``.

    Raises:
        UsageError: it learned from some of the same posts.
    """
    assert ctx.inputs.reward is not None
    own = posts_trained_on(ctx.inputs.reward)
    if own is None:
        return {"held_out": None, "posts_trained_on": None}
    for name, place in sorted(ctx.inputs.trained.items()):
        shared = own & (posts_trained_on(place) or frozenset())
        if shared:
            raise UsageError(
                f"the judge learned from {len(shared):,} of the {len(own):,} posts whose labels trained the "
                f"reward model of size {name} too, so it is not held out",
                where="judges",
                remedy="train it on other posts: reward.limit keeps the first labels, and a variant with "
                "part: last takes the last ones",
            )
    return {"held_out": True, "posts_trained_on": len(own)}


def _by_reward(ctx: JudgeRun, pairs: Sequence[SummaryPair]) -> Iterator[Judgement]:
    from tldr.judge.scored import ScoreJudge
    from tldr.stages.shared.judging import reward_scores

    assert ctx.inputs.reward is not None
    scores = reward_scores(ctx.inputs.reward, _windows(ctx.inputs.reward, ctx.lengths), ctx.precision)
    return ScoreJudge("reward", scores, logits=True).judge(pairs, ["overall"])


def _windows(place: Path, lengths: Lengths) -> Lengths:
    """The windows that a reward model was trained with, by its run's ``config.json``, else the study's."""
    config = place / "config.json"
    if not config.is_file() or "lengths" not in (found := json.loads(config.read_text(encoding="utf-8"))):
        return lengths
    return Lengths.model_validate(found["lengths"])


def _by_model(ctx: JudgeRun, pairs: Sequence[SummaryPair]) -> Iterator[Judgement]:
    from tldr.judge.cache import Cache
    from tldr.judge.endpoint import Connection, Endpoint
    from tldr.judge.llm import Limits, LLMJudge

    settings = ctx.settings
    assert settings.model is not None
    connection = Connection(settings.model, settings.base_url, settings.timeout)
    limits = Limits(max_cost=settings.max_cost, concurrency=settings.concurrency)
    cache = Cache(ctx.folder.parent / CACHE)
    with closing(Endpoint(connection)) as endpoint, closing(cache) as answers:
        yield from LLMJudge(endpoint, answers, settings.per_million, limits).judge(pairs, ["overall"])
