"""The shared comparison pool: what the policies write, beside references, ranked by labelers.

All sizes train their reward models on the same labels, as in the paper. In the toy world the
labelers are simulated; with `data.kind: files` the user's own labels are split and checked instead.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, Literal

from tldr.errors import UsageError
from tldr.inputs.leakage import check_leaks, folder_keys, label_keys
from tldr.inputs.posts import body_hash, load_comparisons
from tldr.queries.encode import encode_queries
from tldr.records import Post, Ranking, write_json, write_records
from tldr.stages.labels import LabelsRun
from tldr.stages.labels.settings import LabelsSettings
from tldr.stages.shared.common import (
    Device,
    Draw,
    Sampling,
    open_sampler,
    open_tokenizer,
    read_posts,
    sample_responses,
)
from tldr.toy import labelers, writers
from tldr.toy.labelers import Candidate
from tldr.train.metrics import Progress
from tldr.train.rng import derive

POSTS = {"train": "sft", "valid1": "valid1", "valid2": "valid2"}
"""Split of the labels -> the posts they are about."""


@dataclass(frozen=True)
class Question:
    """A post whose `slots` summaries are ranked: each slot says who writes that summary."""

    post: Post
    split: str
    slots: list[str]
    policy: str


def run(ctx: LabelsRun) -> None:
    """Write ``train``, ``valid1`` and ``valid2`` rankings and ``agreement.json``.

    Inputs: ``data``, and in the toy world ``policy-<size>`` for every size. Every question of the
    validation splits is put to two workers; `agreement` is how often they choose alike (pairs
    without a tie), measured on the very pool that the reward models are validated on.
    """
    data = ctx.inputs.data
    if (data / "rankings.jsonl").exists() and not ctx.inputs.policies:
        _split_given(ctx)
        return
    questions = list(plan_questions(ctx))
    answers = _sample(ctx, questions)
    rng = random.Random(derive(ctx.seed, "labelers"))
    rows: dict[str, list[Ranking]] = {split: [] for split in POSTS}
    alike = asked = 0
    for index, (question, summaries) in enumerate(zip(questions, answers, strict=True)):
        first, second = rng.sample(labelers.WORKERS, 2)
        batch = f"{ctx.run or 'labels'}-{index // 1000}"
        rows[question.split].append(ask(question, summaries, first, rng, batch))
        if question.split != "train":
            again = ask(question, summaries, second, rng, batch)
            same, pairs = agreement(rows[question.split][-1], again)
            alike, asked = alike + same, asked + pairs
    for split, rankings in rows.items():
        write_records(ctx.folder / f"{split}.jsonl", rankings)
    write_json(
        ctx.folder / "agreement.json",
        {
            "agreement": alike / max(asked, 1),
            "pairs": asked,
            "rankings": {s: len(r) for s, r in rows.items()},
        },
    )


def plan_questions(ctx: LabelsRun) -> Iterable[Question]:
    """What is asked about which post: the split's posts in turn, a policy in turn, slots at random."""
    settings = ctx.settings
    policies = list(ctx.inputs.policies)
    if not policies:
        raise UsageError(
            "no policy to sample", where="labels", remedy="give at least one policy-<size> input"
        )
    if settings.k[0] < 2:
        raise UsageError("a ranking needs at least 2 summaries", where="labels.k")
    half = settings.valid_pairs // 2
    for split, count in {
        "train": settings.pairs,
        "valid1": half,
        "valid2": settings.valid_pairs - half,
    }.items():
        rng = random.Random(derive(ctx.seed, "questions", split))
        posts = read_posts(ctx.inputs.data, POSTS[split], references=True)
        rng.shuffle(posts)
        for index, post in enumerate(islice(cycle(posts), count)):
            slots = [_slot(rng, settings) for _ in range(rng.randint(*settings.k))]
            while slots.count("ref") > 1:
                slots[slots.index("ref")] = "policy"
            rng.shuffle(slots)
            yield Question(post, split, slots, policies[index % len(policies)])


def _slot(rng: random.Random, settings: LabelsSettings) -> str:
    draw = rng.random()
    if draw < settings.reference_share:
        return "ref"
    return "writer" if draw < settings.reference_share + settings.writer_share else "policy"


def _sample(ctx: LabelsRun, questions: list[Question]) -> list[list[Candidate]]:
    """The summaries of every question, in the order of its slots."""
    drawn: dict[int, list[Draw]] = {}
    device = Device.open(ctx.precision)
    sizes = list(ctx.inputs.policies)
    progress = Progress(ctx.folder, total=len(sizes))
    for done, size in enumerate(sizes, start=1):
        place = ctx.inputs.policies[size]
        policy, tokenizer = open_sampler(place, device), open_tokenizer(place)
        groups: dict[int, list[int]] = defaultdict(list)
        for index, question in enumerate(questions):
            if question.policy == size and "policy" in question.slots:
                groups[question.slots.count("policy")].append(index)
        for wanted, rows in sorted(groups.items()):
            samples = sample_responses(
                policy,
                tokenizer,
                encode_queries(tokenizer, [questions[row].post for row in rows], ctx.lengths.query),
                Sampling(n=wanted, temperature=ctx.settings.temperature),
                max_new_tokens=ctx.lengths.response,
                seed=derive(ctx.seed, "labels", size, wanted),
                device=device,
            )
            drawn |= dict(zip(rows, samples, strict=True))
        progress.update(done)
    rng = random.Random(derive(ctx.seed, "writers"))
    return [_summaries(question, drawn.get(index, []), rng, ctx) for index, question in enumerate(questions)]


