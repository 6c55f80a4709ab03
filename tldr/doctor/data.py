"""Checks of data and labels: leakage, repeated labels, differing post texts, cut references."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from math import log
from pathlib import Path

from tldr.doctor.findings import Observation, check
from tldr.doctor.folders import Examined
from tldr.doctor.limits import PROMPTS_DIFFER, REFERENCES_CUT, REPEATED_LABELS
from tldr.files import by_number
from tldr.inputs.leakage import POSTS, Collected, Overlap, collect_folder, overlaps
from tldr.inputs.posts import load_comparisons
from tldr.records import Post, Ranking, iter_records, read_records


@check(
    "data",
    "labels",
    why="A model is evaluated on posts that it was trained on, so the result is too good.",
    remedy="Split by post (`tldr-lab data split`); `tldr-lab data overlap` lists the posts.",
)
def leakage(run: Examined) -> Iterator[Observation]:
    """Sets that must be disjoint share no post (`tldr.inputs.leakage`); labels are not blamed for data."""
    data = run.parents.get("data")
    if data is None or not _leaks(data.folder):
        for pair in _leaks(run.folder, data.folder if data else None):
            yield Observation(
                run, "fault", f"{pair.either} posts of {pair.first} are in {pair.second}", "none"
            )


def _leaks(folder: Path, data: Path | None = None) -> list[Overlap]:
    """Each pair of sets with a leak, once, with its names in alphabetical order.

    Args:
        data: the posts for the labels in `folder`; they determine how the data's own labels are split.
    """
    found = Collected()
    if data is not None:
        collect_folder(data, found)
        found.sets = {name: posts for name, posts in found.sets.items() if not name.startswith("labels/")}
    collect_folder(folder, found)
    return [pair for pair in overlaps(found.sets) if pair.leak and pair.either and pair.first < pair.second]


@check(
    "labels",
    why="The same answer counts twice: there is less information than the number of labels suggests.",
    remedy="Remove the repeated lines; check whether a file was read twice.",
)
def repeated_labels(run: Examined) -> Iterator[Observation]:
    """No worker answered twice about the same summaries of a post."""
    for path in label_files(run.folder, "train"):
        rows = rankings(path)
        seen = {
            (row.info.id or row.info.post, row.worker, *sorted(summary.text for summary in row.summaries))
            for row in rows
        }
        share = 1 - len(seen) / len(rows)
        if severity := REPEATED_LABELS.above(share):
            yield Observation(
                run, severity, f"{share:.1%} of the rankings in {path.name} are repetitions", "none"
            )


@check(
    "labels",
    why="The reward model and the policies read different prompts: even a blank line changes the tokens.",
    remedy="Take the posts of the labels and of the data from the same source, unchanged.",
)
def prompts(run: Examined) -> Iterator[Observation]:
    """A labelled post has exactly the text that the data has for its id."""
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
        seen = f"{len(different)} of {len(known)} labelled posts differ from the data, such as {different[0]}"
        yield Observation(run, severity, seen, "the same subreddit, title and post")


@check(
    "sft",
    why="From cut references a policy learns to stop mid-sentence.",
    remedy="Increase `lengths.response` (`tldr-lab data` prints the window that cuts none).",
)
def reference_window(run: Examined) -> Iterator[Observation]:
    """The references fit into the response window, EOS included."""
    data = run.parents.get("data")
    if data is None:
        return
    window = run.file.lengths.response
    lengths = [len(ids) for ids in references(data.folder, "sft")]
    share = sum(length > window for length in lengths) / len(lengths)
    if severity := REFERENCES_CUT.above(share):
        seen = f"{share:.1%} of the references are longer than {window} tokens (longest: {max(lengths)})"
        yield Observation(run, severity, seen, "almost none")


def label_files(folder: Path, split: str) -> list[Path]:
    """The files of a labels run for a split: one, or one per fold."""
    return [
        path
        for path in (folder / f"{split}.jsonl", *sorted(folder.glob(f"fold-*/{split}.jsonl"), key=by_number))
        if path.is_file()
    ]


@cache
def rankings(path: Path) -> list[Ranking]:
    """The rankings in a file of labels; cached."""
    return load_comparisons(path)


@cache
def references(data: Path, name: str) -> list[list[int]]:
    """The references of a file of posts in the study's tokens, uncut and with EOS."""
    from tldr.queries.encode import encode_responses  # imports transformers, so only when needed
    from tldr.queries.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(data / "tokenizer")
    posts = read_records(data / f"{name}.jsonl", Post)
    return encode_responses(tokenizer, [post.summary or "" for post in posts], 1 << 30)


def ngram_losses(train: list[list[int]], held_out: list[list[int]]) -> tuple[float, float]:
    """Mean losses of a unigram and a bigram model on `held_out`, in nats per token.

    The unigram model adds one to the count of every type and of unseen types. The bigram model adds the
    unigram distribution with weight 1 to its counts (a Dirichlet prior). A response's first token follows
    a start symbol.
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
