"""The filter's outputs and its progress, from which a killed run resumes.

Files below ``state/`` are only appended to. Every few seconds they are synced, and their sizes, the position
in the input and the counts are recorded in ``state/progress.json``. To resume, each file is truncated to its
recorded size. The output depends on the input alone, so an interrupted run ends with the same bytes as an
uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tokenizers
import transformers
from transformers import PreTrainedTokenizerBase

import tldr
from tldr.errors import UsageError
from tldr.files import replacing, write_text
from tldr.records import write_json
from tldr.sources.filter_rules import RULES_FOLDER, FilterOptions, FilterSplit
from tldr.sources.funnel import QUERY_BIN, Funnel
from tldr.strict_json import parse_object

SYNC_SECONDS = 5.0
DIGEST_BYTES = 8
"""Bytes of a body's digest: among 4M posts, the probability of any collision is 1 in 2 million."""
LATEST = 1 << 17
"""Digests held in a set, at some 100 bytes each, before they are merged into the sorted array."""
PARQUET_ROWS = 10_000
SPLITS: tuple[FilterSplit, ...] = ("train", "valid", "test")
SETS = ("queries", "posts")
"""PPO queries (filtered by body, no summaries), and SFT posts (filtered by summary too)."""
OUTPUTS = tuple(f"{kind}/{split}.jsonl" for kind in SETS for split in SPLITS)
BAD, KEPT = "bad_line", "kept"


class Kept(NamedTuple):
    """A row that became a query and possibly an SFT post."""

    row: int
    split: FilterSplit
    subreddit: str
    query: str
    query_tokens: int
    post: str | None
    summary_tokens: int | None


@dataclass
class Judged:
    """What the rules found in a chunk, before duplicates: `digests` and `fates` have an entry per row.

    A fate is the rule that removes the row, `KEPT`, or `BAD` (then its digest is empty).
    """

    digests: list[bytes] = field(default_factory=list)
    fates: list[str] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)


class Seen:
    """The digests of all bodies so far, at 8 bytes each; 4M of them in a set would take 350 MB."""

    def __init__(self, digests: bytes = b""):
        self._sorted = np.sort(np.frombuffer(digests, np.uint64))
        self._latest: set[int] = set()

    def new(self, digests: bytes) -> list[bool]:
        """Whether each of the concatenated digests is new; afterwards all are known."""
        numbers = np.frombuffer(digests, np.uint64)
        places = np.searchsorted(self._sorted, numbers)
        old = np.zeros(len(numbers), bool)
        if len(self._sorted):
            old = self._sorted.take(places, mode="clip") == numbers
        fresh = []
        for number, known in zip(numbers.tolist(), old.tolist(), strict=True):
            fresh.append(not known and number not in self._latest)
            if fresh[-1]:
                self._latest.add(number)
        if len(self._latest) > LATEST:
            latest = np.fromiter(self._latest, np.uint64, len(self._latest))
            self._sorted = np.sort(np.concatenate([self._sorted, latest]))
            self._latest = set()
        return fresh


def describe(
    inputs: Sequence[str | Path],
    paths: Sequence[Path],
    tokenizer: PreTrainedTokenizerBase,
    options: FilterOptions,
    on_error: str,
) -> dict[str, Any]:
    """Everything that determines the result: requests with equal descriptions give equal bytes.

    The inputs are hashed, which takes a small part of the time of unpacking and parsing them.

    Args:
        inputs: the files as they were named, with their archive members.
        paths: the same files on disk.
    """
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items())).encode()
    return {
        "inputs": [
            _entry(path) | {"name": Path(name).name} for name, path in zip(inputs, paths, strict=True)
        ],
        "options": options.model_dump(mode="json"),
        "on_error": on_error,
        "rules": {path.name: _sha256(path) for path in sorted(RULES_FOLDER.glob("*.txt"))},
        "tokenizer": hashlib.sha256(vocabulary).hexdigest(),
    }


