"""The paper's filter over the raw dump: Webis-TLDR-17 JSON lines in, PPO queries and SFT posts out.

Workers parse, judge and tokenize chunks of lines. Only the parent keeps the digests of the bodies seen, so
the first of several equal bodies is the first in the input, whatever the number of workers. Every few seconds
the outputs are synced and their sizes recorded. A killed filter resumes there and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Literal

from transformers import PreTrainedTokenizerBase

from tldr.errors import RecordError, UsageError
from tldr.files import drop_abandoned
from tldr.interrupts import EndRequest
from tldr.locks import lock_beside, locked
from tldr.queries.encode import encode_responses, encode_texts, surely_longer
from tldr.queries.formats import format_query
from tldr.queries.tokenizer import load_tokenizer
from tldr.records import Post
from tldr.sources.filter_rules import (
    POST_RULES,
    SUMMARY_RULES,
    FilterCandidate,
    FilterOptions,
    first_broken,
    full_id,
    read_candidate,
    split_of,
)
from tldr.sources.filter_state import (
    BAD,
    DIGEST_BYTES,
    KEPT,
    SETS,
    FilterState,
    Judged,
    Kept,
    describe,
    publish,
)
from tldr.sources.funnel import Funnel
from tldr.sources.raw import Chunk, check_input, read_chunks
from tldr.strict_json import parse_object

CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class FilterProgress:
    """How far the filter is; `read` and `total` are bytes on disk."""

    funnel: Funnel
    read: int
    total: int


def judge(chunk: Chunk, place: str, options: FilterOptions, tokenizer: PreTrainedTokenizerBase) -> Judged:
    """Apply every rule but `duplicate` to the lines of a chunk: cheap rules first, tokens in batches."""
    judged = Judged()
    rows: list[tuple[int, FilterCandidate]] = []
    for number, line in enumerate(chunk.data.split(b"\n"), start=chunk.first_line):
        if not line.strip():
            continue
        try:
            row = _parse(line)
            if "no_tldr" in options.off and not (row.post and row.summary):
                raise ValueError("no 'content' or 'summary', which are needed where no_tldr is off")
        except ValueError as error:
            judged.bad.append(f"{place}:{number}: {error}")
            judged.digests.append(b"")
            judged.fates.append(BAD)
            continue
        judged.digests.append(hashlib.blake2b(row.body.encode(), digest_size=DIGEST_BYTES).digest())
        broken = first_broken(POST_RULES, row, options)
        if broken is None:
            rows.append((len(judged.fates), row))
        judged.fates.append(broken or KEPT)
    _judge_lengths(judged, rows, options, tokenizer)
    return judged


def _parse(line: bytes) -> FilterCandidate:
    return read_candidate(parse_object(line))


def _judge_lengths(
    judged: Judged,
    rows: list[tuple[int, FilterCandidate]],
    options: FilterOptions,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """The rules on tokens, and the summary's; fills `kept` and the rows' fates."""
    posts = [
        Post(id=full_id(row.id), subreddit=row.subreddit, title=row.title, post=row.post) for _, row in rows
    ]
    queries = _query_tokens(tokenizer, posts, None if "query_tokens" in options.off else options.query_tokens)
    fates = [
        "query_tokens" if tokens is None else first_broken(SUMMARY_RULES, row, options) or KEPT
        for tokens, (_, row) in zip(queries, rows, strict=True)
    ]
    asked = [i for i, fate in enumerate(fates) if fate == KEPT]
    encoded = encode_responses(tokenizer, [rows[i][1].summary for i in asked], max_tokens=1 << 30)
    summaries = {i: len(ids) for i, ids in zip(asked, encoded, strict=True)}
    least, most = options.summary_tokens
    for i, length in summaries.items():
        if not least <= length <= most and "summary_tokens" not in options.off:
            fates[i] = "summary_tokens"
    for i, ((index, row), post, tokens) in enumerate(zip(rows, posts, queries, strict=True)):
        judged.fates[index] = fates[i]
        if tokens is not None:
            full = post.model_copy(update={"summary": row.summary}).to_json() if fates[i] == KEPT else None
            split = split_of(post.id, options)
            judged.kept.append(
                Kept(index, split, post.subreddit, post.to_json(), tokens, full, summaries.get(i))
            )


def _query_tokens(
    tokenizer: PreTrainedTokenizerBase, posts: list[Post], limit: int | None
) -> list[int | None]:
    """The length of each whole query; None above the limit."""
    texts = [format_query(post) for post in posts]
    if limit is None:
        return [len(ids) for ids in encode_texts(tokenizer, texts)]
    short = [i for i, text in enumerate(texts) if not surely_longer(tokenizer, text, limit)]
    lengths: list[int | None] = [None] * len(posts)
    for i, ids in zip(short, encode_texts(tokenizer, [texts[i] for i in short]), strict=True):
        lengths[i] = len(ids) if len(ids) <= limit else None
    return lengths


_worker: tuple[PreTrainedTokenizerBase, FilterOptions] | None = None


def _start_worker(tokenizer: str, options: FilterOptions) -> None:
    global _worker
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # every core already has a process
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent saves at Ctrl-C and ends its pool
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = load_tokenizer(tokenizer), options


@contextmanager
def _pool(workers: int, tokenizer: str, options: FilterOptions) -> Iterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_start_worker, initargs=(tokenizer, options)
    )
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """End this worker with its parent: a killed parent cannot end its pool."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _judge_in_worker(chunk: Chunk, place: str) -> Judged:
    assert _worker is not None
    tokenizer, options = _worker
    return judge(chunk, place, options, tokenizer)


