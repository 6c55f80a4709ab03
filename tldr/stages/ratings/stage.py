"""Summaries rated on the paper's four axes by simulated labelers (P C.1, Figs. 3 and 12)."""

from __future__ import annotations

import random

from tldr.errors import UsageError
from tldr.measures.sentences import sentences
from tldr.records import Post, Rating, Sample, read_records, write_records
from tldr.stages.ratings import RatingsRun
from tldr.stages.shared.gold import has_gold
from tldr.stages.shared.posts import read_posts
from tldr.toy.labelers import Candidate, rate
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
    rows: list[Rating] = []
    for post in posts:
        plain = {"reference": post.summary or "", "title": post.title}
        plain["lead-2"] = " ".join(sentences(post.post)[:2])
        rows += [rate(post, Candidate(text, name), rng) for name, text in plain.items()]
    progress.update(1)
    for done, place in enumerate(places, start=2):
        samples = read_records(place / "samples.jsonl", Sample)
        rows += _of_policy(samples, {post.id: post for post in posts}, rng)
        progress.update(done)
    write_records(ctx.folder / "ratings.jsonl", rows)


def _of_policy(samples: list[Sample], posts: dict[str, Post], rng: random.Random) -> list[Rating]:
    """Ratings of one policy's samples at its lowest temperature."""
    coldest = min(sample.temperature for sample in samples)
    return [
        rate(posts[sample.id], Candidate(sample.text, sample.policy, sample.stopped is not False), rng)
        for sample in samples
        if sample.id in posts and sample.temperature == coldest and sample.top_p == 1
    ]
