"""Pairs of summaries of a post with somebody's preference: the common form of human comparisons,
judges' verdicts and scored samples set against their references.

A table of pairs has one row a judged pair with the columns

* ``id``: the post; ``first``, ``second``: the two policies; ``first_text``, ``second_text``;
* ``preferred``: 1 = the first, 0 = the second, 0.5 = a tie, or a probability in between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from eval.io import join_by_post
from tldr.errors import UsageError
from tldr.records import Comparison

REFERENCE = "reference"
COLUMNS = ("id", "first", "second", "first_text", "second_text", "preferred")
_POLICY_NAMES = {"ref": REFERENCE}

LENGTHS: dict[str, Callable[[str], int]] = {
    "words": lambda text: len(text.split()),
    "characters": lambda text: len(text.strip()),
}
"""Unit -> length of a text. The paper names no unit for TL;DR; for CNN/DM it uses characters."""


def comparison_pairs(comparisons: Iterable[Comparison]) -> pd.DataFrame:
    """Human comparisons as pairs.

    Further columns: ``worker``, ``batch``, ``split``, ``subreddit``, ``confidence``, ``strength``;
    the last is |confidence - 5| (1 weak .. 4 sure): the released slider is signed, 1-4 for the
    first summary and 6-9 for the second. A post without an id is known by a hash of its text.
    OpenAI's policy name ``ref`` becomes ``reference``.
    """
    rows = []
    for row in comparisons:
        first, second = row.summaries
        body = row.info.post or row.info.article or ""
        confidence = row.extra.confidence
        rows.append(
            {
                "id": row.info.id or "x_" + hashlib.sha256(body.encode()).hexdigest()[:12],
                "first": _POLICY_NAMES.get(first.policy, first.policy),
                "second": _POLICY_NAMES.get(second.policy, second.policy),
                "first_text": first.text,
                "second_text": second.text,
                "preferred": 1.0 - row.choice,
                "worker": row.worker,
                "batch": row.batch,
                "split": row.split,
                "subreddit": row.info.subreddit,
                "confidence": np.nan if confidence is None else confidence,
                "strength": np.nan if confidence is None else abs(confidence - 5),
            }
        )
    if not rows:
        raise UsageError("no comparisons")
    return pd.DataFrame(rows)


def reference_pairs(
    samples: pd.DataFrame, posts: pd.DataFrame, preferred: pd.Series[float], names: pd.Series[str]
) -> pd.DataFrame:
    """Every sample against its post's reference.

    Args:
        samples, posts: as `eval.io.load_samples` and `eval.io.load_posts` give them.
        preferred: share or probability that the sample is preferred (`eval.preference.wins`).
        names: the policy each sample counts for.

    Raises:
        UsageError: samples of posts that are not in `posts`.
    """
    joined = join_by_post(samples[["id"]], posts[["summary"]], what="posts")
    return pd.DataFrame(
        {
            "id": samples["id"].to_numpy(),
            "first": names.to_numpy(),
            "second": REFERENCE,
            "first_text": samples["text"].to_numpy(),
            "second_text": joined["summary"].to_numpy(),
            "preferred": preferred.to_numpy(dtype=float),
        }
    )


def log_length_ratio(pairs: pd.DataFrame, unit: str = "words") -> pd.Series[float]:
    """ln(length of the first / length of the second); an empty text counts as half a `unit`."""
    if unit not in LENGTHS:
        raise UsageError(f"no length unit {unit!r}", remedy=f"choose from {', '.join(LENGTHS)}")
    first, second = (pairs[f"{side}_text"].map(LENGTHS[unit]).clip(lower=0.5) for side in ("first", "second"))
    return pd.Series(np.log(first / second), index=pairs.index)


def pair_key(pairs: pd.DataFrame) -> pd.Series[str]:
    """The same key for the same post and two texts, whichever is shown first."""
    texts = [
        " || ".join(sorted(both)) for both in zip(pairs["first_text"], pairs["second_text"], strict=True)
    ]
    return pd.Series(
        [f"{post} || {text}" for post, text in zip(pairs["id"], texts, strict=True)], index=pairs.index
    )


def in_one_order(pairs: pd.DataFrame) -> pd.DataFrame:
    """`pairs` turned so that labels of the same two texts name the same one first."""
    turn = (pairs["first_text"] > pairs["second_text"]).to_numpy()
    turned = pairs.copy()
    for name in [column for column in map(str, pairs.columns) if column.startswith("first")]:
        other = "second" + name.removeprefix("first")
        turned[name] = pairs[name].where(~turn, pairs[other])
        turned[other] = pairs[other].where(~turn, pairs[name])
    turned["preferred"] = pairs["preferred"].where(~turn, 1 - pairs["preferred"])
    return turned
