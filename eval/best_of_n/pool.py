"""Pools of best-of-N samples as columns: millions of rows without a record object each."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic_core import from_json

from tldr.errors import RecordError, UsageError
from tldr.strict_json import numbered_lines

POOL_FILE = "pool.jsonl"
LARGEST = sys.float_info.max


def load_pool(path: Path) -> pd.DataFrame:
    """Read a pool of samples (``pool.jsonl``, `tldr.records.Sample` lines).

    Returns:
        One row per sample in the file's order: ``id`` (category), ``length`` (tokens, where the samples
        count them) and every score under its own name, float64. Texts are not kept.

    Raises:
        UsageError: no such file, or an empty one.
        RecordError: a bad line, or one with other scores than the first; named ``file:line``.
    """
    if not path.is_file():
        raise UsageError("no such pool of samples", where=path, remedy="run the best_of_n stage")
    posts: dict[str, int] = {}
    codes = array("i")
    columns: dict[str, array[float]] = {}
    with path.open("rb") as lines:
        for number, line in numbered_lines(lines):
            if not line.strip():
                continue
            try:
                post, values = _row(line)
                if not columns:
                    columns = {name: array("d") for name in values}
                if values.keys() != columns.keys():
                    raise ValueError(f"scores {sorted(values)}, but the first has {sorted(columns)}")
            except ValueError as error:
                raise RecordError(
                    f"not a pool's sample: {error}",
                    where=f"{path}:{number}",
                    remedy="run the best_of_n stage again",
                ) from None
            codes.append(posts.setdefault(post, len(posts)))
            for name, value in values.items():
                columns[name].append(value)
    if not codes:
        raise UsageError("an empty pool of samples", where=path, remedy="run the best_of_n stage")
    ids = pd.Categorical.from_codes(np.frombuffer(codes, dtype=np.int32), categories=pd.Index(list(posts)))
    return pd.DataFrame({"id": ids, **{name: np.frombuffer(values) for name, values in columns.items()}})


def pool_texts(path: Path, posts: Container[str]) -> dict[str, list[str]]:
    """The texts of some posts of a pool that `load_pool` has read, in the file's order."""
    found: dict[str, list[str]] = {}
    with path.open("rb") as lines:
        for _, line in numbered_lines(lines):
            if line.strip() and (row := from_json(line))["id"] in posts:
                found.setdefault(row["id"], []).append(row["text"])
    return found


def _row(line: bytes) -> tuple[str, dict[str, float]]:
    """Post id and numbers of one sample; raises ValueError for anything else."""
    data = from_json(line, allow_inf_nan=False)  # three times as fast as the standard library's
    if not isinstance(data, dict):
        raise ValueError(f"expected a JSON object, found {type(data).__name__}")
    post, scores = data.get("id"), data.get("scores")
    if not isinstance(post, str) or not post.strip():
        raise ValueError(f"id is {post!r}")
    if not isinstance(scores, dict) or not scores:
        raise ValueError("no scores")
    values: dict[str, Any] = dict(scores)
    if data.get("tokens") is not None:
        values["length"] = data["tokens"]
    for name, value in values.items():
        if type(value) not in (int, float) or not -LARGEST <= value <= LARGEST:
            raise ValueError(f"{name} is {value!r}, not a number")
    return post, values