def _summaries(
    question: Question,
    draws: list[Draw],
    rng: random.Random,
    ctx: LabelsRun,
) -> list[Candidate]:
    left = iter(draws)
    rows = []
    for slot in question.slots:
        if slot == "ref":
            rows.append(Candidate(question.post.summary or "", "ref"))
        elif slot == "writer":
            name, text = writers.write(rng, question.post)
            rows.append(Candidate(text, f"writer_{name}"))
        else:
            draw = next(left)
            rows.append(
                Candidate(draw.text, f"{question.policy}-t{ctx.settings.temperature:g}", draw.stopped)
            )
    return rows


def ask(
    question: Question, summaries: list[Candidate], worker: labelers.Worker, rng: random.Random, batch: str
) -> Ranking:
    """One worker's answer; two summaries are compared (no ties), more are ranked."""
    task: dict[str, Any] = {"worker": worker, "batch": batch, "split": question.split}
    if len(summaries) == 2:
        a, b = summaries
        return Ranking.from_comparison(labelers.compare(question.post, a, b, rng, **task))
    return labelers.rank(question.post, summaries, rng, **task)


def agreement(a: Ranking, b: Ranking) -> tuple[int, int]:
    """Pairs that two labelers order alike, and pairs that both order; equal texts are left out."""
    alike = pairs = 0
    for i in range(len(a.rank)):
        for j in range(i):
            mine, theirs = a.rank[i] - a.rank[j], b.rank[i] - b.rank[j]
            if mine and theirs and a.summaries[i].text != a.summaries[j].text:
                pairs += 1
                alike += (mine > 0) == (theirs > 0)
    return alike, pairs


def _split_given(ctx: LabelsRun) -> None:
    """The user's labels by their own splits, or in folds; leaks (`tldr.inputs.leakage`) are refused."""
    data = ctx.inputs.data
    rows, keys = load_comparisons(data / "rankings.jsonl"), folder_keys(data)
    if ctx.settings.folds is not None:
        for number, fold in enumerate(split_folds(rows, ctx.settings.folds)):
            check_leaks(keys | label_keys(fold))
            for split, rankings in fold.items():
                write_records(ctx.folder / f"fold-{number}" / f"{split}.jsonl", rankings)
        return
    splits: dict[str, list[Ranking]] = {split: [row for row in rows if row.split == split] for split in POSTS}
    empty = [split for split, rankings in splits.items() if not rankings]
    if empty:
        raise UsageError(
            f"the comparisons hold none of split {', '.join(empty)}",
            where="data.comparisons",
            remedy="give rows of train, valid1 (to select on) and valid2 (to report on)",
        )
    check_leaks(keys | label_keys(splits))
    for split, rankings in splits.items():
        write_records(ctx.folder / f"{split}.jsonl", rankings)


SELECTION = 10
"""One in so many of a fold's training posts is for selection (valid1)."""


def split_folds(rows: list[Ranking], folds: int) -> list[dict[str, list[Ranking]]]:
    """Cross-validation by post: fold k reports (valid2) on its own posts and trains on the others'.

    A post's fold comes from its place in the order of the bodies' hashes, so folds are of equal size,
    no post is in two of them (whatever its id), and equal labels give equal folds. The rows' own splits
    are replaced.

    Raises:
        UsageError: fewer posts than leave every split of every fold some.
    """
    bodies = [body_hash(row.info) for row in rows]
    places = {body: place for place, body in enumerate(sorted(set(bodies)))}
    if len(places) < folds * SELECTION:
        raise UsageError(
            f"{len(places)} posts are too few for {folds} folds",
            where="labels.folds",
            remedy=f"give at least {folds * SELECTION} posts, or use fewer folds",
        )

    def split(body: str, held_out: int) -> Literal["train", "valid1", "valid2"]:
        turn, fold = divmod(places[body], folds)
        if fold == held_out:
            return "valid2"
        return "valid1" if turn % SELECTION == 0 else "train"

    result: list[dict[str, list[Ranking]]] = []
    for number in range(folds):
        parts: dict[str, list[Ranking]] = {name: [] for name in POSTS}
        for row, body in zip(rows, bodies, strict=True):
            name = split(body, number)
            parts[name].append(row.model_copy(update={"split": name}))
        result.append(parts)
    return result
