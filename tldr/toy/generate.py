"""The toy world as files: posts, references, labels, and a pretraining corpus."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable
from pathlib import Path

from tldr.config import ToyData
from tldr.records import CandidateSummary, Post, write_json, write_records
from tldr.toy import authors, corpus, writers
from tldr.toy.labelers import Task, compare, make_workers, rank, rate
from tldr.toy.world import VERSION, draw_post, facts_of

LABELLED = {"train": 2000, "valid1": 500, "valid2": 500}
"""Comparisons of scripted summaries a split; rankings and ratings are a quarter as many."""
EVALUATION_SPLITS = ("valid1", "valid2")


def generate_toy(config: ToyData, out: Path) -> None:
    """Write the toy world's files; the same config gives the same bytes.

    ``corpus.jsonl`` ({text, query_chars}), ``sft.jsonl`` and ``valid1/2.jsonl`` (posts with
    references), ``ppo.jsonl`` (the SFT posts and more, without references), ``comparisons.jsonl``,
    ``rankings.jsonl``, ``ratings.jsonl`` (of scripted summaries), ``manifest.json``.
    """
    out.mkdir(parents=True, exist_ok=True)
    sets = {
        "sft": referenced(config, "sft", config.sft_posts),
        "valid1": referenced(config, "valid1", config.valid1_posts),
        "valid2": referenced(config, "valid2", config.valid2_posts),
    }
    extra = max(0, config.ppo_posts - config.sft_posts)
    rng = random.Random(f"{config.seed}-ppo")
    unreferenced = [post.model_copy(update={"summary": None}) for post in sets["sft"][: config.ppo_posts]]
    sets["ppo"] = unreferenced + [draw_post(rng, f"ppo-{index}") for index in range(extra)]
    for name, posts in sets.items():
        write_records(out / f"{name}.jsonl", posts)
    _write_lines(out / "corpus.jsonl", documents(config))
    agreement = _write_labels(config, {"train": sets["sft"], **{n: sets[n] for n in EVALUATION_SPLITS}}, out)
    files = sorted(path.name for path in out.glob("*.jsonl"))
    write_json(
        out / "manifest.json",
        {
            "world_version": VERSION,
            "config": config.model_dump(),
            "label_agreement": agreement,
            "records": {name: sum(1 for _ in (out / name).open()) for name in files},
            "sha256": {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in files},
        },
    )


def referenced(config: ToyData, name: str, number: int) -> list[Post]:
    """Posts with references, drawn from the set's own stream."""
    rng = random.Random(f"{config.seed}-{name}")
    posts = []
    for index in range(number):
        post = draw_post(rng, f"{name}-{index}")
        summary = authors.reference(rng, facts_of(post), post.post)
        posts.append(post.model_copy(update={"summary": summary}))
    return posts


def documents(config: ToyData) -> Iterable[dict[str, str | int]]:
    """The pretraining corpus: its posts are its own."""
    rng = random.Random(f"{config.seed}-corpus")
    for index in range(config.corpus):
        text, query_chars = corpus.document(rng, draw_post(rng, f"corpus-{index}"))
        yield {"text": text, "query_chars": query_chars}


def _write_lines(path: Path, rows: Iterable[dict[str, str | int]]) -> None:
    with path.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)


def candidate(rng: random.Random, post: Post) -> CandidateSummary:
    """The reference once in four, else a scripted writer's summary."""
    if post.summary is not None and rng.random() < 0.25:
        return CandidateSummary(text=f" {post.summary}", policy="ref", note=None)
    return writers.write(rng, post)


def _write_labels(config: ToyData, sets: dict[str, list[Post]], out: Path) -> float:
    """Comparisons, K-way rankings and axis ratings of scripted summaries; the labelers' agreement."""
    rng = random.Random(f"{config.seed}-labels")
    workers = make_workers(config.seed)
    comparisons, rankings, ratings = [], [], []
    agreed = asked = 0
    for split, posts in sets.items():
        for index in range(min(LABELLED[split], 2 * len(posts))):
            post, task = rng.choice(posts), Task(f"toy-{index // 250}", split)
            a, b = candidate(rng, post), candidate(rng, post)
            first, second = rng.sample(workers, 2)
            comparisons.append(compare(post, a, b, first, rng, task))
            if a.text != b.text:
                asked += 1
                agreed += comparisons[-1].choice == compare(post, a, b, second, rng, task).choice
            if index % 4 == 0:
                several = [candidate(rng, post) for _ in range(rng.randint(4, 9))]
                rankings.append(rank(post, several, first, rng, task))
                ratings.append(rate(post, several[0], first, rng, task))
    write_records(out / "comparisons.jsonl", comparisons)
    write_records(out / "rankings.jsonl", rankings)
    write_records(out / "ratings.jsonl", ratings)
    return agreed / asked
