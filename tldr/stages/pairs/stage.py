"""Pairs of summaries scored by every reward model and SFT policy of a study.

What agreement, calibration and the probes are measured on (P 4.3, 4.4, App. G.6, G.7): the held-out
labels, two samples of one policy labelled by several workers, and pairs made by rule.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path

from transformers import PreTrainedModel

from tldr.inputs.posts import load_comparisons
from tldr.queries.encode import encode_queries, encode_responses
from tldr.records import Comparison, Post, write_records
from tldr.stages.pairs import PairsRun
from tldr.stages.pairs.probes import Prober, as_comparison
from tldr.stages.shared.common import (
    Device,
    Sampling,
    open_policy,
    open_reward,
    open_sampler,
    open_tokenizer,
    read_posts,
    sample_responses,
)
from tldr.stages.shared.scoring import Scorer, gold_scores, has_gold
from tldr.toy import edits, labelers
from tldr.toy.labelers import Candidate
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


def probes(posts: list[Post], seed: int) -> Iterable[Comparison]:
    """Every probe of every post; in the toy world the planted edits too."""
    prober, rng = Prober(posts, seed), random.Random(derive(seed, "edits"))
    for post in posts:
        for name, pair in prober.pairs(post):
            yield as_comparison(post, name, pair)
        if has_gold([post]):
            for name, edit in edits.EDITS.items():
                yield as_comparison(post, name, edit(rng, post))


def same_policy(ctx: PairsRun, posts: list[Post]) -> list[Comparison]:
    """Two samples of each policy a post, labelled by several workers; equal texts make no pair."""
    device = Device.open(ctx.precision)
    rng = random.Random(derive(ctx.seed, "workers"))
    rows: list[Comparison] = []
    for name, place in sorted(ctx.inputs.policies.items()):
        policy, tokenizer = open_sampler(place, device), open_tokenizer(place)
        label = f"{name}-t{ctx.settings.temperature:g}"
        drawn = sample_responses(
            policy,
            tokenizer,
            encode_queries(tokenizer, posts, ctx.lengths.query),
            Sampling(n=2, temperature=ctx.settings.temperature),
            max_new_tokens=ctx.lengths.response,
            seed=derive(ctx.seed, "pairs", f"policy-{name}"),
            device=device,
        )
        for post, (a, b) in zip(posts, drawn, strict=True):
            if a.text.strip() == b.text.strip():
                continue
            first, second = (Candidate(draw.text, label, draw.stopped) for draw in (a, b))
            for worker in rng.sample(labelers.WORKERS, ctx.settings.workers):
                row = labelers.compare(post, first, second, rng, worker=worker, batch=label, split="valid2")
                rows.append(row)
    return rows


Key = tuple[str, str]
"""A post's id and a summary of it."""


def score_texts(ctx: PairsRun, pairs: list[Comparison]) -> dict[Key, dict[str, float]]:
    """Every scorer's value of every different summary, each text scored once."""
    infos, texts = {}, dict[str, dict[str, None]]()
    for pair in pairs:
        post = pair.info.id or ""
        infos[post] = pair.info
        texts.setdefault(post, {}).update((summary.text, None) for summary in pair.summaries)
    rewards, sft = sorted(ctx.inputs.rewards.items()), sorted(ctx.inputs.sft.items())
    first = (rewards or sft)[0][1]
    tokenizer, device = open_tokenizer(first), Device.open(ctx.precision)
    flat = [text for options in texts.values() for text in options]
    encoded = encode_responses(tokenizer, flat, ctx.lengths.rm_response)
    ids = iter(encoded)
    queries = encode_queries(tokenizer, [infos[post] for post in texts], ctx.lengths.query)
    scorer = Scorer(tokenizer, queries, [[next(ids) for _ in options] for options in texts.values()], device)
    keys = [(post, text) for post, options in texts.items() for text in options]
    scores: dict[Key, dict[str, float]] = {
        key: {"tokens": float(len(one))} for key, one in zip(keys, encoded, strict=True)
    }
    progress = Progress(ctx.folder, total=len(rewards) + len(sft))
    models: list[tuple[str, Callable[..., PreTrainedModel], Callable[..., list[list[float]]], Path]]
    models = [(f"rm_{name}", open_reward, scorer.rewards, place) for name, place in rewards]
    models += [(f"logprob_{name}", open_policy, scorer.logprobs, place) for name, place in sft]
    for done, (column, open_model, score, place) in enumerate(models, start=1):
        values = (value for row in score(open_model(place, device)) for value in row)
        for key, value in zip(keys, values, strict=True):
            scores[key][column] = value
        progress.update(done)
    for (post, text), row in scores.items():
        if "facts" in (infos[post].model_extra or {}):
            row["gold"] = gold_scores(infos[post], text, stopped=True)["gold"]
    return scores


def with_scores(pair: Comparison, scores: dict[Key, dict[str, float]]) -> Comparison:
    """The comparison with each summary's scores."""
    summaries = [
        summary.model_copy(update={"scores": scores[pair.info.id or "", summary.text]})
        for summary in pair.summaries
    ]
    return pair.model_copy(update={"summaries": summaries})
