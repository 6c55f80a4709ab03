"""Record files as tables: one row a sample or a post, joined by post id.

Scores and tags become columns ``score.<name>`` and ``tag.<name>``; absent values are missing
(NaN/None), never zero. A join that would lose or invent rows is an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import pandas as pd

from tldr.errors import RecordError, UsageError
from tldr.records import Post, ReadReport, Sample, iter_records

SAMPLES_FILE = "samples.jsonl"
_COLUMNS = [name for name in Sample.model_fields if name not in ("response_ids", "scores", "tags")]
Places = str | Path | Iterable[str | Path]


def _files(places: Places, name: str) -> list[Path]:
    """The files meant by `places`: a file is itself, a folder every ``name`` below it, sorted."""
    found: dict[Path, Path] = {}
    for place in [places] if isinstance(places, str | Path) else places:
        path = Path(place)
        inside = sorted(path.rglob(name)) if path.is_dir() else [path]
        if not inside:
            raise UsageError(
                f"no {name} in this folder",
                where=path,
                remedy="run the sample stage, or name the file itself",
            )
        found.update((file.resolve(), file) for file in inside)
    return list(found.values())


def _sample_row(sample: Sample, file: Path) -> dict[str, object]:
    row: dict[str, object] = {name: getattr(sample, name) for name in _COLUMNS}
    # A number must be traceable: a sample that names no run is filed under where it was found.
    row["run"] = sample.run or (file.parent.name if file.name == SAMPLES_FILE else file.stem)
    row.update({f"score.{name}": value for name, value in sample.scores.items()})
    row.update({f"tag.{name}": value for name, value in sample.tags.items()})
    return row


def load_samples(
    places: Places,
    *,
    on_error: Literal["stop", "skip"] = "stop",
    reports: list[ReadReport] | None = None,
) -> pd.DataFrame:
    """Read samples from files and folders (every ``samples.jsonl`` below a folder).

    Args:
        on_error: "skip" counts bad lines in `reports` (one report a file) instead of stopping.

    Returns:
        One row a `Sample`, columns as its fields (token ids left out), then ``score.*`` and ``tag.*``.

    Raises:
        UsageError: no such file, or not one sample in all of them.
        RecordError: a bad line, named ``file:line``.
    """
    rows: list[dict[str, object]] = []
    for file in _files(places, SAMPLES_FILE):
        report = ReadReport(file)
        if reports is not None:
            reports.append(report)
        rows += [_sample_row(s, file) for s in iter_records(file, Sample, on_error=on_error, report=report)]
    if not rows:
        raise UsageError(
            "no samples found", where=str(places), remedy="check the path, or run the sample stage"
        )
    return pd.DataFrame(rows)


def load_posts(places: Places, *, on_error: Literal["stop", "skip"] = "stop") -> pd.DataFrame:
    """Read posts; index = post id, columns subreddit, title, post, summary (None without one).

    Raises:
        RecordError: a bad line, or two posts with one id.
    """
    files = _files(places, "*.jsonl")
    rows = [
        {name: getattr(post, name) for name in Post.model_fields}
        for file in files
        for post in iter_records(file, Post, on_error=on_error)
    ]
    posts = pd.DataFrame(rows, columns=list(Post.model_fields)).set_index("id")
    twice = posts.index[posts.index.duplicated()].unique()
    if len(twice):
        raise RecordError(
            f"{len(twice)} post ids occur more than once: {_some(twice)}",
            where=", ".join(map(str, files)),
            remedy="keep one row a post id",
        )
    return posts


def join_by_post(samples: pd.DataFrame, other: pd.DataFrame, *, what: str) -> pd.DataFrame:
    """Add the columns of `other` (indexed by unique post id) to each sample of that post.

    Args:
        what: what `other` holds, for the error text ("posts", "reference scores").

    Returns:
        `samples` with its own index and order, and the new columns.

    Raises:
        UsageError: sample posts missing from `other`; names how many and the first few.
    """
    if not other.index.is_unique:
        raise UsageError(f"{what}: the same post id occurs twice", remedy="keep one row a post id")
    ids = samples["id"].drop_duplicates()
    missing = ids[~ids.isin(other.index)]
    if len(missing):
        raise UsageError(
            f"{what}: {len(missing)} of {len(ids)} posts are missing: {_some(missing)}",
            remedy=f"use the {what} the samples were made from",
        )
    return samples.join(other, on="id", validate="many_to_one")


def _some(ids: Iterable[object], count: int = 3) -> str:
    names = [str(one) for one in ids]
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
