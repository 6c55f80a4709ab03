"""Pairs of summaries scored by every reward model and SFT policy of a study.

Agreement, calibration and the probes are measured on them (P 4.3, 4.4, App. G.6, G.7): the held-out
labels, two samples of one policy labelled by several workers, and pairs made by rule.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel

from tldr.inputs.posts import load_comparisons
from tldr.queries.encode import encode_queries, encode_responses
from tldr.records import Comparison, Post, write_records
from tldr.stages.pairs import PairsRun
from tldr.stages.pairs.algorithm import (
    DifferentSummaries,
    SummaryScores,
    add_gold,
    label_same_policy,
    probes,
    with_scores,
)
from tldr.stages.shared.device import Device
from tldr.stages.shared.gold import has_gold
from tldr.stages.shared.networks import open_policy, open_reward, open_sampler
from tldr.stages.shared.posts import read_posts
from tldr.stages.shared.sampling import Sampling, sample_responses
from tldr.stages.shared.summary_scorer import SummaryScorer
from tldr.stages.shared.tokenizers import open_tokenizer
from tldr.train.metrics import Progress
from tldr.train.rng import derive


def run(ctx: PairsRun) -> None:
    """Write ``valid2.jsonl``, ``probes.jsonl`` and, in the toy world, ``same_policy.jsonl``.

    Inputs: ``data``, ``labels``, ``policy-<name>`` (policies that are sampled twice a post),
    ``reward-<name>`` and ``sft-<size>`` (scorers). Every summary carries ``scores``: ``rm_<name>``,
    ``logprob_<size>`` (nats, summed, temperature 1), ``tokens``, and ``gold`` where it is known.
    """
    posts = read_posts(ctx.inputs.data, "valid2", references=True)
    labels = load_comparisons(ctx.inputs.labels / "valid2.jsonl")
    parts = {
        "valid2": [pair for ranking in labels for pair in ranking.comparisons()],
        "probes": list(probes(posts[: ctx.settings.posts], derive(ctx.seed, "probes"))),
        "same_policy": same_policy(ctx, posts[: ctx.settings.posts]) if has_gold(posts) else [],
    }
    pairs = [pair for part in parts.values() for pair in part]
    scores = score_texts(ctx, pairs)
    for name, part in parts.items():
        if part:
            write_records(ctx.folder / f"{name}.jsonl", (with_scores(pair, scores) for pair in part))


def same_policy(ctx: PairsRun, posts: list[Post]) -> list[Comparison]:
    """Two samples of each policy a post, labelled by several workers."""
    device = Device.open(ctx.precision, shared=True)
    rng = random.Random(derive(ctx.seed, "workers"))
    rows: list[Comparison] = []
    for name, place in sorted(ctx.inputs.policies.items()):
        tokenizer = open_tokenizer(place)
        policy = open_sampler(place, device, tokenizer)
        drawn = sample_responses(
            policy,
            tokenizer,
            encode_queries(tokenizer, posts, ctx.lengths.query),
            Sampling(n=2, temperature=ctx.settings.temperature),
            max_new_tokens=ctx.lengths.response,
            seed=derive(ctx.seed, "pairs", f"policy-{name}"),
            device=device,
        )
        label = f"{name}-t{ctx.settings.temperature:g}"
        rows += label_same_policy(posts, drawn, label, ctx.settings.workers, rng)
    return rows


def score_texts(ctx: PairsRun, pairs: list[Comparison]) -> SummaryScores:
    """Every scorer's value of every different summary, each text scored once."""
    different = DifferentSummaries.of(pairs)
    infos, keys = different.infos, different.keys
    rewards, sft = sorted(ctx.inputs.rewards.items()), sorted(ctx.inputs.sft.items())
    first = (rewards or sft)[0][1]
    tokenizer, device = open_tokenizer(first), Device.open(ctx.precision, shared=True)
    encoded = encode_responses(tokenizer, [text for _, text in keys], ctx.lengths.rm_response)
    ids = iter(encoded)
    queries = encode_queries(tokenizer, [infos[post] for post in different.texts], ctx.lengths.query)
    responses = [[next(ids) for _ in options] for options in different.texts.values()]
    scorer = SummaryScorer(tokenizer, queries, responses, device)
    scores: SummaryScores = {
        key: {"tokens": float(len(tokens))} for key, tokens in zip(keys, encoded, strict=True)
    }
    progress = Progress(ctx.folder, total=len(rewards) + len(sft))
    models: list[tuple[str, Callable[..., PreTrainedModel], Callable[..., list[list[float]]], Path]]
    models = [(f"rm_{name}", open_reward, scorer.rewards, place) for name, place in rewards]
    open_sft = partial(open_policy, tokenizer=tokenizer)
    models += [(f"logprob_{name}", open_sft, scorer.logprobs, place) for name, place in sft]
    for done, (column, open_model, score, place) in enumerate(models, start=1):
        values = (value for row in score(open_model(place, device)) for value in row)
        for key, value in zip(keys, values, strict=True):
            scores[key][column] = value
        progress.update(done)
    add_gold(scores, infos)
    return scores
