"""The data stage: post files and a tokenizer in one folder, whatever they come from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tldr.config import DataStage, FileData
from tldr.data.sources import check_disjoint, load_comparisons, load_posts, post_keys
from tldr.data.tokenizer import load_tokenizer, train_bpe
from tldr.errors import UsageError
from tldr.records import Post, write_json, write_records
from tldr.stages.context import RunContext
from tldr.toy.generate import generate_toy
from tldr.train.metrics import Progress

SETS = ("sft", "ppo", "valid1", "valid2")


def run(ctx: RunContext[DataStage]) -> None:
    """Write ``sft``, ``ppo``, ``valid1``, ``valid2`` and ``corpus`` as JSON lines, and ``tokenizer/``.

    A study that would train on its evaluation posts is refused (by id and by body).

    Raises:
        UsageError: a file is missing or empty, or posts are shared between training and evaluation.
    """
    source = ctx.settings.data
    progress = Progress(ctx.folder, total=2)
    if isinstance(source, FileData):
        _collect(source, ctx.folder)
    else:
        generate_toy(source, ctx.folder)
    progress.update(1)
    keys = {name: post_keys(load_posts(ctx.folder / f"{name}.jsonl")) for name in SETS}
    check_disjoint(
        {name: keys[name] for name in ("sft", "ppo")}, {name: keys[name] for name in ("valid1", "valid2")}
    )
    check_disjoint({"valid1": keys["valid1"]}, {"valid2": keys["valid2"]})
    spec = ctx.settings.tokenizer
    if spec.path is not None:
        tokenizer = load_tokenizer(spec.path)
    else:
        tokenizer = train_bpe(_texts(ctx.folder), spec.vocab_size)
    tokenizer.save_pretrained(ctx.folder / "tokenizer")
    progress.update(2)


def _collect(source: FileData, folder: Path) -> None:
    """Copy the user's records; without body-filtered posts the SFT posts stand in, and it is noted."""
    files = {
        "sft": source.sft,
        "ppo": source.ppo or source.sft,
        "valid1": source.valid1,
        "valid2": source.valid2,
    }
    counts: dict[str, int] = {}
    for name, path in files.items():
        posts = load_posts(path)
        if name != "ppo" and any(post.summary is None for post in posts):
            raise UsageError("a post has no summary", where=path, remedy=f"{name} posts need their reference")
        write_records(folder / f"{name}.jsonl", posts)
        counts[name] = len(posts)
    if source.comparisons is not None:
        rankings = load_comparisons(source.comparisons)
        write_records(folder / "rankings.jsonl", rankings)
        counts["rankings"] = len(rankings)
    if source.corpus is not None:
        (folder / "corpus.jsonl").write_bytes(Path(source.corpus).read_bytes())
    write_json(folder / "manifest.json", {"records": counts, "ppo_posts_are_sft_posts": source.ppo is None})


def _texts(folder: Path) -> Iterator[str]:
    """What the tokenizer is trained on: the pretraining corpus (if there is one), posts and references."""
    if (folder / "corpus.jsonl").exists():
        for document in read_corpus(folder):
            yield str(document["text"])
    for post in load_posts(folder / "sft.jsonl"):
        yield from _post_texts(post)


def _post_texts(post: Post) -> Iterator[str]:
    yield post.post
    yield f" {post.summary}"


def read_corpus(folder: Path) -> list[dict[str, str | int]]:
    """Documents of ``corpus.jsonl``: ``text``, and ``query_chars``, the characters of its post part.

    Raises:
        UsageError: there is no corpus, or a line is not such a document.
    """
    path = folder / "corpus.jsonl"
    if not path.is_file():
        raise UsageError(
            "no pretraining corpus", where=path, remedy="give data.corpus, or start the ladder from paths"
        )
    documents = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            document = json.loads(line)
            if not isinstance(document["text"], str) or not document["text"]:
                raise TypeError("text is empty or no string")
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"not a corpus document: {error!r}", where=f"{path}:{number}") from None
        documents.append(document)
    return documents
