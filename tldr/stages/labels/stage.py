"""The shared comparison pool: what the policies write, beside references, ranked by labelers.

All sizes train their reward models on the same labels, as in the paper. In the toy world the
labelers are simulated; with `data.kind: files` the user's own labels are split and checked instead.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from tldr.errors import UsageError
from tldr.inputs.leakage import check_leaks, folder_keys, label_keys
from tldr.inputs.posts import load_comparisons
from tldr.queries.encode import encode_queries
from tldr.records import write_json, write_records
from tldr.stages.labels import LabelsRun
from tldr.stages.labels.algorithm import (
    POSTS,
    LabelQuestion,
    best_of_each,
    by_split,
    by_summaries_wanted,
    fill_slots,
    label,
    plan_questions,
    split_folds,
)
from tldr.stages.labels.choosing import most_telling
from tldr.stages.shared.device import Device
from tldr.stages.shared.networks import open_reward, open_sampler
from tldr.stages.shared.posts import read_posts
from tldr.stages.shared.sampling import Draw, Sampling, sample_responses
from tldr.stages.shared.summary_scorer import SummaryScorer
from tldr.stages.shared.tokenizers import check_reads_tokens_of, open_tokenizer
from tldr.toy.labelers import Candidate
from tldr.train.metrics import Progress
from tldr.train.rng import derive


def run(ctx: LabelsRun) -> None:
    """Write ``train``, ``valid1`` and ``valid2`` rankings and ``agreement.json``.

    Inputs: ``data``, and in the toy world ``policy-<size>`` for every size; ``reward-<name>`` choose the
    training questions (`choose_by`). Every question of the
    validation splits is put to two workers; `agreement` is how often they choose alike (pairs
    without a tie), measured on the pool that the reward models are validated on.
    """
    data, policies = ctx.inputs.data, list(ctx.inputs.policies)
    if (data / "rankings.jsonl").exists() and not policies:
        split_given(ctx)
        return
    if not policies:
        raise UsageError(
            "no policy to sample", where="labels", remedy="give at least one policy-<size> input"
        )
    posts = {split: read_posts(data, name, references=True) for split, name in POSTS.items()}
    questions = list(plan_questions(ctx.settings, policies, posts, ctx.seed))
    drawn = sample(ctx, questions)
    summaries = candidates(ctx, questions, drawn)
    if ctx.settings.choose_by is not None:
        questions, summaries = choose_questions(ctx, questions, summaries)
    labels = label(questions, summaries, random.Random(derive(ctx.seed, "labelers")), ctx.run)
    for split, rankings in labels.rankings.items():
        write_records(ctx.folder / f"{split}.jsonl", rankings)
    write_json(
        ctx.folder / "agreement.json",
        {
            "agreement": labels.alike / max(labels.pairs, 1),
            "pairs": labels.pairs,
            "rankings": {split: len(rankings) for split, rankings in labels.rankings.items()},
        },
    )


def sample(ctx: LabelsRun, questions: Sequence[LabelQuestion]) -> list[dict[str, list[Draw]]]:
    """What the policies write for each question, by the policy's name."""
    drawn: list[dict[str, list[Draw]]] = [{} for _ in questions]
    device = Device.open(ctx.precision, shared=True)
    progress = Progress(ctx.folder, total=len(ctx.inputs.policies))
    for done, (name, place) in enumerate(ctx.inputs.policies.items(), start=1):
        tokenizer = open_tokenizer(place)
        policy = open_sampler(place, device, tokenizer)
        chooser = ctx.inputs.choosers.get(name)
        if chooser is not None:
            check_reads_tokens_of(chooser, place, tokenizer, f"labels.chooser-{name}")
        n = 1 if chooser is None else ctx.settings.best_of
        for wanted, rows in by_summaries_wanted(questions, name).items():
            queries = encode_queries(tokenizer, [questions[row].post for row in rows], ctx.lengths.query)
            samples = sample_responses(
                policy,
                tokenizer,
                queries,
                Sampling(n=n * wanted, temperature=ctx.settings.temperature),
                max_new_tokens=ctx.lengths.response,
                seed=derive(ctx.seed, "labels", name, wanted),
                device=device,
            )
            if chooser is not None:
                ids = [[draw.ids for draw in row] for row in samples]
                scores = SummaryScorer(tokenizer, queries, ids, device).rewards(open_reward(chooser, device))
                samples = [best_of_each(*pair, n) for pair in zip(samples, scores, strict=True)]
            for row, draws in zip(rows, samples, strict=True):
                drawn[row][name] = draws
        progress.update(done)
    return drawn


def candidates(
    ctx: LabelsRun, questions: Sequence[LabelQuestion], drawn: Sequence[dict[str, list[Draw]]]
) -> list[list[Candidate]]:
    """The summaries that every question shows."""
    rng = random.Random(derive(ctx.seed, "writers"))
    return [
        fill_slots(question, draws, rng, ctx.settings.temperature)
        for question, draws in zip(questions, drawn, strict=True)
    ]


def choose_questions(
    ctx: LabelsRun, questions: Sequence[LabelQuestion], summaries: Sequence[list[Candidate]]
) -> tuple[list[LabelQuestion], list[list[Candidate]]]:
    """The training questions that tell the most, and all those of the validation splits."""
    asked = list(zip(questions, summaries, strict=True))
    train = [one for one in asked if one[0].split == "train"]
    chosen = most_telling(
        ctx, train, ctx.settings.pairs, lambda one: (one[0].post, [each.text for each in one[1]])
    )
    kept = [*chosen, *(one for one in asked if one[0].split != "train")]
    return [question for question, _ in kept], [own for _, own in kept]


def split_given(ctx: LabelsRun) -> None:
    """The user's labels by their own splits, or in folds; leaks (`tldr.inputs.leakage`) are refused."""
    data = ctx.inputs.data
    rows, keys = load_comparisons(data / "rankings.jsonl"), folder_keys(data)
    if ctx.settings.folds is not None:
        for number, fold in enumerate(split_folds(rows, ctx.settings.folds)):
            check_leaks(keys | label_keys(fold))
            for split, rankings in fold.items():
                write_records(ctx.folder / f"fold-{number}" / f"{split}.jsonl", rankings)
        return
    splits = by_split(rows)
    check_leaks(keys | label_keys(splits))
    for split, rankings in splits.items():
        write_records(ctx.folder / f"{split}.jsonl", rankings)
