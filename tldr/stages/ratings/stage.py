"""Summaries of every policy, rated by simulated labelers."""

from __future__ import annotations

import random

from tldr.errors import UsageError
from tldr.records import Sample, read_records, write_records
from tldr.stages.ratings import RatingsRun
from tldr.stages.ratings.algorithm import rate_baselines, rate_policy
from tldr.stages.shared.gold import has_gold
from tldr.stages.shared.posts import read_posts
from tldr.train.metrics import Progress
from tldr.train.rng import derive


def run(ctx: RatingsRun) -> None:
    """Write ``ratings.jsonl``: one labeler's rating of every policy's greedy summary of every post.

    Inputs: ``data`` and ``samples-<name>`` for every policy; its samples at the lowest temperature
    are rated. The reference, the title and lead-2 are rated beside them.

    Raises:
        UsageError: the posts carry no toy facts.
    """
    posts = read_posts(ctx.inputs.data, "valid2", references=True)[: ctx.settings.posts]
    if not has_gold(posts):
        raise UsageError("only toy posts can be rated: others have no simulated labelers", where="ratings")
    places = [place for _, place in sorted(ctx.inputs.samples.items())]
    progress = Progress(ctx.folder, total=len(places) + 1)
    rng = random.Random(derive(ctx.seed, "ratings"))
    rows = rate_baselines(posts, rng)
    progress.update(1)
    for done, place in enumerate(places, start=2):
        rows += rate_policy(read_records(place / "samples.jsonl", Sample), posts, rng)
        progress.update(done)
    write_records(ctx.folder / "ratings.jsonl", rows)
