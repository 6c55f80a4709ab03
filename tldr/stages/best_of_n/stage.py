"""Best of N: one pool of SFT samples a post, and the best of it by each scorer (P 4.3, T = 0.7)."""

from __future__ import annotations

from tldr.models.ladder import parameter_count
from tldr.queries.encode import encode_queries
from tldr.records import write_records
from tldr.stages.best_of_n import BestOfNRun
from tldr.stages.best_of_n.algorithm import choose, with_other_scores
from tldr.stages.shared.device import Device
from tldr.stages.shared.networks import open_reward, open_sampler
from tldr.stages.shared.posts import read_posts
from tldr.stages.shared.sample_records import policy_name, to_sample
from tldr.stages.shared.sampling import Sampling, sample_responses
from tldr.stages.shared.summary_scorer import SummaryScorer
from tldr.stages.shared.tokenizers import check_reads_tokens_of, open_tokenizer
from tldr.train.metrics import Progress
from tldr.train.rng import derive


def run(ctx: BestOfNRun) -> None:
    """Write ``pool.jsonl`` (every sample with its scores) and ``samples.jsonl`` (the best of each post).

    Inputs: ``policy`` (SFT), ``reward``, ``data``, and ``reward-<name>`` for further reward models,
    whose scores in the pool are named ``rm_<name>``. One row of ``samples.jsonl`` a post and scorer;
    with several scorers they share the pool, so they differ in their choice alone.
    """
    device = Device.open(ctx.precision, shared=True)
    models = {"rm": ctx.inputs.reward}
    models |= {f"rm_{name}": place for name, place in sorted(ctx.inputs.rewards.items())}
    progress = Progress(ctx.folder, total=1 + len(models))
    tokenizer = open_tokenizer(ctx.inputs.policy)
    for place in models.values():
        check_reads_tokens_of(place, ctx.inputs.policy, tokenizer, "best_of_n.reward")
    policy = open_sampler(ctx.inputs.policy, device, tokenizer)
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
    scorer = SummaryScorer(tokenizer, queries, [[draw.ids for draw in row] for row in draws], device)
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
    pool = with_other_scores(pool, posts, ctx.settings)
    write_records(ctx.folder / "pool.jsonl", pool)
    write_records(
        ctx.folder / "samples.jsonl",
        [best for name in ctx.settings.scorers for best in choose(pool, ctx.settings.n, name)],
    )
