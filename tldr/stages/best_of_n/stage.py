"""Best of N: one pool of SFT samples, the best by reward model, gold or ROUGE (P 4.3, T = 0.7)."""

from __future__ import annotations

from statistics import mean

from rouge_score.rouge_scorer import RougeScorer

from tldr.models.ladder import parameter_count
from tldr.queries.encode import encode_queries
from tldr.records import Post, Sample, write_records
from tldr.stages.best_of_n import BestOfNRun
from tldr.stages.best_of_n.settings import BestOfNSettings
from tldr.stages.shared.common import (
    Device,
    Sampling,
    open_reward,
    open_sampler,
    open_tokenizer,
    read_posts,
    sample_responses,
)
from tldr.stages.shared.samples import policy_name, to_sample
from tldr.stages.shared.scoring import Scorer, gold_scores, has_gold
from tldr.train.metrics import Progress
from tldr.train.rng import derive


def run(ctx: BestOfNRun) -> None:
    """Write ``pool.jsonl`` (every sample with its scores) and ``samples.jsonl`` (the best of each post).

    Inputs: ``policy`` (SFT), ``reward``, ``data``, and ``reward-<name>`` for further reward models,
    whose scores in the pool are named ``rm_<name>``. One row of ``samples.jsonl`` a post and scorer;
    with several scorers they share the pool, so they differ in their choice alone.
    """
    device = Device.open(ctx.precision)
    models = {"rm": ctx.inputs.reward}
    models |= {f"rm_{name}": place for name, place in sorted(ctx.inputs.rewards.items())}
    progress = Progress(ctx.folder, total=1 + len(models))
    policy = open_sampler(ctx.inputs.policy, device)
    tokenizer = open_tokenizer(ctx.inputs.policy)
    posts = read_posts(ctx.inputs.data, "valid2", references=True)[: ctx.settings.posts]
    queries = encode_queries(tokenizer, posts, ctx.lengths.query)
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
    scores: dict[str, list[float]] = {}
    for done, (name, place) in enumerate(models.items(), start=2):
        rewards = scorer.rewards(open_reward(place, device))
        scores[name] = [value for row in rewards for value in row]
        progress.update(done)
    tags = {**ctx.tags, "params": parameter_count(policy), "best_of": ctx.settings.n}
    drawn = [(post, draw) for post, row in zip(posts, draws, strict=True) for draw in row]
    pool = [
        to_sample(
            ctx,
            post.id,
            draw,
            policy_name(ctx, "sft"),
            temperature=ctx.settings.temperature,
            scores={name: values[index] for name, values in scores.items()},
            tags=tags,
        )
        for index, (post, draw) in enumerate(drawn)
    ]
    pool = _with_other_scores(pool, posts, ctx.settings)
    write_records(ctx.folder / "pool.jsonl", pool)
    write_records(
        ctx.folder / "samples.jsonl",
        [best for name in ctx.settings.scorers for best in choose(pool, ctx.settings.n, name)],
    )


def _with_other_scores(pool: list[Sample], posts: list[Post], settings: BestOfNSettings) -> list[Sample]:
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
