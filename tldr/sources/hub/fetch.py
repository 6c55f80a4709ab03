"""Fetch a source, check it against its known sizes, and write it as the project's records."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tldr
from tldr.errors import LabError, UsageError
from tldr.files import drop_abandoned, write_text
from tldr.locks import lock_beside, locked
from tldr.records import OnError, Post, ReadReport, Record, write_json, write_records
from tldr.sources.hub.convention import Convention, Tally, same_convention
from tldr.sources.hub.convert import RawRow
from tldr.sources.hub.download import sha256_of
from tldr.sources.hub.load import OpenedSource

MANIFEST = "manifest.json"
EVERY = 10_000

RowProgress = Callable[[str, int], None]
"""Called with a split and the number of its rows read so far."""


@dataclass
class SplitResult:
    """The result of one split.

    Attributes:
        rows: all rows, including bad ones.
        bad: position and fault of each bad row.
        warnings: how the split differs from its known size.
    """

    split: str
    file: str
    record: str
    rows: int
    bad: list[str]
    convention: Convention
    warnings: list[str] = field(default_factory=list)


@dataclass
class FetchResult:
    """The results of all splits, and everything to warn about."""

    splits: list[SplitResult]
    warnings: list[str]


def fetch(
    source: OpenedSource,
    wanted: str | None,
    out: Path,
    *,
    on_error: OnError = "stop",
    counted: RowProgress | None = None,
) -> FetchResult:
    """Write ``<split>.jsonl`` for every split wanted, and ``manifest.json``.

    All files are fetched and checked before the first is read. A split's file appears when it is complete.
    An existing manifest is extended; files must have the sha256 that it records.

    Args:
        wanted: as of `OpenedSource.select`.
        on_error: "stop" at the first bad row, or "skip" it, which counts it and names it in
            ``<split>.bad.txt``.

    Raises:
        UsageError: no such split; or `out` holds another source.
        Busy: another process is fetching into `out`.
        LabError: a file differs from the one first fetched; or see `OpenedSource.local`.
        RecordError: a bad row, with on_error "stop".
    """
    with locked(lock_beside(out), "fetching into this folder", where=out):
        drop_abandoned(out)
        return _fetch(source, source.select(wanted), out, on_error, counted)


def _fetch(
    source: OpenedSource, splits: Sequence[str], out: Path, on_error: OnError, counted: RowProgress | None
) -> FetchResult:
    manifest = _previous(source, out)
    inputs = {path: _input(source, path) for split in splits for path in source.splits[split]}
    for path, found in inputs.items():
        _check_same(path, found["sha256"], manifest["inputs"].get(path), out)
    manifest["inputs"].update(inputs)
    results = []
    for split in splits:
        result = _write(source, split, out, on_error, counted)
        results.append(result)
        manifest["splits"][split] = {
            "file": result.file,
            "record": result.record,
            "rows": result.rows,
            "bad": len(result.bad),
            "sha256": sha256_of(out / result.file),
            "revision": source.revision,
            "on_error": on_error,
            "white_space": result.convention.to_json(),
            "warnings": result.warnings,
        }
    aside = [f"not read, as it holds no rows of a known form: {file}" for file in source.left_aside]
    manifest["warnings"] = [*aside, *_mixed(results)]
    write_json(out / MANIFEST, manifest)
    of_splits = [warning for result in results for warning in result.warnings]
    return FetchResult(results, [*of_splits, *manifest["warnings"]])


def _mixed(results: Iterable[SplitResult]) -> list[str]:
    """Reasons not to use the splits together."""
    try:
        return same_convention({result.split: result.convention for result in results})
    except UsageError as error:
        return [error.what]


def _previous(source: OpenedSource, out: Path) -> dict[str, Any]:
    """The manifest of an earlier fetch of the same source, or a new one."""
    fresh: dict[str, Any] = {
        "source": source.name,
        "note": source.known.note if source.known else "a local folder",
        "origin": source.listing.origin if source.listing else str(source.folder),
        "revision": source.revision,
        "versions": {
            "tldr-feedback": tldr.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("huggingface_hub", "pyarrow")},
        },
        "inputs": {},
        "splits": {},
    }
    path = out / MANIFEST
    if not path.exists():
        return fresh
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        name, inputs, splits = old["source"], dict(old["inputs"]), dict(old["splits"])
    except (ValueError, KeyError, TypeError):
        name, inputs, splits = "something else", {}, {}
    if name != source.name:
        raise UsageError(
            f"the folder holds {name}, not {source.name}", where=path, remedy="take another --out"
        )
    return {**fresh, "inputs": inputs, "splits": splits}


def _input(source: OpenedSource, path: str) -> dict[str, Any]:
    """A file's size, sha256 and address."""
    file = source.local(path)
    remote = source.remote(path)
    return {"bytes": file.stat().st_size, "sha256": sha256_of(file), "url": remote.url if remote else None}


def _check_same(path: str, sha256: str, before: Mapping[str, Any] | None, out: Path) -> None:
    if before is not None and before.get("sha256") != sha256:
        raise LabError(
            f"{path} has changed: its sha256 is {sha256}, and was {before.get('sha256')} when it was fetched",
            where=out / MANIFEST,
            remedy="take another --out to keep both, or remove this folder to take the new one",
        )


def _write(
    source: OpenedSource, split: str, out: Path, on_error: OnError, counted: RowProgress | None
) -> SplitResult:
    report = ReadReport(source.folder)
    tally, subreddits = Tally(), Counter[str]()
    kind, titles = "", 0

    def counting(records: Iterator[Record]) -> Iterator[Record]:
        nonlocal kind, titles
        for number, record in enumerate(records, start=1):
            tally.add(record)
            kind = kind or type(record).__name__
            if isinstance(record, Post):
                subreddits[record.subreddit] += 1
            elif isinstance(record, RawRow):
                titles += bool(record.title)
            if counted and number % EVERY == 0:
                counted(split, number)
            yield record

    file = write_records(
        out / f"{split}.jsonl", counting(source.records(split, on_error=on_error, report=report))
    )
    if report.bad:
        bad = out / f"{split}.bad.txt"
        write_text(bad, "".join(f"{line}\n" for line in report.bad))
    rows = report.good + len(report.bad)
    result = SplitResult(split, str(file.relative_to(out)), kind, rows, report.bad, tally.convention())
    if source.known is not None:
        result.warnings += source.known.differences(split, rows, subreddits)
    if kind == RawRow.__name__ and not titles:
        result.warnings.append(
            f"{split}: no row has a title, so `data filter` would count none as a top-level post; take the "
            "corpus from its authors (zenodo 1168855)"
        )
    return result
