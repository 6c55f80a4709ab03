"""The paper's filter over the raw dump: Webis-TLDR-17 JSON lines in, PPO queries and SFT posts out.

Workers parse, judge and tokenize chunks of lines; the parent alone keeps the digests of the bodies
seen, so "the first of several equal bodies" means the first in the input whatever the number of
workers. Every few seconds the outputs are synced and their sizes noted: a killed filter goes on from
there, and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from transformers import PreTrainedTokenizerBase

from tldr.data.filter_rules import (
    POST_RULES,
    RULES,
    SUMMARY_RULES,
    Candidate,
    FilterOptions,
    Split,
    first_broken,
    full_id,
    read_candidate,
    split_of,
)
from tldr.data.formats import encode_responses, encode_texts, format_query
from tldr.data.funnel import Funnel, write_report
from tldr.data.raw import Chunk, check_input, read_chunks
from tldr.data.tokenizer import load_tokenizer
from tldr.errors import RecordError, UsageError
from tldr.records import Post, write_json

CHUNK_BYTES = 4 << 20
SYNC_SECONDS = 5.0
DIGEST_BYTES = 16
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
SETS = ("queries", "posts")
"""PPO queries (filtered by body, without summaries), and SFT posts (filtered by summary too)."""
BAD, KEPT = "bad_line", "kept"


class Kept(NamedTuple):
    """A row that became a query, and perhaps an SFT post."""

    row: int
    split: Split
    subreddit: str
    query: str
    query_tokens: int
    post: str | None
    summary_tokens: int | None


@dataclass
class Judged:
    """What a worker says of a chunk, row by row; duplicates are not yet known.

    `digests` has an empty entry and `fates` `BAD` where a line holds no row; blank lines have no entry.
    """

    digests: list[bytes] = field(default_factory=list)
    fates: list[str] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)


def judge(
    chunk: Chunk, place: str, options: FilterOptions, tokenizer: PreTrainedTokenizerBase
) -> Judged:
    """Every rule but `duplicate` on the lines of a chunk, cheap rules first, tokens in batches."""
    judged = Judged()
    rows: list[tuple[int, Candidate]] = []
    for number, line in enumerate(chunk.data.splitlines(), start=chunk.first_line):
        if not line.strip():
            continue
        try:
            row = _parse(line)
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


def _parse(line: bytes) -> Candidate:
    try:
        data = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"invalid UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"broken JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("broken JSON: nested too deeply") from None
    if not isinstance(data, dict):
        raise ValueError(f"expected a JSON object, found {type(data).__name__}")
    return read_candidate(data)


def _judge_lengths(
    judged: Judged,
    rows: list[tuple[int, Candidate]],
    options: FilterOptions,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """The rules on tokens, and the summary's; fills `kept` and the rows' fates."""
    posts = [
        Post(id=full_id(row.id), subreddit=row.subreddit, title=row.title, post=row.post, summary=row.summary)
        for _, row in rows
    ]
    queries = [len(ids) for ids in encode_texts(tokenizer, [format_query(post) for post in posts])]
    fates: list[str] = []
    for (_, row), tokens in zip(rows, queries, strict=True):
        if tokens > options.query_tokens and "query_tokens" not in options.off:
            fates.append("query_tokens")
        else:
            fates.append(first_broken(SUMMARY_RULES, row, options) or KEPT)
    kept = [i for i, fate in enumerate(fates) if fate == KEPT]
    least, most = options.summary_tokens
    encoded = encode_responses(tokenizer, [rows[i][1].summary for i in kept], max_tokens=1 << 30)
    summaries = {i: len(ids) for i, ids in zip(kept, encoded, strict=True)}
    for i, tokens in summaries.items():
        if not least <= tokens <= most and "summary_tokens" not in options.off:
            fates[i] = "summary_tokens"
    for i, fate in enumerate(fates):
        index, _ = rows[i]
        judged.fates[index] = fate
        if fate != "query_tokens":
            post = posts[i]
            judged.kept.append(
                Kept(
                    index,
                    split_of(post.id, options),
                    post.subreddit,
                    Post(**post.model_dump(exclude={"summary"})).to_json(),
                    queries[i],
                    post.to_json() if fate == KEPT else None,
                    summaries.get(i) if fate == KEPT else None,
                )
            )


_worker: tuple[PreTrainedTokenizerBase, FilterOptions] | None = None


def _start_worker(tokenizer: str, options: FilterOptions) -> None:
    global _worker
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one process a core already
    _worker = load_tokenizer(tokenizer), options


def _judge_in_worker(chunk: Chunk, place: str) -> Judged:
    assert _worker is not None
    tokenizer, options = _worker
    return judge(chunk, place, options, tokenizer)


@dataclass
class Progress:
    """Where the filter stands; `read` and `total` are bytes on disk."""

    rows: int
    queries: int
    posts: int
    read: int
    total: int


def run_filter(
    inputs: Sequence[str | Path],
    out: str | Path,
    tokenizer: str,
    options: FilterOptions | None = None,
    *,
    workers: int | None = None,
    on_error: Literal["stop", "skip"] = "stop",
    progress: Callable[[Progress], None] | None = None,
) -> Funnel:
    """Filter raw dump files into `out`, going on where an interrupted run of the same request stopped.

    Args:
        inputs: files as `tldr.data.raw` reads them, taken in this order.
        out: receives ``{queries,posts}/{train,valid,test}.{jsonl,parquet}``, ``funnel.json``,
            ``funnel.md`` and ``manifest.json``, which is written last.
        tokenizer: folder or hub name; the paper's lengths are in GPT-2's tokens.
        workers: processes; None: one a core.
        on_error: "stop" at the first line that holds no row, or "skip" and count it
            (``bad_lines.txt`` names them).

    Raises:
        UsageError: no input, a file that cannot be read, a dump without titles, or an `out` that
            holds the result of another request.
        RecordError: a bad line, with on_error "stop".
    """
    options = options or FilterOptions()
    if not inputs:
        raise UsageError("no input file", remedy="name at least one file of the raw dump")
    paths = [check_input(name) for name in inputs]
    loaded = load_tokenizer(tokenizer)
    request = {
        "inputs": [{"name": Path(name).name, "bytes": path.stat().st_size} for name, path in zip(inputs, paths, strict=True)],
        "options": options.model_dump(mode="json"),
        "rules": _rules_hashes(),
        "tokenizer": hashlib.sha256(json.dumps(sorted(loaded.get_vocab().items())).encode()).hexdigest(),
        "on_error": on_error,
    }  # fmt: skip
    folder = Path(out)
    if (folder / "manifest.json").is_file():
        return _finished(folder, request)
    with ExitStack() as stack:
        writer = stack.enter_context(_Writer(folder, request))
        total = sum(path.stat().st_size for path in paths)
        before = 0
        for index, (name, path) in enumerate(zip(inputs, paths, strict=True)):
            if index >= writer.file:
                writer.enter(index)
                chunks = read_chunks(name, CHUNK_BYTES, writer.offset, writer.lines + 1)
                for chunk, judged in _judged(chunks, Path(name).name, tokenizer, options, workers):
                    if judged.bad and on_error == "stop":
                        raise RecordError(judged.bad[0].split(": ", 1)[1], where=judged.bad[0].split(": ", 1)[0], remedy="use --on-error skip to count such lines and go on")  # fmt: skip
                    writer.add(chunk, judged, "duplicate" not in options.off)
                    if progress:
                        funnel = writer.funnel
                        progress(Progress(funnel.rows, funnel.queries, funnel.posts, before + chunk.read, total))
            before += path.stat().st_size
        _check_titles(writer.funnel, options)
        writer.close()
    return write_report(folder, writer.funnel, request, [(Path(n).name, p) for n, p in zip(inputs, paths, strict=True)])
