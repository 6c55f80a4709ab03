"""Questions about posts, the summaries they show, and the answers of simulated labelers.

Given labels are split by their own splits, or into folds for cross-validation.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, Literal

from tldr.errors import UsageError
from tldr.inputs.posts import body_hash
from tldr.records import Post, Ranking
from tldr.stages.labels.settings import LabelsSettings
from tldr.stages.shared.sampling import Draw
from tldr.toy import labelers, writers
from tldr.toy.labelers import Candidate
from tldr.train.rng import derive

POSTS = {"train": "sft", "valid1": "valid1", "valid2": "valid2"}
"""Split of the labels -> the posts they are about."""
SELECTION = 10
"""Every n-th training post of a fold is for selection (valid1)."""


@dataclass(frozen=True)
class LabelQuestion:
    """A post whose `slots` summaries are ranked: each slot says who writes that summary ("ref": the post's
    author, "writer": a scripted one, else a policy's name)."""

    post: Post
    split: str
    slots: list[str]


def plan_questions(
    settings: LabelsSettings, policies: Sequence[str], posts: Mapping[str, Sequence[Post]], seed: int
) -> Iterator[LabelQuestion]:
    """What is asked about which post: the split's posts in turn, slots at random.

    Args:
        policies: names of those that write.
        posts: by the split of the labels.
        seed: of the run.
    """
    for split, count in settings.items_wanted().items():
        if split == "train":
            count *= settings.made_of_one
        rng = random.Random(derive(seed, "questions", split))
        shuffled = list(posts[split])
        rng.shuffle(shuffled)
        for post in islice(cycle(shuffled), count):
            slots = [random_slot(rng, settings, policies) for _ in range(rng.randint(*settings.k))]
            while slots.count("ref") > 1:
                slots[slots.index("ref")] = rng.choice(policies)
            rng.shuffle(slots)
            yield LabelQuestion(post, split, slots)


def random_slot(rng: random.Random, settings: LabelsSettings, policies: Sequence[str]) -> str:
    """Who writes a summary: the post's author ("ref"), a scripted writer or one of the policies."""
    draw = rng.random()
    if draw < settings.reference_share:
        return "ref"
    return "writer" if draw < settings.reference_share + settings.writer_share else rng.choice(policies)


def by_summaries_wanted(questions: Sequence[LabelQuestion], policy: str) -> dict[int, list[int]]:
    """A policy's questions (their indices) by the number of summaries that it writes for each."""
    groups: dict[int, list[int]] = defaultdict(list)
    for index, question in enumerate(questions):
        if policy in question.slots:
            groups[question.slots.count(policy)].append(index)
    return dict(sorted(groups.items()))


def fill_slots(
    question: LabelQuestion, draws: Mapping[str, Sequence[Draw]], rng: random.Random, temperature: float
) -> list[Candidate]:
    """The summaries of a question, in the order of its slots.

    Args:
        draws: of each policy in the slots, as many as its slots.
        rng: of the scripted writers.
        temperature: that the policy was sampled at.
    """
    drawn = {policy: iter(own) for policy, own in draws.items()}
    candidates = []
    for slot in question.slots:
        if slot == "ref":
            candidates.append(Candidate(question.post.summary or "", "ref"))
        elif slot == "writer":
            name, text = writers.write(rng, question.post)
            candidates.append(Candidate(text, f"writer_{name}"))
        else:
            draw = next(drawn[slot])
            candidates.append(Candidate(draw.text, f"{slot}-t{temperature:g}", draw.stopped))
    return candidates


def best_of_each(draws: Sequence[Draw], scores: Sequence[float], n: int) -> list[Draw]:
    """The draw with the highest score of each consecutive `n`; the first wins a tie."""
    blocks = (range(start, start + n) for start in range(0, len(draws), n))
    return [draws[max(block, key=lambda index: scores[index])] for block in blocks]


@dataclass(frozen=True)
class Labelled:
    """Rankings by split; validation pairs that two labelers ordered, and how many they ordered alike."""

    rankings: dict[str, list[Ranking]]
    alike: int
    pairs: int


def label(
    questions: Sequence[LabelQuestion], summaries: Sequence[list[Candidate]], rng: random.Random, run: str
) -> Labelled:
    """Put every question to a worker, and those of the validation splits to a second one.

    Args:
        run: name of the run, for the names of the batches.
    """
    rows: dict[str, list[Ranking]] = {split: [] for split in POSTS}
    alike = asked = 0
    for index, (question, shown) in enumerate(zip(questions, summaries, strict=True)):
        first, second = rng.sample(labelers.WORKERS, 2)
        batch = f"{run or 'labels'}-{index // 1000}"
        rows[question.split].append(ask(question, shown, first, rng, batch))
        if question.split != "train":
            again = ask(question, shown, second, rng, batch)
            same, pairs = agreement(rows[question.split][-1], again)
            alike, asked = alike + same, asked + pairs
    return Labelled(rows, alike, asked)


def ask(
    question: LabelQuestion,
    summaries: list[Candidate],
    worker: labelers.Worker,
    rng: random.Random,
    batch: str,
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


def by_split(rows: Sequence[Ranking]) -> dict[str, list[Ranking]]:
    """Given labels by their own splits.

    Raises:
        UsageError: a split has none.
    """
    splits: dict[str, list[Ranking]] = {split: [row for row in rows if row.split == split] for split in POSTS}
    empty = [split for split, rankings in splits.items() if not rankings]
    if empty:
        raise UsageError(
            f"the comparisons hold none of split {', '.join(empty)}",
            where="data.comparisons",
            remedy="give rows of train, valid1 (to select on) and valid2 (to report on)",
        )
    return splits


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