def _judge_all(
    chunks: Iterator[Chunk], place: str, pool: ProcessPoolExecutor, ahead: int
) -> Iterator[tuple[Chunk, Judged]]:
    """Judge the chunks in the pool, at most `ahead` of them at a time, and yield them in order."""
    waiting: deque[tuple[Chunk, Future[Judged]]] = deque()
    for chunk in chunks:
        waiting.append((chunk, pool.submit(_judge_in_worker, chunk, place)))
        if len(waiting) >= ahead:
            first, judged = waiting.popleft()
            yield first, judged.result()
    for first, judged in waiting:
        yield first, judged.result()


def run_filter(
    inputs: Sequence[str | Path],
    out: str | Path,
    tokenizer: str,
    options: FilterOptions | None = None,
    *,
    workers: int | None = None,
    on_error: Literal["stop", "skip"] = "stop",
    progress: Callable[[FilterProgress], None] | None = None,
) -> Funnel:
    """Filter raw dump files into `out`; an interrupted run of the same request is resumed.

    Args:
        inputs: files as `tldr.sources.archive` opens them, taken in this order.
        out: receives ``{queries,posts}/{train,valid,test}.{jsonl,parquet}``, ``funnel.json``,
            ``funnel.md`` and, last, ``manifest.json``.
        tokenizer: folder or hub name; the paper's limits are in GPT-2's tokens.
        workers: processes; None for one per core, 1 for this process alone.
        on_error: "stop" at the first line that holds no row, or "skip" it, which counts it and names it
            in ``bad_lines.txt``.

    Raises:
        UsageError: no input, a file that cannot be read, a dump without titles, or an `out` that
            holds the result of another request; inputs are compared by content.
        Busy: another process is filtering into `out`.
        RecordError: a bad line, with on_error "stop".
        SystemExit, KeyboardInterrupt: on SIGTERM or Ctrl-C, with everything saved.
    """
    options = options or FilterOptions()
    if not inputs:
        raise UsageError("no input file", remedy="name at least one file of the raw dump")
    paths = [check_input(name) for name in inputs]
    sizes = [path.stat().st_size for path in paths]
    loaded = load_tokenizer(tokenizer)
    request = describe(inputs, paths, loaded, options, on_error)
    folder = Path(out)
    with locked(lock_beside(folder), "filtering into this folder", where=folder):
        state = FilterState(folder, request)
        if (finished := state.finished()) is not None:
            return finished
        for place in (folder, *(folder / name for name in ("state", *SETS))):
            drop_abandoned(place)
        judging = Judging(tokenizer, loaded, options, workers or os.cpu_count() or 1)
        with state:
            _fill(state, inputs, sizes, judging, on_error, progress)
            _check_titles(state.funnel)
        return publish(state, paths)


@dataclass(frozen=True)
class Judging:
    """How chunks are judged: by which tokenizer (its name, and loaded), options and number of processes."""

    name: str
    tokenizer: PreTrainedTokenizerBase
    options: FilterOptions
    workers: int


def _fill(
    state: FilterState,
    inputs: Sequence[str | Path],
    sizes: Sequence[int],
    judging: Judging,
    on_error: str,
    progress: Callable[[FilterProgress], None] | None,
) -> None:
    """Judge what has not been judged yet, chunk by chunk.

    Raises:
        RecordError: a bad line, with on_error "stop".
        SystemExit, KeyboardInterrupt: on SIGTERM or Ctrl-C, after the chunk at hand, with everything saved.
    """
    asked_to_end, options, workers = EndRequest(), judging.options, judging.workers
    with asked_to_end.heard(), ExitStack() as stack:
        pool = stack.enter_context(_pool(workers, judging.name, options)) if workers > 1 else None
        for index in range(state.file, len(inputs)):
            state.enter_file(index)
            place = Path(inputs[index]).name
            chunks = read_chunks(inputs[index], CHUNK_BYTES, state.offset, state.lines + 1)
            for chunk, judged in (
                _judge_all(chunks, place, pool, 2 * workers)
                if pool
                else ((chunk, judge(chunk, place, options, judging.tokenizer)) for chunk in chunks)
            ):
                if judged.bad and on_error == "stop":
                    _refuse(judged.bad[0])
                state.add(chunk, judged, keep_duplicates="duplicate" in options.off)
                if progress:
                    progress(FilterProgress(state.funnel, sum(sizes[:index]) + chunk.read, sum(sizes)))
                if asked_to_end:
                    state.save()
                    asked_to_end.end()


def _refuse(bad: str) -> None:
    where, _, what = bad.partition(": ")
    raise RecordError(what, where=where, remedy="use --on-error skip to count such lines and continue")


def _check_titles(funnel: Funnel) -> None:
    """Refuse a dump in which every row is a comment: the hub's copy of the corpus has no titles."""
    if funnel.removed["comment"] and not funnel.after("comment"):
        raise UsageError(
            f"none of {funnel.rows:,} rows has a title, so none counts as a top-level post",
            remedy="the hub's copy (webis/tldr-17) lacks titles: take the corpus from its authors "
            "(zenodo 1168855), or switch the rule 'comment' off",
        )
