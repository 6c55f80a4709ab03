"""Record files as tables: one row per sample or post, joined by post id.

Scores and tags become columns ``score.<name>`` and ``tag.<name>``; absent values are missing
(NaN/None), never zero. A join that would lose or invent rows is an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from eval.common.cells import with_cells
from tldr.errors import RecordError, UsageError
from tldr.files import distinct, files_below
from tldr.records import Article, Post, ReadReport, Record, Sample, iter_records

SAMPLES_FILE = "samples.jsonl"
_COLUMNS = [name for name in Sample.model_fields if name not in ("response_ids", "scores", "tags")]
FilePlaces = str | Path | Iterable[str | Path]


def files_of(places: FilePlaces, *names: str) -> list[Path]:
    """The files meant by `places`: a file is itself, a folder every file below it with the first of the
    `names` that is there, sorted.

    Raises:
        UsageError: a folder without such a file.
    """
    found: list[Path] = []
    for place in [places] if isinstance(places, str | Path) else places:
        path = Path(place)
        below = (files_below(path, name) for name in names)
        inside = next(filter(None, below), []) if path.is_dir() else [path]
        if not inside:
            raise UsageError(
                f"no {' or '.join(names)} in this folder",
                where=path,
                remedy="run the stage that makes it, or name the file itself",
            )
        found += inside
    return distinct(found)


def _sample_row(sample: Sample, file: Path) -> dict[str, object]:
    row: dict[str, object] = {name: getattr(sample, name) for name in _COLUMNS}
    # A number must be traceable: a sample without a run gets the name of the place where it was found.
    row["run"] = sample.run or (file.parent.name if file.name == SAMPLES_FILE else file.stem)
    row.update({f"score.{name}": value for name, value in sample.scores.items()})
    row.update({f"tag.{name}": value for name, value in sample.tags.items()})
    return row


def load_samples(
    places: FilePlaces,
    *,
    policy: str | None = None,
    on_error: Literal["stop", "skip"] = "stop",
    reports: list[ReadReport] | None = None,
) -> pd.DataFrame:
    """Read samples from files and folders (every ``samples.jsonl`` below a folder).

    Rows as the N+ authors published them (``id``, ``text``, ``judge_preferred``) are read too once
    `policy` names whose they are. Their verdict, "ours" or "reference", becomes the scores 1 and 0
    of a scorer ``judge``; null means not judged. Each pair was judged in one order only, which the
    rows do not give, so position bias can be neither measured nor taken out.

    Args:
        policy: the policy of rows that name none.
        on_error: "skip" counts bad lines in `reports` (one report per file) instead of stopping.

    Returns:
        One row a `Sample`, columns as its fields (token ids left out), then ``score.*`` and ``tag.*``, and
        ``cell``. Where the tags name several data seeds, the ids are marked with them
        (`eval.common.cells`), as the posts differ.

    Raises:
        UsageError: no such file, or not one sample in all of them.
        RecordError: a bad line, named ``file:line``.
    """
    return with_cells(sample_rows(places, policy=policy, on_error=on_error, reports=reports))


def sample_rows(
    places: FilePlaces,
    *,
    policy: str | None = None,
    on_error: Literal["stop", "skip"] = "stop",
    reports: list[ReadReport] | None = None,
) -> pd.DataFrame:
    """`load_samples` with the ids as they are in the files, and without ``cell``."""
    rows: list[dict[str, object]] = []

    def sample(data: dict[str, Any]) -> Sample:
        return Sample.model_validate(_with_policy(data, policy))

    for file in files_of(places, SAMPLES_FILE):
        report = _reported(file, reports)
        try:
            rows += [
                _sample_row(one, file) for one in iter_records(file, sample, on_error=on_error, report=report)
            ]
        except RecordError as error:
            if "policy: Field required" not in error.what:
                raise
            raise RecordError(
                error.what, where=error.where, remedy="name the policy that wrote these texts (--policy)"
            ) from None
    if not rows:
        raise UsageError(
            "no samples found", where=str(places), remedy="check the path, or run the sample stage"
        )
    return pd.DataFrame(rows)


_VERDICTS = {
    "ours": {"judge": 1.0, "judge_reference": 0.0},
    "reference": {"judge": 0.0, "judge_reference": 1.0},
}


def _with_policy(data: dict[str, Any], policy: str | None) -> dict[str, Any]:
    """A row with `policy` filled in where it names none; other rows unchanged."""
    if policy is None or "policy" in data:
        return data
    verdict = data.get("judge_preferred")
    if verdict not in (None, *_VERDICTS):
        raise ValueError(f"judge_preferred: {verdict!r} is neither 'ours' nor 'reference' nor null")
    # How such texts were sampled is unknown; the record's defaults would state it.
    unknown = {"temperature": math.nan, "top_p": math.nan}
    return {"policy": policy, "scores": _VERDICTS[verdict] if verdict else {}, **unknown, **data}


def _reported(file: Path, reports: list[ReadReport] | None) -> ReadReport:
    report = ReadReport(file)
    if reports is not None:
        reports.append(report)
    return report


def post_or_article(data: dict[str, Any]) -> Record:
    kind: type[Record] = Article if "article" in data and "post" not in data else Post
    return kind.model_validate(data)


def load_posts(
    places: FilePlaces,
    *,
    on_error: Literal["stop", "skip"] = "stop",
    reports: list[ReadReport] | None = None,
) -> pd.DataFrame:
    """Read posts or articles; index = id, columns subreddit, title, post, summary (None without one).

    An article's text is its ``post``; it has no subreddit.

    Raises:
        RecordError: a bad line, or two posts with one id.
    """
    files = files_of(places, "*.jsonl")
    columns = list(Post.model_fields)
    rows = []
    for file in files:
        report = _reported(file, reports)
        for record in iter_records(file, post_or_article, on_error=on_error, report=report):
            text = {"post": record.article} if isinstance(record, Article) else {}
            rows.append({name: getattr(record, name, None) for name in columns} | text)
    posts = pd.DataFrame(rows, columns=columns).set_index("id")
    twice = posts.index[posts.index.duplicated()].unique()
    if len(twice):
        raise RecordError(
            f"{len(twice)} post ids occur more than once: {_some(twice)}",
            where=", ".join(map(str, files)),
            remedy="keep one row per post id",
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
        raise UsageError(f"{what}: the same post id occurs twice", remedy="keep one row per post id")
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
