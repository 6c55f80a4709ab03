"""A hub for machines without one: the miniature release in the hub's layout, and as an offline cache.

::

    DIR/plain/datasets/tldr_3_filtered/train.jsonl    OpenAI's files, as on its server
    DIR/hub/OWNER/NAME/...parquet                     the hub's copies of them, each in its own layout
    DIR/home/assets, DIR/home/hub                     an HF_HOME in which both have been fetched already

With ``HF_HOME=DIR/home HF_HUB_OFFLINE=1`` a study finds the data under their known names.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tldr.files import replacing
from tldr.sources.fake_release import FakeRelease, Row, write_plain
from tldr.sources.hub.catalog import CATALOG
from tldr.sources.hub.download import RemoteFile, sha256_of
from tldr.sources.hub.listing import Listing, cache_folder, keep_listing

LABELS, POSTS = "openai/summarize_from_feedback", "vwxyzjn/summarize_from_feedback_tldr_3_filtered"
PLAIN, ARTICLES = "openai-files", "abisee/cnn_dailymail"

_INFO = pa.struct([(name, pa.string()) for name in ("id", "post", "title", "subreddit", "site", "article")])
_COMMON = [("info", _INFO), ("worker", pa.string()), ("batch", pa.string()), ("split", pa.string())]
_TEXT = [("text", pa.string()), ("policy", pa.string()), ("note", pa.string())]
_AXES = [(name, pa.int32()) for name in ("overall", "accuracy", "coverage", "coherence")]
COMPARISON_SCHEMA = pa.schema(
    [
        *_COMMON,
        ("summaries", pa.list_(pa.struct(_TEXT))),
        ("choice", pa.int32()),
        ("extra", pa.struct([("confidence", pa.int32())])),
    ]
)
RATING_SCHEMA = pa.schema(
    [*_COMMON, ("summary", pa.struct([*_TEXT, ("axes", pa.struct([*_AXES, ("compatible", pa.bool_())]))]))]
)
"""A table has all columns in all rows; absent ones are null there."""


def write_fake_hub(release: FakeRelease, folder: Path) -> dict[str, Path]:
    """Write the three forms of the miniature (see the module) and return the folder of each source.

    An existing miniature in `folder` is replaced.
    """
    for name in ("plain", "hub", "home/assets"):
        shutil.rmtree(folder / name, ignore_errors=True)
    copies = {name: folder / "hub" / name for name in (LABELS, POSTS, ARTICLES)}
    places = {PLAIN: folder / "plain"} | copies
    write_plain(release, places[PLAIN])
    for path, table in _tables(release).items():
        with replacing(folder / "hub" / path) as partial:
            pq.write_table(table, partial)
    for name, place in places.items():
        _keep(name, place, folder / "home" / "assets")
    return places


def _tables(release: FakeRelease) -> dict[str, pa.Table]:
    labels = [row for rows in release.comparisons.values() for row in rows]
    ratings = [row for rows in release.axes.values() for row in rows]
    valid = ("valid1", "valid2")
    split = {
        f"{LABELS}/comparisons/train": (_of(labels, ("train",)), COMPARISON_SCHEMA),
        f"{LABELS}/comparisons/validation": (_of(labels, valid), COMPARISON_SCHEMA),
        f"{LABELS}/axis/test": (_of(ratings, ("test",)), RATING_SCHEMA),
        f"{LABELS}/axis/validation": (_of(ratings, valid), RATING_SCHEMA),
    }
    tables = {f"{name}/0000.parquet": pa.Table.from_pylist(*found) for name, found in split.items()}
    tables[f"{ARTICLES}/3.0.0/test-00000-of-00001.parquet"] = pa.Table.from_pylist(release.articles)
    names = {"train": "train", "validation": "valid", "test": "test"}
    return tables | {
        f"{POSTS}/data/{name}-00000-of-00001.parquet": pa.Table.from_pylist(release.posts[plain])
        for name, plain in names.items()
    }


def _of(rows: Sequence[Row], splits: Sequence[str]) -> list[Row]:
    return [row for row in rows if row["split"] in splits]


def _keep(name: str, place: Path, assets: Path) -> None:
    """Put a source into the cache as if it had been fetched at a revision: the hash of its content."""
    known = CATALOG[name]
    paths = sorted(path for path in place.rglob("*") if path.is_file())
    files = [
        RemoteFile(
            path=str(path.relative_to(place)),
            url=f"{known.base or f'https://hub.invalid/{name}'}/{path.relative_to(place)}",
            size=path.stat().st_size,
            sha256=sha256_of(path),
        )
        for path in paths
    ]
    revision = content_revision({file.path: file.sha256 for file in files})
    cache = cache_folder(known, revision, assets)
    for path in paths:
        target = cache / path.relative_to(place)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    keep_listing(known, Listing(revision, known.base or "https://hub.invalid", tuple(files)), assets)


def content_revision(content: Mapping[str, Any]) -> str:
    """A revision in the form of a commit that depends on the content alone."""
    text = "\n".join(f"{name} {content[name]}" for name in sorted(content))
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def keep_model(folder: Path, name: str, cache: Path) -> Path:
    """Put a model's folder into a hub cache as ``OWNER/NAME``, and return where it lies there."""
    revision = content_revision({path.name: sha256_of(path) for path in folder.iterdir()})
    place = cache / f"models--{name.replace('/', '--')}"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder, place / "snapshots" / revision)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(revision, encoding="utf-8")
    return place / "snapshots" / revision
