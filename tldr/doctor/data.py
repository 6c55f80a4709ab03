"""Data and labels: leaks, labels given twice, posts that differ between labels and data, cut references."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from math import log
from pathlib import Path

from tldr.doctor.findings import Sight, check
from tldr.doctor.folders import Examined
from tldr.doctor.limits import PROMPTS_DIFFER, REFERENCES_CUT, REPEATED_LABELS
from tldr.inputs.leakage import POSTS, Collected, Overlap, collect_folder, overlaps
from tldr.inputs.posts import load_comparisons
from tldr.records import Post, Ranking, iter_records, read_records


@check(
    "data",
    "labels",
    why="A model is measured on posts that it has learnt from, so the figure is too good.",
    remedy="Split by post (`tldr-lab data split`), and see `tldr-lab data overlap` for the posts.",
)
def leakage(run: Examined) -> Iterator[Sight]:
    """Sets that may share no post share none (`tldr.inputs.leakage`); labels take no blame for their data."""
    data = run.parents.get("data")
    if data is None or not _leaks(data.folder):
        for pair in _leaks(run.folder, data.folder if data else None):
            yield Sight(run, "fault", f"{pair.either} posts of {pair.first} are in {pair.second}", "none")


def _leaks(folder: Path, data: Path | None = None) -> list[Overlap]:
    """Each pair of sets with a leak once, its names in the order of the alphabet.

    Args:
        data: the posts beside the labels of `folder`, which say how the data's own labels are split.
    """
    found = Collected()
    if data is not None:
        collect_folder(data, found)
        found.sets = {name: posts for name, posts in found.sets.items() if not name.startswith("labels/")}
    collect_folder(folder, found)
    return [pair for pair in overlaps(found.sets) if pair.leak and pair.either and pair.first < pair.second]


@check(
    "labels",
    why="The same answer counts twice: less is known than the number of labels says.",
    remedy="Remove the repeated lines; see whether a file was read twice.",
)
def repeated_labels(run: Examined) -> Iterator[Sight]:
    """No worker's answer about the same summaries of a post is there twice."""
    for path in label_files(run.folder, "train"):
        rows = rankings(path)
        seen = {
            (row.info.id or row.info.post, row.worker, *sorted(one.text for one in row.summaries))
            for row in rows
        }
        share = 1 - len(seen) / len(rows)
        if severity := REPEATED_LABELS.above(share):
            yield Sight(run, severity, f"{share:.1%} of the rankings of {path.name} are repetitions", "none")


@check(
    "labels",
    why="The reward model reads other prompts than the policies do: a blank line is other tokens.",
    remedy="Take the posts of the labels and of the data from one source, unchanged.",
)
def prompts(run: Examined) -> Iterator[Sight]:
    """A labelled post has the very text that the data has under its id."""
    data = run.parents.get("data")
    if data is None:
        return
    texts: dict[str, tuple[str, str, str]] = {}
    for name in POSTS:
        if (path := data.folder / f"{name}.jsonl").is_file():
            texts |= {post.id: (post.subreddit, post.title, post.post) for post in iter_records(path, Post)}
    known: dict[str, bool] = {}
    for split in ("train", "valid1", "valid2"):
        for path in label_files(run.folder, split):
            for row in rankings(path):
                info = row.info
                if info.id in texts:
                    known[info.id] = texts[info.id] == (info.subreddit, info.title, info.post)
    different = [id for id, same in known.items() if not same]
    if known and (severity := PROMPTS_DIFFER.above(len(different) / len(known))):
        seen = (
            f"{len(different)} of {len(known)} labelled posts differ from the data's, such as {different[0]}"
        )
        yield Sight(run, severity, seen, "the same subreddit, title and post")


@check(
    "sft",
    why="A policy learns from a cut reference to stop in mid-sentence.",
    remedy="Widen `lengths.response` (`tldr-lab data` tells the window that cuts none).",
)
def reference_window(run: Examined) -> Iterator[Sight]:
    """The response window holds the references, EOS included."""
    data = run.parents.get("data")
    if data is None:
        return
    window = run.file.lengths.response
    lengths = [len(ids) for ids in references(data.folder, "sft")]
    share = sum(length > window for length in lengths) / len(lengths)
    if severity := REFERENCES_CUT.above(share):
        seen = f"{share:.1%} of the references are longer than {window} tokens (the longest {max(lengths)})"
        yield Sight(run, severity, seen, "next to none")


def label_files(folder: Path, split: str) -> list[Path]:
    """The files of a labels run: one a split, or one a fold."""
    return [
        path
        for path in (folder / f"{split}.jsonl", *sorted(folder.glob(f"fold-*/{split}.jsonl")))
        if path.is_file()
    ]


@cache
def rankings(path: Path) -> list[Ranking]:
    """A file of labels, read once."""
    return load_comparisons(path)


@cache
def references(data: Path, name: str) -> list[list[int]]:
    """The references of a post file in tokens of the study, EOS included and none cut."""
    from tldr.queries.encode import encode_responses  # transformers: only when tokens are asked for
    from tldr.queries.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(data / "tokenizer")
    posts = read_records(data / f"{name}.jsonl", Post)
    return encode_responses(tokenizer, [post.summary or "" for post in posts], 1 << 30)


def ngram_losses(train: list[list[int]], held_out: list[list[int]]) -> tuple[float, float]:
    """Mean loss of a unigram and of a bigram model, in nats a token of `held_out`.

    Unigrams are counted with one added for every type, seen or new; a bigram's probability is its count
    with one more spread by the unigram model (a Dirichlet prior of weight 1). A response's first token
    follows a start symbol.
    """
    counts = Counter(token for row in train for token in row)
    total = counts.total() + len(counts) + 1
    pairs = Counter(pair for row in train for pair in zip([None, *row], row, strict=False))
    before = Counter(token for row in train for token in [None, *row[:-1]])
    unigram = bigram = 0.0
    for row in held_out:
        for last, token in zip([None, *row], row, strict=False):
            alone = (counts[token] + 1) / total
            unigram -= log(alone)
            bigram -= log((pairs[last, token] + alone) / (before[last] + 1))
    tokens = sum(map(len, held_out))
    return unigram / tokens, bigram / tokens
