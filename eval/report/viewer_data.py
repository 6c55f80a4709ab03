"""The data that the sample viewer embeds: posts, a column of summaries per policy, verdicts, token values.

Texts and scores are plain JSON. Token values are many, so they are packed (zlib, base64) in chunks
of `CHUNK` posts, and the page unpacks the chunk it shows.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from eval.common.cells import world_of
from eval.common.runs import in_worlds
from eval.common.stats import cells_of
from eval.common.study import StudyResults
from eval.common.tables import GROUP, METHOD_ORDER, PolicyNames, policy_groups
from eval.preference.measure import scorers_of
from tldr.files import distinct, files_below
from tldr.records import Judgement, TokenTrace, iter_records

POSTS_SHOWN = 2000
CHUNK = 25
"""Posts whose token values are packed together."""
STEPS = 1000
"""Token values are kept in thousandths."""
FULL_COLOUR = 0.9
"""Quantile of a measure's sizes from which on the colour is full: a summary's score, added to its last
reward, must not make all other colours pale.
"""
MEASURES = ("kl", "reward", "value", "logprob")
REFERENCE = -1
"""The column number of the reference."""

Column = tuple[PolicyNames, pd.DataFrame]
"""A policy's name and its samples by post id."""


def viewer_data(study: StudyResults, judgements: Sequence[Path]) -> tuple[dict[str, Any], list[str]]:
    """The page's data, and its packed chunks of token values (none where no run traced tokens).

    Of several seeds of a policy the lowest is shown (for each data seed), of several samples of a post the
    first, of the posts the first `POSTS_SHOWN`; ``notes`` names what was left out.

    Args:
        judgements: files of `Judgement` rows, beside ``judgements*.jsonl`` below the study's folder.

    Raises:
        UsageError: a judgement file that is not there. RecordError: a broken line.
    """
    assert study.samples is not None
    notes: list[str] = []
    columns = _columns(study.samples, notes)
    ids = _post_ids(study, notes)
    labels = _labels([names for names, _ in columns])
    shown = _shown([names for names, _ in columns])
    rows = {post: row for row, post in enumerate(ids)}
    limits, traced, chunks = _token_chunks(study, columns, rows)
    data = {
        "posts": _posts(study, ids),
        "policies": [
            _policy(names, table.reindex(ids))
            | {"label": labels[place], "shown": shown[place], "traced": place in traced}
            for place, (names, table) in enumerate(columns)
        ],
        "scorers": [scorer.name for scorer in scorers_of(study.samples) if not scorer.verdicts],
        "verdicts": _verdicts(study, judgements, columns, labels, rows, notes),
        "tokens": {"chunk": CHUNK, "steps": STEPS, "limits": limits},
        "notes": notes,
    }
    return data, chunks


def _columns(samples: pd.DataFrame, notes: list[str]) -> list[Column]:
    """Each policy once, in reading order."""
    found: list[Column] = []
    for names, group in policy_groups(samples, [name for name in GROUP if name != "cell"]):
        parts: dict[str, pd.DataFrame] = {}
        for cell, part in cells_of(group).items():
            parts.setdefault(world_of(cell), part)
        found.append((names, pd.concat(list(parts.values())).drop_duplicates("id").set_index("id")))
    left = len(samples) - sum(len(table) for _, table in found)
    if left:
        notes.append(f"{left:,} samples left out: further seeds of a policy, or of one post at one setting.")
    return found


def _post_ids(study: StudyResults, notes: list[str]) -> list[str]:
    """The sampled posts in the order of the posts' file; ids without a post come last."""
    assert study.samples is not None
    sampled = dict.fromkeys(study.samples["id"])
    known = [] if study.posts is None else [post for post in study.posts.index if post in sampled]
    unknown = [post for post in sampled if post not in set(known)]
    if unknown:
        notes.append(f"{len(unknown):,} posts have no text here: their posts file is not at hand.")
    if len(sampled) > POSTS_SHOWN:
        notes.append(f"The first {POSTS_SHOWN:,} of {len(sampled):,} posts.")
    return [*known, *unknown][:POSTS_SHOWN]


