"""Score samples: RM of sample and reference, log-probabilities under policy and SFT, gold."""

from __future__ import annotations

from pathlib import Path

from tldr.config import Evaluation
from tldr.data.formats import encode_response
from tldr.errors import RecordError, UsageError
from tldr.records import Post, Sample, read_records, write_records
from tldr.stages.common import Device, encode_posts, open_policy, open_reward, open_tokenizer, read_posts
from tldr.stages.context import RunContext
from tldr.stages.scoring import Scorer, gold_scores, has_gold, sample_ids
from tldr.train.metrics import Progress


def run(ctx: RunContext[Evaluation]) -> None:
    """Write ``samples.jsonl`` with scores filled in.

    Inputs: ``samples`` (file or run folder), ``data`` (posts of the samples: ``valid2.jsonl``), and
    any of ``policy``, ``sft``, ``reward``; what is not given is not scored. Scores are named ``rm``,
    ``rm_reference``, ``gold``, ``gold_reference``, ``gold_preference`` and ``gold_<axis>``.
    """
    samples = read_records(_samples_file(ctx.inputs["samples"]), Sample)
    posts = {post.id: post for post in read_posts(ctx.inputs["data"], "valid2")}
    models = [name for name in ("policy", "sft", "reward") if name in ctx.inputs]
    updates: list[dict[str, object]] = [{} for _ in samples]
    scores: list[dict[str, float]] = [dict(sample.scores) for sample in samples]
    chosen = [_post_of(sample, posts) for sample in samples]
    progress = Progress(ctx.folder, total=len(models) + 1)
    for done, name in enumerate(models, start=1):
        for index, values in enumerate(_model_values(ctx, name, samples, chosen)):
            if name == "reward":
                scores[index].update(values)
            else:
                updates[index].update(values)
        progress.update(done)
    if has_gold(chosen):
        for sample, post, row in zip(samples, chosen, scores, strict=True):
            row.update(gold_scores(post, sample.text, sample.stopped is not False))
    rows = [
        sample.model_copy(update={**update, "scores": row})
        for sample, update, row in zip(samples, updates, scores, strict=True)
    ]
    write_records(ctx.folder / "samples.jsonl", rows)


def _samples_file(place: Path) -> Path:
    return place / "samples.jsonl" if place.is_dir() else place


def _post_of(sample: Sample, posts: dict[str, Post]) -> Post:
    if sample.id not in posts:
        raise RecordError(
            f"sample of post {sample.id}, which is not among the posts given",
            remedy="give the post file that the samples were drawn from",
        )
    return posts[sample.id]


def _model_values(
    ctx: RunContext[Evaluation], name: str, samples: list[Sample], posts: list[Post]
) -> list[dict[str, float]]:
    """Scores of every sample under one model: log-probabilities, or RM scores of sample and reference."""
    device = Device.open(ctx.precision)
    tokenizer = open_tokenizer(ctx.inputs[name])
    queries = encode_posts(tokenizer, posts, ctx.lengths)
    responses = [[sample_ids(sample, tokenizer, ctx.lengths)] for sample in samples]
    if name != "reward":
        key = "logprob" if name == "policy" else "logprob_sft"
        values = Scorer(tokenizer, queries, responses, device).logprobs(open_policy(ctx.inputs[name], device))
        return [{key: row[0]} for row in values]
    if any(len(ids) > ctx.lengths.rm_response for (ids,) in responses):
        raise UsageError("a sample is longer than the reward model's window", where="lengths.rm_response")
    for row, post in zip(responses, posts, strict=True):
        if post.summary is not None:
            row.append(encode_response(tokenizer, post.summary, ctx.lengths.rm_response))
    scored = Scorer(tokenizer, queries, responses, device).rewards(open_reward(ctx.inputs[name], device))
    return [dict(zip(("rm", "rm_reference"), row, strict=False)) for row in scored]
