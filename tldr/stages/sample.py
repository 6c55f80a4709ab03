"""Sample a policy on the reporting posts (valid2): greedy and at the temperatures asked for."""

from __future__ import annotations

from tldr.config import Evaluation
from tldr.models.ladder import parameter_count
from tldr.records import Sample, write_records
from tldr.stages.common import (
    Device,
    Draw,
    Sampling,
    encode_posts,
    open_policy,
    open_tokenizer,
    read_posts,
    sample_responses,
)
from tldr.stages.context import RunContext
from tldr.train.metrics import Progress
from tldr.train.rng import derive


def run(ctx: RunContext[Evaluation]) -> None:
    """Write ``samples.jsonl``: one `Sample` a post and temperature.

    Inputs: ``policy`` (checkpoint or run folder), ``data`` (folder with ``valid2.jsonl``; a
    tokenizer is taken from the checkpoint). A policy tagged ``method: pretrained`` is sampled
    zero-shot: it also stops at a newline, as the paper's does (format table, stop token 198).
    """
    device = Device.open(ctx.precision)
    policy = open_policy(ctx.inputs["policy"], device)
    tokenizer = open_tokenizer(ctx.inputs["policy"])
    posts = read_posts(ctx.inputs["data"], "valid2")[: ctx.settings.posts]
    queries = encode_posts(tokenizer, posts, ctx.lengths)
    tags = {**ctx.tags, "params": parameter_count(policy)}
    rows: list[Sample] = []
    progress = Progress(ctx.folder, total=len(ctx.settings.temperatures))
    for done, temperature in enumerate(ctx.settings.temperatures, start=1):
        draws = sample_responses(
            policy,
            tokenizer,
            queries,
            Sampling(temperature=temperature, stop_newline=ctx.tags.get("method") == "pretrained"),
            max_new_tokens=ctx.lengths.response,
            seed=derive(ctx.seed, "sample", str(temperature)),
            device=device,
        )
        rows += [
            to_sample(ctx, post.id, draw, temperature=temperature, tags=tags)
            for post, (draw,) in zip(posts, draws, strict=True)
        ]
        progress.update(done)
    write_records(ctx.folder / "samples.jsonl", rows)


def to_sample(
    ctx: RunContext[Evaluation],
    post_id: str,
    draw: Draw,
    *,
    temperature: float,
    tags: dict[str, str | int | float | bool],
) -> Sample:
    """A `Sample` record of one draw, named after the run that made it."""
    return Sample(
        id=post_id,
        policy=policy_name(ctx),
        study=ctx.study,
        run=ctx.run,
        seed=ctx.seed,
        temperature=temperature,
        text=draw.text,
        response_ids=draw.ids,
        tokens=len(draw.ids),
        stopped=draw.stopped,
        tags=tags,
    )


def policy_name(ctx: RunContext[Evaluation]) -> str:
    """``method-size`` where the tags tell, else the run's name."""
    method, size = ctx.tags.get("method"), ctx.tags.get("size")
    return f"{method}-{size}" if method and size else str(method or ctx.run or "policy")
