"""Write the toy world's files: corpus, posts, and labels on scripted summaries."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tldr.records import Post, Record, write_json, write_records
from tldr.toy import authors, corpus, labelers, world, writers
from tldr.toy.labelers import Candidate, LabelSplit
from tldr.toy.settings import ToyData

COMPARISONS, VALID_COMPARISONS, RANKINGS, RATINGS = 2000, 500, 300, 300
"""Numbers of labels on scripted summaries; the label stage labels the samples of policies."""
RANKED = 5
"""Summaries in a ranking."""


class ToyDocument(Record):
    """A pretraining text; its first `query_chars` characters are the post."""

    text: str
    query_chars: int


def _draw(rng: random.Random, prefix: str, n: int, seen: set[str]) -> list[Post]:
    """`n` posts whose bodies occur nowhere else in the world's files."""
    posts: list[Post] = []
    while len(posts) < n:
        post = world.draw_post(rng, f"{prefix}-{len(posts):06d}")
        if post.post not in seen:
            seen.add(post.post)
            posts.append(post)
    return posts


def _with_reference(rng: random.Random, post: Post) -> Post:
    summary = authors.reference(rng, world.facts_of(post), post.post)
    return Post.model_validate({**post.model_dump(exclude_unset=True), "summary": summary})


def mixed_pair(rng: random.Random, post: Post) -> tuple[Candidate, Candidate]:
    """Two scripted summaries of a post, each in turn the reference with probability 1/4."""
    first, second = (_candidate(rng, post) for _ in range(2))
    while second.text == first.text:
        second = _candidate(rng, post)
    return first, second


def _candidate(rng: random.Random, post: Post) -> Candidate:
    if post.summary is not None and rng.random() < 0.25:
        return Candidate(post.summary, "ref")
    name, text = writers.write(rng, post)
    return Candidate(text, f"writer_{name}")


def _distinct(rng: random.Random, post: Post, n: int) -> list[Candidate]:
    found: dict[str, Candidate] = {}
    while len(found) < n:
        candidate = _candidate(rng, post)
        found.setdefault(candidate.text, candidate)
    return list(found.values())


def _labels(config: ToyData, posts: dict[LabelSplit, list[Post]]) -> dict[str, list[Record]]:
    """Comparisons, rankings and ratings of scripted summaries."""
    rng = random.Random(f"{config.seed}/labels")
    comparisons: list[Record] = []
    for split, rows in posts.items():
        n = COMPARISONS if split == "train" else VALID_COMPARISONS
        for _ in range(n):
            post = rng.choice(rows)
            comparisons.append(
                labelers.compare(post, *mixed_pair(rng, post), rng, batch="writers", split=split)
            )
    rankings: list[Record] = []
    for _ in range(RANKINGS):
        post = rng.choice(posts["train"])
        rankings.append(labelers.rank(post, _distinct(rng, post, RANKED), rng, batch="writers"))
    ratings: list[Record] = []
    for _ in range(RATINGS):
        post = rng.choice(posts["valid2"])
        ratings.append(labelers.rate(post, _candidate(rng, post), rng, batch="writers"))
    return {"comparisons": comparisons, "rankings": rankings, "ratings": ratings}


def _documents(config: ToyData, seen: set[str], name: str, n: int) -> Iterable[ToyDocument]:
    rng = random.Random(f"{config.seed}/{name}")
    for post in _draw(rng, name, n, seen):
        text, query_chars = corpus.document(rng, post)
        yield ToyDocument(text=text, query_chars=query_chars)


def generate_toy(config: ToyData, out: Path) -> dict[str, Any]:
    """Write the world's files into `out`; the same settings give the same bytes.

    ``corpus.jsonl`` (documents, and perhaps others in ``corpus_held_out.jsonl``), ``sft.jsonl`` (posts with
    references), ``ppo.jsonl`` (the SFT posts and further ones, without references), ``valid1.jsonl``,
    ``valid2.jsonl`` (posts with references; no post is in two of corpus, ppo, valid1, valid2),
    ``comparisons.jsonl``, ``rankings.jsonl``, ``ratings.jsonl`` (labels of scripted summaries) and
    ``manifest.json``.

    Returns:
        The manifest: settings, world version, rows and sha256 of each file, labeler agreement.
    """
    seen: set[str] = set()
    # evaluation posts are drawn first, so the sizes of the training files do not change them
    posts: dict[LabelSplit, list[Post]] = {}
    sizes: dict[LabelSplit, int] = {
        "valid2": config.valid2_posts,
        "valid1": config.valid1_posts,
        "train": config.sft_posts,
    }
    for name, n in sizes.items():
        rng = random.Random(f"{config.seed}/{name}")
        posts[name] = [_with_reference(rng, post) for post in _draw(rng, name, n, seen)]
    further = _draw(
        random.Random(f"{config.seed}/ppo"), "ppo", max(config.ppo_posts - config.sft_posts, 0), seen
    )
    bare = [
        Post.model_validate({**p.model_dump(exclude={"summary"}, exclude_unset=True)}) for p in posts["train"]
    ]
    files: dict[str, Iterable[Record]] = {
        "sft": posts["train"],
        "ppo": bare + further,
        "valid1": posts["valid1"],
        "valid2": posts["valid2"],
        **_labels(config, posts),
        "corpus": list(_documents(config, seen, "corpus", config.corpus)),
    }
    if config.corpus_held_out:
        files["corpus_held_out"] = list(_documents(config, seen, "corpus_held_out", config.corpus_held_out))
    entries = {}
    for kind, records in files.items():
        path = write_records(out / f"{kind}.jsonl", records)
        entries[path.name] = {
            "rows": sum(1 for _ in records),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
    rng = random.Random(f"{config.seed}/agreement")
    pairs = [(post, *mixed_pair(rng, post)) for post in rng.choices(posts["train"], k=2000)]
    manifest = {
        "synthetic": True,
        "world": world.VERSION,
        "settings": config.naming(),
        "files": entries,
        "labeler_agreement": labelers.agreement(pairs, rng),
    }
    write_json(out / "manifest.json", manifest)
    return manifest
