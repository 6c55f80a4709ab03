"""Best of N: one pool of SFT samples, the best by reward model, gold or ROUGE (P 4.3, T = 0.7)."""

from __future__ import annotations

from statistics import mean

from rouge_score.rouge_scorer import RougeScorer

from tldr.config import BestOfN
from tldr.models.ladder import parameter_count
from tldr.records import Post, Sample, write_records
from tldr.stages.common import (
    Device,
    Draw,
    Sampling,
    encode_posts,
    open_policy,
    open_reward,
    open_tokenizer,
    read_posts,
    sample_responses,
)
from tldr.stages.context import RunContext
from tldr.stages.scoring import Scorer, gold_scores, has_gold
from tldr.train.metrics import Progress
from tldr.train.rng import derive


def run(ctx: RunContext[BestOfN]) -> None:
    """Write ``pool.jsonl`` (every sample with its scores) and ``samples.jsonl`` (the best of each post).

    Inputs: ``policy`` (SFT), ``reward``, ``data``. One row of ``samples.jsonl`` a post and scorer;
    with several scorers they share the pool, so they differ in their choice alone.
    """
    device = Device.open(ctx.precision)
    progress = Progress(ctx.folder, total=3)
    policy = open_policy(ctx.inputs["policy"], device)
    tokenizer = open_tokenizer(ctx.inputs["policy"])
    posts = read_posts(ctx.inputs["data"], "valid2", references=True)
    queries = encode_posts(tokenizer, posts, ctx.lengths)
    draws = sample_responses(
        policy,
        tokenizer,
        queries,
        Sampling(n=ctx.settings.n, temperature=ctx.settings.temperature),
        max_new_tokens=ctx.lengths.response,
        seed=derive(ctx.seed, "best_of_n"),
        device=device,
    )
    progress.update(1)
    scorer = Scorer(tokenizer, queries, [[draw.ids for draw in row] for row in draws], device)
    rewards = scorer.rewards(open_reward(ctx.inputs["reward"], device))
    progress.update(2)
    tags = {**ctx.tags, "params": parameter_count(policy), "best_of": ctx.settings.n}
    pool = [
        _sample(ctx, post, draw, score, tags)
        for post, row, scores in zip(posts, draws, rewards, strict=True)
        for draw, score in zip(row, scores, strict=True)
    ]
    pool = _with_other_scores(pool, posts, ctx.settings)
    write_records(ctx.folder / "pool.jsonl", pool)
    write_records(
        ctx.folder / "samples.jsonl",
        [best for name in ctx.settings.scorers for best in choose(pool, ctx.settings.n, name)],
    )


def _sample(
    ctx: RunContext[BestOfN], post: Post, draw: Draw, score: float, tags: dict[str, str | int | float | bool]
) -> Sample:
    return Sample(
        id=post.id,
        policy=f"sft-{ctx.tags.get('size', '')}".rstrip("-"),
        study=ctx.study,
        run=ctx.run,
        seed=ctx.seed,
        temperature=ctx.settings.temperature,
        n=1,
        text=draw.text,
        response_ids=draw.ids,
        tokens=len(draw.ids),
        stopped=draw.stopped,
        scores={"rm": score},
        tags=tags,
    )


def _with_other_scores(pool: list[Sample], posts: list[Post], settings: BestOfN) -> list[Sample]:
    """Gold scores where the world has them; ROUGE (mean of R-1/2/L F, no stemmer) where asked for."""
    by_id = {post.id: post for post in posts}
    rouge = RougeScorer(["rouge1", "rouge2", "rougeL"]) if "rouge" in settings.scorers else None
    gold = has_gold(posts)
    scored = []
    for sample in pool:
        scores, post = dict(sample.scores), by_id[sample.id]
        if gold:
            scores.update(gold_scores(post, sample.text, bool(sample.stopped)))
        if rouge is not None:
            scores["rouge"] = mean(
                part.fmeasure for part in rouge.score(post.summary or "", sample.text).values()
            )
        scored.append(sample.model_copy(update={"scores": scores}))
    return scored


def choose(pool: list[Sample], n: int, scorer: str) -> list[Sample]:
    """The highest-scored of each consecutive `n` samples; the first wins a tie."""
    best = []
    for start in range(0, len(pool), n):
        top = max(pool[start : start + n], key=lambda sample: sample.scores[scorer])
        name = f"best_of_{n}" + ("" if scorer == "rm" else f"_{scorer}")
        size = top.tags.get("size")
        best.append(
            top.model_copy(
                update={
                    "policy": f"{name}-{size}" if size else name,
                    "n": n,
                    "tags": {**top.tags, "method": "best_of_n", "scorer": scorer},
                }
            )
        )
    return best
