"""Sample every epoch of SFT on valid1, score the summaries by a reward model, and hand on the best epoch."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from tldr.files import link_folder
from tldr.queries.encode import encode_queries
from tldr.records import Post, Sample, read_records, write_json, write_records
from tldr.stages.epoch import EpochRun
from tldr.stages.epoch.algorithm import chosen, means, with_scores
from tldr.stages.shared.device import Device
from tldr.stages.shared.epochs import Epoch, read_epochs
from tldr.stages.shared.networks import open_reward, open_sampler
from tldr.stages.shared.posts import read_posts
from tldr.stages.shared.sample_records import policy_name, to_sample
from tldr.stages.shared.sampling import Sampling, sample_responses
from tldr.stages.shared.summary_scorer import SummaryScorer, sample_ids
from tldr.stages.shared.tokenizers import open_tokenizer
from tldr.train.metrics import Progress
from tldr.train.rng import derive

SAMPLES = "epoch_samples.jsonl"
"""Not ``samples.jsonl``, which the report takes for summaries of the reporting posts."""


def run(ctx: EpochRun) -> None:
    """Write ``checkpoint/``, the chosen epoch's files, linked rather than copied where the disk allows it.

    ``evaluation.json`` has the chosen epoch, and of every epoch the loss on valid1 and mean scores;
    ``epoch_samples.jsonl`` has the summaries with their scores. A run that is stopped goes on after the last
    epoch that it sampled.
    """
    epochs, device = read_epochs(ctx.inputs.policy), Device.open(ctx.precision, shared=True)
    tokenizer = open_tokenizer(ctx.inputs.policy)
    posts = read_posts(ctx.inputs.data, "valid1", references=True)[: ctx.settings.posts]
    queries = encode_queries(tokenizer, posts, ctx.lengths.query)
    progress = Progress(ctx.folder, total=len(epochs) + 1)
    drawn: list[list[Sample]] = []
    for done, epoch in enumerate(epochs, start=1):
        drawn.append(samples_of(ctx, epoch, posts, queries, tokenizer, device))
        progress.update(done)
    ids = [
        [sample_ids(row, tokenizer, ctx.lengths) for row in of_post] for of_post in zip(*drawn, strict=True)
    ]
    scorer = SummaryScorer(tokenizer, queries, ids, device)
    drawn = with_scores(drawn, scorer.rewards(open_reward(ctx.inputs.reward, device)), posts)
    progress.update(len(epochs) + 1)
    if device.crew.index:  # what another process writes is not kept
        return
    rows = [means(epoch, samples) for epoch, samples in zip(epochs, drawn, strict=True)]
    best = epochs[chosen(rows)]
    write_records(ctx.folder / SAMPLES, [row for samples in drawn for row in samples])
    link_folder(ctx.inputs.policy / best.checkpoint, ctx.folder / "checkpoint")
    write_json(ctx.folder / "evaluation.json", {"epoch": best.epoch, "epochs": rows, "posts": len(posts)})


def samples_of(
    ctx: EpochRun,
    epoch: Epoch,
    posts: list[Post],
    queries: list[list[int]],
    tokenizer: PreTrainedTokenizerBase,
    device: Device,
) -> list[Sample]:
    """A summary of every post, drawn with the same random numbers at every epoch; kept once it is drawn."""
    kept = ctx.folder / "state" / f"epoch-{epoch.epoch:g}.jsonl"
    # The first process alone sees the run's folder; the others must not draw what it has.
    known = {0: read_records(kept, Sample)} if kept.is_file() and not device.crew.index else {}
    if known := device.crew.all_of(known):
        return known[0]
    policy = open_sampler(ctx.inputs.policy / epoch.checkpoint, device, tokenizer)
    draws = sample_responses(
        policy,
        tokenizer,
        queries,
        Sampling(temperature=ctx.settings.temperature),
        max_new_tokens=ctx.lengths.response,
        seed=derive(ctx.seed, "epoch"),
        device=device,
    )
    how = {"temperature": ctx.settings.temperature, "tags": {**ctx.tags, "epoch": epoch.epoch}}
    rows = [
        to_sample(ctx, post.id, draw, policy_name(ctx, "sft"), **how)
        for post, (draw,) in zip(posts, draws, strict=True)
    ]
    kept.parent.mkdir(exist_ok=True)
    write_records(kept, rows)
    return rows