class FilterState:
    """The outputs of one filter request, as a context manager.

    Attributes:
        funnel: the counts so far.
        file, offset, lines: the input file to read, the position in its decompressed stream, and the
            number of its lines that are done.
    """

    def __init__(self, folder: Path, request: dict[str, Any]):
        self.folder = folder
        self.request = request
        self.funnel = Funnel()
        self.file = self.offset = self.lines = 0
        self._state = folder / "state"
        self._seen = Seen()
        self._files: dict[str, IO[bytes]] = {}
        self._synced = time.monotonic()

    def finished(self) -> Funnel | None:
        """The funnel of an earlier, complete run of this request.

        Raises:
            UsageError: the folder holds the complete or partial result of another request.
        """
        for name in ("manifest.json", "state/progress.json"):
            if (path := self.folder / name).is_file():
                if _read_note(path)["request"] != self.request:
                    raise UsageError(
                        "the folder holds the result of other inputs, options, rules or another tokenizer",
                        where=self.folder,
                        remedy="choose another folder, or remove this one",
                    )
                if name == "manifest.json":
                    shutil.rmtree(self._state, ignore_errors=True)
                    return Funnel.from_json(_read_note(self.folder / "funnel.json"))
        return None

    def __enter__(self) -> Self:
        """Open the outputs, truncated to the sizes that the last run recorded."""
        noted = self._state / "progress.json"
        sizes: dict[str, int] = {}
        if noted.is_file():
            progress = _read_note(noted)
            self.funnel = Funnel.from_json(progress["funnel"])
            self.file, self.offset, self.lines = progress["file"], progress["offset"], progress["lines"]
            sizes = progress["sizes"]
        for name in (*OUTPUTS, "seen.bin", "bad_lines.txt"):
            path = self._state / name
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = path.open("r+b" if path.exists() else "w+b")
            if stream.seek(0, os.SEEK_END) < sizes.get(name, 0):
                stream.close()
                raise UsageError(
                    f"the file is shorter than the {sizes[name]:,} bytes that were recorded",
                    where=path,
                    remedy="remove the folder, and filter again",
                )
            stream.truncate(sizes.get(name, 0))
            stream.seek(0, os.SEEK_END)
            self._files[name] = stream
        self._seen = Seen((self._state / "seen.bin").read_bytes())
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self.save()
        for stream in self._files.values():
            stream.close()

    def enter_file(self, index: int) -> None:
        """Start an input file, or resume it where the last run stopped."""
        if index != self.file:
            self.file, self.offset, self.lines = index, 0, 0

    def add(self, chunk: Any, judged: Judged, keep_duplicates: bool) -> None:
        """Count and write a chunk's rows in order; a body seen before is a duplicate."""
        fates: Counter[str] = Counter()
        again = set()
        new = iter([] if keep_duplicates else self._seen.new(b"".join(judged.digests)))
        for row, (digest, fate) in enumerate(zip(judged.digests, judged.fates, strict=True)):
            if digest and not keep_duplicates:
                if next(new):
                    self._files["seen.bin"].write(digest)
                else:
                    again.add(row)
                    fate = "duplicate"
            fates[fate] += 1
        self.funnel.rows += len(judged.fates)
        del fates[KEPT]
        self.funnel.removed.update(fates)
        for kept in judged.kept:
            if kept.row not in again:
                self._write(kept)
        for bad in judged.bad:
            self._files["bad_lines.txt"].write(f"{bad}\n".encode())
        self.offset = chunk.end
        self.lines = chunk.first_line - 1 + chunk.data.count(b"\n")
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self.save()

    def _write(self, kept: Kept) -> None:
        funnel = self.funnel
        funnel.query_tokens[kept.query_tokens // QUERY_BIN * QUERY_BIN] += 1
        self._write_line("queries", kept, kept.query)
        if kept.post is not None:
            funnel.summary_tokens[kept.summary_tokens or 0] += 1
            self._write_line("posts", kept, kept.post)

    def _write_line(self, kind: str, kept: Kept, line: str) -> None:
        self._files[f"{kind}/{kept.split}.jsonl"].write(f"{line}\n".encode())
        self.funnel.splits[f"{kind}/{kept.split}"] += 1
        for name in (kind, f"{kind}/{kept.split}"):
            self.funnel.subreddits.setdefault(name, Counter())[kept.subreddit] += 1

    def save(self) -> None:
        """Flush all outputs to disk and record how far they are."""
        for stream in self._files.values():
            stream.flush()
            os.fsync(stream.fileno())
        write_json(
            self._state / "progress.json",
            {
                "request": self.request,
                "file": self.file,
                "offset": self.offset,
                "lines": self.lines,
                "sizes": {name: stream.tell() for name, stream in self._files.items()},
                "funnel": self.funnel.to_json(),
            },
        )
        self._synced = time.monotonic()


def publish(state: FilterState, paths: Sequence[Path]) -> Funnel:
    """Copy the outputs into place, add Parquet, report and, last, the manifest; remove the state.

    Raises:
        UsageError: an input was changed while it was read.
    """
    folder, funnel = state.folder, state.funnel
    entries = [_entry(path) for path in paths]
    for path, entry, asked in zip(paths, entries, state.request["inputs"], strict=True):
        if entry["sha256"] != asked["sha256"]:
            raise UsageError(
                "the file was changed while it was read",
                where=path,
                remedy=f"remove {folder}, and filter the file again",
            )
    names = [name for name in (*OUTPUTS, "bad_lines.txt") if name in OUTPUTS or funnel.removed[BAD]]
    for name in names:
        with replacing(folder / name) as partial:
            shutil.copyfile(folder / "state" / name, partial)
    for name in OUTPUTS:
        _write_parquet(folder / name)
        names.append(str(Path(name).with_suffix(".parquet")))
    write_json(folder / "funnel.json", funnel.to_json())
    write_text(folder / "funnel.md", funnel.to_markdown() + "\n")
    write_json(
        folder / "manifest.json",
        {
            "request": state.request,
            "inputs": entries,
            "outputs": {name: _entry(folder / name) for name in (*names, "funnel.json", "funnel.md")},
            "versions": {
                "python": platform.python_version(),
                "tldr-feedback": tldr.__version__,
                "tokenizers": tokenizers.__version__,
                "transformers": transformers.__version__,
                "pyarrow": pa.__version__,
            },
        },
    )
    shutil.rmtree(folder / "state")
    return funnel


def _read_note(path: Path) -> dict[str, Any]:
    """A JSON object that an earlier run wrote."""
    try:
        return parse_object(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"what an earlier run wrote cannot be read: {error}",
            where=path,
            remedy="remove the folder, and filter again",
        ) from None


def _entry(path: Path) -> dict[str, Any]:
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_parquet(path: Path) -> None:
    """The jsonl file's rows as Parquet beside it, a group of rows at a time."""
    fields = ["id", "subreddit", "title", "post"]
    if path.parent.name == "posts":
        fields.append("summary")
    schema = pa.schema([(name, pa.string()) for name in fields])
    with (
        path.open(encoding="utf-8") as lines,
        replacing(path.with_suffix(".parquet")) as partial,
        pq.ParquetWriter(partial, schema) as writer,
    ):
        rows: Iterator[dict[str, Any]] = map(json.loads, lines)
        while group := list(islice(rows, PARQUET_ROWS)):
            writer.write_table(pa.Table.from_pylist(group, schema))
