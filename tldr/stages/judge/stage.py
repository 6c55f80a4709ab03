"""A reward model's verdicts on every policy's summaries, each against the reference, in both orders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tldr.errors import UsageError
from tldr.judge.pairs import Judge, SummaryPair
from tldr.judge.scored import ScoreJudge
from tldr.records import Judgement, Sample, iter_records, read_records, write_json, write_records
from tldr.settings.models import Lengths
from tldr.stages.judge import JudgeRun
from tldr.stages.judge.algorithm import best_texts, judged_posts, pairs_against_reference, pool_pairs
from tldr.stages.shared.posts import read_posts
from tldr.stages.shared.trained_on import posts_trained_on
from tldr.train.metrics import Progress

POOL_JUDGEMENTS = "pool_judgements.jsonl"
"""Verdicts on the best of pools, which are no samples of a policy of the study."""


def run(ctx: JudgeRun) -> None:
    """Write ``judgements.jsonl`` and ``judge.json``, which says whether the judge is held out; and where
    pools are judged, ``pool_judgements.jsonl``.

    Inputs: ``data``, ``reward``, ``samples-<name>`` and ``pool-<size>`` for all that is judged, and
    ``trained-<name>``, the reward models that the policies were trained against or that choose in the pools.

    Raises:
        UsageError: the judge learned from posts that one of those learned from.
    """
    from tldr.stages.shared.judging import reward_scores  # imports torch, which the other kinds do not need

    assert ctx.inputs.reward is not None
    about, windows = held_out(ctx), _windows(ctx.inputs.reward, ctx.lengths)
    scores = reward_scores(ctx.inputs.reward, windows, ctx.precision, shared=True)
    write_verdicts(ctx, ScoreJudge("reward", scores, logits=True), about)


def pairs_of(ctx: JudgeRun) -> list[SummaryPair]:
    """All that is judged: the samples of the posts and temperatures that the settings ask for.

    The posts are chosen among those that every policy was sampled on.

    Raises:
        UsageError: there are no samples at these temperatures, or none of a post in common.
    """
    samples = {
        place.name: ctx.settings.judged(read_records(place / "samples.jsonl", Sample))
        for _, place in sorted(ctx.inputs.samples.items())
    }
    ids = [{row.id for row in rows} for rows in samples.values() if rows]
    if not ids or not (sampled := set.intersection(*ids)):
        what = "no post was sampled for by all policies" if ids else "no sample is at such a temperature"
        raise UsageError(what, where="judges", remedy="see judges.*.temperatures and evaluation.posts")
    posts = [post for post in read_posts(ctx.inputs.data, "valid2", references=True) if post.id in sampled]
    return pairs_against_reference(samples, judged_posts(posts, ctx.settings.posts))


def pool_pairs_of(ctx: JudgeRun) -> list[SummaryPair]:
    """The best of the pools at every N and by every chooser, on the share of their posts that is judged.

    A post's texts that several N or choosers share are one pair. The posts are chosen by a hash of their ids,
    so that a larger share only adds posts.
    """
    found: list[SummaryPair] = []
    for name, place in sorted(ctx.inputs.pools.items()):
        texts = best_texts(iter_records(place / "pool.jsonl", Sample))
        posts = [post for post in read_posts(ctx.inputs.data, "valid2", references=True) if post.id in texts]
        chosen = judged_posts(posts, ctx.settings.pool_posts(len(posts)))
        found += pool_pairs(name, place.name, texts, chosen)
    return found


def write_verdicts(ctx: JudgeRun, judge: Judge, about: Mapping[str, Any]) -> None:
    """Ask the judge, and write its verdicts, sorted, under the name that the study gives it.

    Raises:
        LabError: the judge cannot go on.
    """
    name = str(ctx.tags.get("variant") or ctx.settings.kind)
    samples, pools = pairs_of(ctx), pool_pairs_of(ctx)
    pairs = [*samples, *pools]
    progress = Progress(ctx.folder, total=2 * len(pairs))
    rows: list[Judgement] = []
    for row in judge.judge(pairs, ["overall"]):
        rows.append(row.model_copy(update={"judge": name}))
        if len(rows) % 100 == 0:
            progress.update(len(rows))
    rows.sort(key=lambda row: (row.policies, row.id, row.runs, row.texts, row.order))
    of_pools = {place.name for place in ctx.inputs.pools.values()}
    parts: tuple[list[Judgement], list[Judgement]] = [], []
    for row in rows:
        parts[row.runs[0] in of_pools].append(row)
    write_records(ctx.folder / "judgements.jsonl", parts[False])
    if ctx.inputs.pools:
        write_records(ctx.folder / POOL_JUDGEMENTS, parts[True])
    report = {"judge": name, **about, "posts": posts_of(samples), "pairs": len(samples)}
    write_json(ctx.folder / "judge.json", report | pools_told(ctx, pools))


def posts_of(pairs: Sequence[SummaryPair]) -> int:
    """The different posts of pairs."""
    return len({pair.post.id for pair in pairs})


def pools_told(ctx: JudgeRun, pairs: Sequence[SummaryPair]) -> dict[str, int]:
    """What ``judge.json`` says of the pools, where there are any."""
    return {"pool_posts": posts_of(pairs), "pool_pairs": len(pairs)} if ctx.inputs.pools else {}


def held_out(ctx: JudgeRun) -> dict[str, bool | int | None]:
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
                f"reward model {name} too, so it is not held out",
                where="judges",
                remedy="train it on other posts: see reward.posts",
            )
    return {"held_out": True, "posts_trained_on": len(own)}


def _windows(place: Path, lengths: Lengths) -> Lengths:
    """The windows that a reward model was trained with, by its run's ``config.json``, else the study's."""
    config = place / "config.json"
    if not config.is_file() or "lengths" not in (found := json.loads(config.read_text(encoding="utf-8"))):
        return lengths
    return Lengths.model_validate(found["lengths"])