def _posts(study: StudyResults, ids: list[str]) -> dict[str, list[Any]]:
    fields = {"subreddit": "subreddit", "title": "title", "post": "post", "summary": "reference"}
    table = pd.DataFrame(index=[], columns=list(fields)) if study.posts is None else study.posts
    chosen = table.reindex(ids)
    return {"id": ids} | {name: _texts(chosen[column]) for column, name in fields.items()}


def _policy(names: PolicyNames, table: pd.DataFrame) -> dict[str, Any]:
    """A column: texts, lengths in tokens, KL from the SFT start in nats, and every score it has."""
    scored = [name for name in table if str(name).startswith("score.") and table[name].notna().any()]
    return {
        "policy": names["policy"],
        "run": str(table["run"].dropna().iloc[0]) if table["run"].notna().any() else "",
        "text": _texts(table["text"]),
        "tokens": _numbers(table["tokens"]),
        "stopped": [None if pd.isna(one) else int(one) for one in table["stopped"]],
        "kl": _numbers(table["logprob"].astype(float) - table["logprob_sft"].astype(float)),
        "scores": {str(name).removeprefix("score."): _numbers(table[name]) for name in scored},
    }


def _texts(column: pd.Series[Any]) -> list[str | None]:
    return [one if isinstance(one, str) else None for one in column]


def _numbers(column: pd.Series[Any]) -> list[float | None]:
    return [round(value, 3) if math.isfinite(value) else None for value in column.astype(float)]


def _labels(policies: list[PolicyNames]) -> list[str]:
    """A short name per policy; policies that would share one get their full names."""
    short = [_label(names) for names in policies]
    counts = Counter(short)
    labels = [
        label if counts[label] == 1 else f"{label} ({', '.join(filter(None, _full(names)))})"
        for label, names in zip(short, policies, strict=True)
    ]
    twice = Counter(labels)
    return [
        label if twice[label] == 1 else f"{label} #{number}" for number, label in enumerate(labels, start=1)
    ]


def _full(names: PolicyNames) -> tuple[str, str]:
    return names["policy"], names["selected_by"]


def _label(names: PolicyNames) -> str:
    method = f"best of {names['n']}" if names["n"] > 1 else names["method"] or names["policy"]
    parts = [f"{method} {names['size']}".strip(), names["variant"]]
    if names["temperature"] is not None:
        parts.append(f"T {names['temperature']:g}")
    if names["top_p"] not in (None, 1.0):
        parts.append(f"top-p {names['top_p']:g}")
    return ", ".join(filter(None, parts))


def _shown(policies: list[PolicyNames], most: int = 4) -> list[bool]:
    """Which columns are open at first: each main method of the largest model at its lowest temperature."""
    best: dict[str, tuple[tuple[float, float], int]] = {}
    for place, names in enumerate(policies):
        if names["variant"] or names["method"] not in METHOD_ORDER:
            continue
        merit = (names["params"] or 0.0, -(names["temperature"] or 0.0))
        if names["method"] not in best or merit > best[names["method"]][0]:
            best[names["method"]] = merit, place
    chosen = [place for _, place in best.values()][-most:] or range(min(most, len(policies)))
    return [place in chosen for place in range(len(policies))]


def _verdicts(
    study: StudyResults,
    judgements: Sequence[Path],
    columns: list[Column],
    labels: list[str],
    rows: dict[str, int],
    notes: list[str],
) -> list[dict[str, Any]]:
    """Every verdict on a shown post; a summary that is in no column has None as its column."""
    known = _known_names(columns, labels)
    files = [*judgements, *files_below(study.runs.folder, "judgements*.jsonl")]
    every = [
        marked for file in distinct(files) for marked in in_worlds(iter_records(file, Judgement), study.runs)
    ]
    shown = [one for one in every if one.id in rows]
    if len(every) > len(shown):
        notes.append(f"{len(every) - len(shown):,} verdicts are about posts that are not shown.")
    return [
        {
            "post": rows[one.id],
            "judge": one.judge,
            "axis": one.axis,
            "policies": one.policies,
            "columns": [
                _judged_column(columns, known.get(name), one.id, text)
                for name, text in zip(one.policies, one.texts or (None, None), strict=True)
            ],
            "first": one.order[0],
            "winner": {"A": one.order[0], "B": one.order[1]}.get(one.verdict, one.verdict),
            "raw": one.raw,
        }
        for one in shown
    ]


