"""Pairs of summaries of a post with a preference: the common form of human comparisons, judges' verdicts
and scored samples compared with their references.

A table of pairs has one row a judged pair with the columns

* ``id``: the post; ``first``, ``second``: the two policies; ``first_text``, ``second_text`` (where
  the texts are known);
* ``preferred``: 1 = the first, 0 = the second, 0.5 = a tie, or a probability in between; missing =
  an invalid answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeVar

import numpy as np
import pandas as pd

from eval.common.io import FilePlaces, files_of, join_by_post
from tldr.errors import UsageError
from tldr.records import Comparison, Info, Judgement, Rating, ReadReport, iter_records

REFERENCE = "reference"
COLUMNS = ("id", "first", "second", "first_text", "second_text", "preferred")
_POLICY_NAMES = {"ref": REFERENCE}

LENGTHS: dict[str, Callable[[str], int]] = {
    "words": lambda text: len(text.split()),
    "characters": lambda text: len(text.strip()),
}
"""Unit -> length of a text. The paper names no unit for TL;DR; for CNN/DM it uses characters."""


def post_id(info: Info) -> str:
    """The post's id; one without is known by a hash of its text (OpenAI's edit batch has such rows)."""
    body = info.post or info.article or ""
    return info.id or "x_" + hashlib.sha256(body.encode()).hexdigest()[:12]


def comparison_pairs(comparisons: Iterable[Comparison]) -> pd.DataFrame:
    """Human comparisons as pairs.

    Further columns: ``shown_in_order`` (whether the first was shown first: by the order that labels of
    `tldr.label` note, else that of the file), ``post`` (or article), ``article`` (whether it is one),
    ``worker``, ``batch``, ``split``, ``subreddit``, ``confidence``, ``strength``; the last is
    |confidence - 5| (1 weak .. 4 sure): the released
    slider is signed, 1-4 for the first summary and 6-9 for the second. Scores of the summaries become
    ``first_score.<name>`` and ``second_score.<name>``. A post without an id is known by a hash of its
    text. OpenAI's policy name ``ref`` becomes ``reference``.
    """
    rows = []
    for row in comparisons:
        first, second = row.summaries
        confidence = row.extra.confidence
        rows.append(
            {
                "id": post_id(row.info),
                "first": _POLICY_NAMES.get(first.policy, first.policy),
                "second": _POLICY_NAMES.get(second.policy, second.policy),
                "first_text": first.text,
                "second_text": second.text,
                "preferred": 1.0 - row.choice,
                "shown_in_order": ((row.extra.model_extra or {}).get("order") or [0, 1])[0] == 0,
                "post": row.info.post or row.info.article,
                "article": row.info.article is not None,
                "worker": row.worker,
                "batch": row.batch,
                "split": row.split,
                "subreddit": row.info.subreddit,
                "confidence": np.nan if confidence is None else confidence,
                "strength": np.nan if confidence is None else abs(confidence - 5),
                **{f"first_score.{name}": value for name, value in first.scores.items()},
                **{f"second_score.{name}": value for name, value in second.scores.items()},
            }
        )
    if not rows:
        raise UsageError("no comparisons")
    return pd.DataFrame(rows)


def load_comparisons(
    places: FilePlaces,
    *,
    on_error: Literal["stop", "skip"] = "stop",
    reports: list[ReadReport] | None = None,
) -> pd.DataFrame:
    """Read human comparisons (OpenAI's or ours) as pairs; of a folder every file of `LINES`.

    Raises:
        UsageError: no comparisons. RecordError: a bad line, named ``file:line``.
    """
    return comparison_pairs(_records(places, Comparison, on_error, reports))


def load_judgements(
    places: FilePlaces,
    *,
    on_error: Literal["stop", "skip"] = "stop",
    reports: list[ReadReport] | None = None,
) -> pd.DataFrame:
    """Read judges' verdicts as pairs; of a folder every file of `LINES`; errors as `load_comparisons`."""
    return judgement_pairs(read_judgements(places, on_error=on_error, reports=reports))


def read_judgements(
    places: FilePlaces,
    *,
    on_error: Literal["stop", "skip"] = "stop",
    reports: list[ReadReport] | None = None,
) -> list[Judgement]:
    """The records themselves, for `eval.judge.measure`; errors as `load_comparisons`.

    Judgements that name no runs are filed under their file's name.
    """
    return [
        row if row.runs else row.model_copy(update={"runs": [file.stem]})
        for file in files_of(places, *LINES)
        for row in _records(file, Judgement, on_error, reports)
    ]


def read_ratings(
    places: FilePlaces,
    *,
    on_error: Literal["stop", "skip"] = "stop",
    reports: list[ReadReport] | None = None,
) -> list[Rating]:
    """Axis ratings, OpenAI's schema, for `eval.ratings.measure`; errors as `load_comparisons`."""
    return list(_records(places, Rating, on_error, reports))


R = TypeVar("R", Comparison, Judgement, Rating)
LINES = ("*.jsonl", "*.json")
"""Files of records, a line each: OpenAI's own have the second name."""


def _records(
    places: FilePlaces, kind: type[R], on_error: Literal["stop", "skip"], reports: list[ReadReport] | None
) -> Iterator[R]:
    for file in files_of(places, *LINES):
        report = ReadReport(file)
        if reports is not None:
            reports.append(report)
        yield from iter_records(file, kind, on_error=on_error, report=report)


def judgement_pairs(judgements: Iterable[Judgement]) -> pd.DataFrame:
    """Judges' verdicts as pairs, one row per verdict, so a pair judged in both orders has two.

    Further columns: ``judge``, ``axis``, ``shown_first`` (the policy that the judge saw as A) and
    ``runs``. ``preferred`` is missing where the answer was invalid, the texts where the file has none.

    Raises:
        UsageError: no judgements.
    """
    shares = {"A": 1.0, "B": 0.0, "tie": 0.5, "invalid": np.nan}
    rows = []
    for row in judgements:
        first, second = (_POLICY_NAMES.get(name, name) for name in row.policies)
        texts: list[str] | list[None] = row.texts or [None, None]
        swapped = row.order[0] == 1
        rows.append(
            {
                "id": row.id,
                "first": first,
                "second": second,
                "first_text": texts[0],
                "second_text": texts[1],
                "preferred": 1 - shares[row.verdict] if swapped else shares[row.verdict],
                "judge": row.judge,
                "axis": row.axis,
                "shown_first": second if swapped else first,
                "runs": " ".join(row.runs),
            }
        )
    if not rows:
        raise UsageError("no judgements")
    return pd.DataFrame(rows)


def scorers_of_pairs(pairs: pd.DataFrame) -> list[str]:
    """Names of the scorers whose scores both sides carry, in the order of the columns."""
    names = [str(name).removeprefix("first_score.") for name in pairs if str(name).startswith("first_score.")]
    return [name for name in names if f"second_score.{name}" in pairs]


def score_pairs(samples: pd.DataFrame, scorer: str, names: pd.Series[str]) -> pd.DataFrame:
    """Every two policies' samples of a post, and the reference, set against each other by a score.

    Args:
        samples: with ``score.<scorer>`` and, for the reference, ``score.<scorer>_reference``; those
            without the score are left out.
        names: the policy each sample counts for.

    Returns:
        One row per cell, post and two policies: ``id``, ``first``, ``second``, ``cell``, and ``preferred``,
        the share of the pairs of their samples in which the first scores higher (equal scores: half).
    """
    column, of_reference, post = f"score.{scorer}", f"score.{scorer}_reference", ["cell", "id"]
    own = samples[post].assign(policy=names, score=samples[column]).dropna()
    if of_reference in samples:
        single = samples.dropna(subset=of_reference).drop_duplicates(post)
        reference = single[post].assign(policy=REFERENCE, score=single[of_reference])
        own = pd.concat([own, reference], ignore_index=True)
    both = own.merge(own, on=post, suffixes=("_a", "_b"))
    both = both[both["policy_a"] < both["policy_b"]]
    both["preferred"] = np.heaviside((both["score_a"] - both["score_b"]).astype(float), 0.5)
    both = both.rename(columns={"policy_a": "first", "policy_b": "second"})
    return both.groupby(["id", "first", "second", "cell"])["preferred"].mean().reset_index()


def reference_pairs(
    samples: pd.DataFrame, posts: pd.DataFrame, preferred: pd.Series[float], names: pd.Series[str]
) -> pd.DataFrame:
    """Every sample against its post's reference.

    Args:
        samples, posts: as `eval.common.io.load_samples` and `eval.common.io.load_posts` give them.
        preferred: share or probability that the sample is preferred (`eval.preference.measure.wins`).
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
    first, second = (length_in(pairs[f"{side}_text"], unit).clip(lower=0.5) for side in ("first", "second"))
    return pd.Series(np.log(first / second), index=pairs.index)


def length_in(texts: pd.Series[str], unit: str) -> pd.Series[int]:
    """Lengths of texts.

    Raises:
        UsageError: no such unit in `LENGTHS`.
    """
    if unit not in LENGTHS:
        raise UsageError(f"no length unit {unit!r}", remedy=f"choose from {', '.join(LENGTHS)}")
    return texts.map(LENGTHS[unit])


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
