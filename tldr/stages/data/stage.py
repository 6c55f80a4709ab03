"""The data stage: post files and a tokenizer in one folder, whatever they come from."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tldr.errors import UsageError
from tldr.inputs.leakage import check_leaks, folder_keys
from tldr.inputs.posts import check_disjoint, load_posts, post_keys
from tldr.inputs.validation import PAPER_SELECTED, PAPER_VALIDATION, UNMARKED, Divided, divide
from tldr.queries.tokenizer import load_tokenizer, train_bpe
from tldr.records import Post, Ranking, ReadReport, write_json, write_records
from tldr.sources.hub.convention import Convention, convention, same_convention
from tldr.sources.place import articles_at, posts_at, rankings_at
from tldr.stages.data import DataRun
from tldr.stages.data.settings import FileData
from tldr.stages.shared.corpus import CORPUS, CORPUS_HELD_OUT, read_corpus
from tldr.toy.generate import generate_toy
from tldr.train.metrics import Progress

log = logging.getLogger(__name__)


def run(ctx: DataRun) -> None:
    """Write ``sft``, ``ppo``, ``valid1``, ``valid2``, ``test``, ``corpus``, ``cnndm`` as JSON lines;
    ``tokenizer/``.

    Posts of valid1 that the comparisons mark valid2 only report: they go to ``validation_valid2``, or to
    ``valid2`` where one set of posts is given as both. Unmarked ones then go to ``validation_unmarked``, and
    labels that cannot be used to ``rankings_set_aside`` (`tldr.inputs.validation`). A study that would train
    on its evaluation posts is refused (`tldr.inputs.leakage`).

    Raises:
        UsageError: a file is missing or empty, or sets share posts that they may not share.
        RecordError: a bad line, with `on_error: stop`.
    """
    source = ctx.settings.data
    progress = Progress(ctx.folder, total=2)
    if isinstance(source, FileData):
        _collect(source, ctx.folder)
    else:
        generate_toy(source, ctx.folder)
    progress.update(1)
    check_leaks(folder_keys(ctx.folder))
    spec = ctx.settings.tokenizer
    if spec.path is not None:
        tokenizer = load_tokenizer(spec.path)
    else:
        tokenizer = train_bpe(_texts(ctx.folder), spec.vocab_size)
    tokenizer.save_pretrained(ctx.folder / "tokenizer")
    progress.update(2)


def _collect(source: FileData, folder: Path) -> None:
    """Copy the user's records; bad lines set aside, and SFT posts standing in for PPO's, are noted."""
    files = source.posts()
    counts: dict[str, int] = {}
    white_space: dict[str, Convention] = {}
    reports = {name: ReadReport(Path(path)) for name, path in files.items()}
    evaluation: dict[str, list[Post]] = {}
    for name, path in files.items():
        posts = posts_at(path, on_error=source.on_error, report=reports[name])
        white_space[name] = convention(posts)
        if name != "ppo" and any(post.summary is None for post in posts):
            raise UsageError("a post has no summary", where=path, remedy=f"{name} posts need their reference")
        write_records(folder / f"{name}.jsonl", posts)
        counts[name] = len(posts)
        if name in ("valid1", "valid2"):
            evaluation[name] = posts
    rankings: list[Ranking] = []
    divided: Divided | None = None
    if source.comparisons is not None:
        reports["rankings"] = ReadReport(Path(source.comparisons))
        rankings = rankings_at(source.comparisons, on_error=source.on_error, report=reports["rankings"])
        white_space["comparisons"] = convention(rankings)
        if divided := divide(evaluation["valid1"], evaluation["valid2"], rankings):
            rankings = divided.rankings
            counts |= _write_divided(divided, folder)
        write_records(folder / "rankings.jsonl", rankings)
        counts["rankings"] = len(rankings)
    if source.report_unmarked and UNMARKED not in counts:
        raise UsageError(
            "no validation post is left unmarked by the comparisons",
            where="data.report_unmarked",
            remedy="set it to false",
        )
    if source.cnndm is not None:
        articles = articles_at(source.cnndm)
        write_records(folder / "cnndm.jsonl", articles)
        counts["cnndm"] = len(articles)
        trained = [row for row in rankings if row.split == "train"]
        check_disjoint({"labels/train": post_keys(trained)}, {"cnndm": post_keys(articles)})
    for name, corpus in ((CORPUS, source.corpus), (CORPUS_HELD_OUT, source.corpus_held_out)):
        if corpus is not None:
            (folder / name).write_bytes(Path(corpus).read_bytes())
            read_corpus(folder, name)  # a broken line is told here, not after hours
    notes = same_convention(white_space)
    for note in notes:
        log.warning("%s", note)
    manifest: dict[str, Any] = {
        "records": counts,
        "ppo_posts_are_sft_posts": source.ppo is None,
        "white_space": {name: found.to_json() for name, found in white_space.items()} | {"notes": notes},
    }
    if divided is not None:
        manifest["validation"] = divided.counts | {"paper_selected": PAPER_SELECTED}
    if bad := [line for report in reports.values() for line in report.bad]:
        manifest["bad_lines"] = {name: len(report.bad) for name, report in reports.items() if report.bad}
        (folder / "bad_lines.txt").write_text("\n".join(bad) + "\n", encoding="utf-8")
        log.warning("%d bad lines set aside: %s", len(bad), folder / "bad_lines.txt")
    write_json(folder / "manifest.json", manifest)


def _write_divided(divided: Divided, folder: Path) -> dict[str, int]:
    """Write the posts of the divided sets and the labels set aside, log all counts, and return the files'."""
    for name, posts in divided.posts.items():
        write_records(folder / f"{name}.jsonl", posts)
    counts = {name: len(posts) for name, posts in divided.posts.items()}
    if divided.set_aside:
        write_records(folder / "rankings_set_aside.jsonl", divided.set_aside)
        counts["rankings_set_aside"] = len(divided.set_aside)
    log.warning(
        "of %(posts)d validation posts, the comparisons mark %(valid1)d valid1 and %(both)d both (these "
        "select; the paper selected on %(selected)d of %(validation)d), %(valid2)d valid2 (these only "
        "report) and %(unmarked)d not at all (these %(use)s); %(labels_set_aside)d valid2 labels of posts "
        "that select are set aside",
        divided.counts
        | {"selected": PAPER_SELECTED, "validation": PAPER_VALIDATION}
        | {"use": "report apart" if UNMARKED in divided.posts else "select"},
    )
    return counts


def _texts(folder: Path) -> Iterator[str]:
    """What the tokenizer is trained on: the pretraining corpus (if there is one), posts and references."""
    if (folder / CORPUS).exists():
        for document in read_corpus(folder):
            yield str(document["text"])
    for post in load_posts(folder / "sft.jsonl"):
        yield from _post_texts(post)


def _post_texts(post: Post) -> Iterator[str]:
    yield post.post
    yield f" {post.summary}"