def _known_names(columns: list[Column], labels: list[str]) -> dict[str, int]:
    """The names that mean one column and no other; judges write ``sft-m-t0.7-p0.9`` or less."""
    meant: dict[str, set[int]] = defaultdict(set)
    for place, (names, _) in enumerate(columns):
        heat, mass = (
            "" if names[column] is None else f"-{letter}{names[column]:g}"
            for column, letter in (("temperature", "t"), ("top_p", "p"))
        )
        for end in {"", heat, mass, heat + mass}:
            meant[names["policy"] + end].add(place)
        meant[labels[place]].add(place)
    return {name: min(places) for name, places in meant.items() if len(places) == 1} | {
        "reference": REFERENCE
    }


def _judged_column(columns: list[Column], place: int | None, post: str, text: str | None) -> int | None:
    """The column, unless what was judged is another text: of a further cell, for instance."""
    if place is None or place == REFERENCE or text is None:
        return place
    table = columns[place][1]
    return place if post in table.index and table.at[post, "text"] == text else None


def _traces(
    study: StudyResults, columns: list[Column], rows: dict[str, int]
) -> Iterator[tuple[int, int, TokenTrace]]:
    """(row, column, trace) of every shown sample whose tokens were traced."""
    places: dict[tuple[str, str, float | None], int] = {}
    for place, (names, table) in enumerate(columns):
        for run in table["run"].unique():
            places.setdefault((run, names["policy"], names["temperature"]), place)
    for run in study.runs.sampled():
        file = run.folder / "tokens.jsonl"
        for trace in iter_records(file, TokenTrace) if file.is_file() else ():
            column = places.get((run.run, trace.policy, trace.temperature))
            post = f"{run.world}:{trace.id}" if run.world else trace.id
            if column is not None and post in rows:
                yield rows[post], column, trace


def _token_chunks(
    study: StudyResults, columns: list[Column], rows: dict[str, int]
) -> tuple[dict[str, float], set[int], list[str]]:
    """The size with full colour of each measure (`FULL_COLOUR`), the traced columns, the packed chunks.

    A chunk is a JSON list of [row, column, pieces, {measure: values}].
    """
    chunks: dict[int, list[Any]] = defaultdict(list)
    every: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in MEASURES}
    for row, column, trace in _traces(study, columns, rows):
        values = _measures(trace)
        for name, numbers in values.items():
            every[name].append(np.abs(numbers[np.isfinite(numbers)]))
        kept = {name: _steps(numbers) for name, numbers in values.items()}
        chunks[row // CHUNK].append([row, column, trace.pieces, kept])
    limits = {
        name: float(f"{max(np.quantile(np.concatenate(parts), FULL_COLOUR), 1 / STEPS):.2g}")
        for name, parts in every.items()
        if parts
    }
    count = max(chunks, default=-1) + 1
    traced = {column for chunk in chunks.values() for _, column, *_ in chunk}
    return limits, traced, [_packed(chunks[number]) for number in range(count)]


def _measures(trace: TokenTrace) -> dict[str, np.ndarray[Any, Any]]:
    """Per token: KL term and log-probability in nats, value and reward in the reward model's units."""
    found = {"logprob": trace.logprob, "value": trace.value, "reward": trace.reward}
    values = {name: np.asarray(numbers) for name, numbers in found.items() if numbers is not None}
    if trace.logprob_sft is not None:
        values["kl"] = values["logprob"] - np.asarray(trace.logprob_sft)
    return values


def _steps(numbers: np.ndarray[Any, Any]) -> list[int | None]:
    """Whole thousandths; None where a number is not finite."""
    if np.isfinite(numbers).all():
        return [*np.rint(numbers * STEPS).astype(int).tolist()]
    return [round(one * STEPS) if math.isfinite(one) else None for one in numbers.tolist()]


def _packed(rows: list[Any]) -> str:
    text = json.dumps(rows, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode("ascii"), 6)).decode("ascii")
