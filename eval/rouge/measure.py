"""ROUGE-1, -2, -L and -Lsum with the reference implementation, fast.

Scores are rouge-score's (google-research), which equals ROUGE-1.5.5. Where the optional
``rouge-score-rs`` is installed (extra ``fast-rouge``) it is used: the same numbers, some 50 times
faster; without it long lists are shared out among processes. `METRIC` is the same as a module of
Hugging Face `evaluate`.

Report the variant: the paper names none. Its Fig. 14 very likely plots the mean of R-1, R-2 and
R-L (`rouge_mean` here), without saying whether words were stemmed. `rougeLsum` differs from
`rougeL` only where sentences end in newlines (CNN/DM; `split_sentences` adds them).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_all_start_methods, get_context, parent_process
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from eval.common.io import join_by_post
from eval.common.tables import GROUP, Measure, MeasuredResult, summarise
from tldr.errors import UsageError
from tldr.measures.sentences import sentences

VARIANTS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
MEASURES = ("rouge_mean", *(f"{variant}_{part}" for variant in VARIANTS for part in "fpr"))
Backend = Literal["auto", "rouge-score", "rouge-score-rs"]

METRIC = Path(__file__).parent / "rouge_metric"
"""Folder of the `evaluate` module: ``evaluate.load(str(METRIC))`` needs no network."""

_CHUNK = 500
_POOLED_FROM = 4 * _CHUNK
"""From this many pairs on, processes save more time than they need to start (500 pairs: a second)."""


def rouge(
    references: Sequence[str],
    predictions: Sequence[str],
    *,
    stemmer: bool = False,
    split_sentences: bool = False,
    backend: Backend = "auto",
) -> pd.DataFrame:
    """ROUGE of each prediction against its reference.

    Args:
        stemmer: Porter stemming of words longer than three letters (adds about a point of R-1).
        split_sentences: put a newline after each sentence of both sides, for `rougeLsum`.
        backend: "auto" takes rouge-score-rs where installed.

    Returns:
        One row per pair, columns ``rouge1_p``, ``rouge1_r``, ``rouge1_f``, ... for each of
        `VARIANTS`, and ``rouge_mean`` = mean F of R-1, R-2 and R-L; all in 0..1. A text without a
        single ASCII word scores 0.

    Raises:
        UsageError: lists of different lengths, or a backend that is not installed.
    """
    if len(references) != len(predictions):
        raise UsageError(f"{len(references)} references but {len(predictions)} predictions")
    if split_sentences:
        references, predictions = (
            ["\n".join(sentences(text)) for text in side] for side in (references, predictions)
        )
    if resolve_backend(backend) == "rouge-score-rs":
        scorer = _scorer("rouge_score_rs", stemmer)
        rows = _flat(scorer.score_batch(list(references), list(predictions)))
    else:
        rows = _plain(list(references), list(predictions), stemmer)
    names = [f"{variant}_{part}" for variant in VARIANTS for part in "prf"]
    table = pd.DataFrame(rows, columns=names, dtype=float)
    table["rouge_mean"] = table[["rouge1_f", "rouge2_f", "rougeL_f"]].mean(axis=1)
    return table


def resolve_backend(backend: Backend = "auto") -> Literal["rouge-score", "rouge-score-rs"]:
    """The implementation that will run; reports print it beside the numbers.

    Raises:
        UsageError: rouge-score-rs asked for by name, and not installed.
    """
    fast = find_spec("rouge_score_rs") is not None
    if backend == "rouge-score-rs" and not fast:
        raise UsageError("rouge-score-rs is not installed", remedy="install the extra: fast-rouge")
    return "rouge-score-rs" if fast and backend != "rouge-score" else "rouge-score"


def rouge_results(
    samples: pd.DataFrame,
    posts: pd.DataFrame,
    *,
    stemmer: bool = False,
    by: Sequence[str] = GROUP,
    draws: int = 2000,
) -> list[MeasuredResult]:
    """ROUGE of every policy against the references, with intervals over posts.

    Measures are the columns of `rouge`, followed by ``_stemmed`` with the stemmer on: the two are
    never mistaken for one another.

    Raises:
        UsageError: samples of posts that are not in `posts`, or posts without a reference.
    """
    references = join_by_post(samples[["id"]], posts[["summary"]], what="posts")["summary"]
    if references.isna().any():
        raise UsageError(f"{int(references.isna().sum())} samples are of posts without a reference")
    scores = rouge(references.tolist(), samples["text"].tolist(), stemmer=stemmer)
    end = "_stemmed" if stemmer else ""
    return rouge_means(samples, scores.set_index(samples.index), end=end, by=by, draws=draws)


def rouge_means(
    samples: pd.DataFrame, scores: pd.DataFrame, *, end: str = "", by: Sequence[str] = GROUP, draws: int
) -> list[MeasuredResult]:
    """Means of `MEASURES` of every policy, with intervals over posts.

    Args:
        scores: as `rouge`, on the samples' index. end: of the measures' names.
    """
    measures = [Measure(name, f"{name}{end}", "0-1") for name in MEASURES]
    return summarise(samples.join(scores), measures, by=by, draws=draws)


def _scorer(module: str, stemmer: bool) -> Any:
    return import_module(f"{module}.rouge_scorer").RougeScorer(list(VARIANTS), use_stemmer=stemmer)


def _flat(scores: Sequence[Any]) -> list[list[float]]:
    """Precision, recall and F of each of `VARIANTS`, a row per pair."""
    return [[float(part) for variant in VARIANTS for part in row[variant]] for row in scores]


def _score_plain(pairs: Sequence[tuple[str, str]], stemmer: bool) -> list[list[float]]:
    scorer = _scorer("rouge_score", stemmer)
    return _flat([scorer.score(*pair) for pair in pairs])


def _workers() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _plain(references: list[str], predictions: list[str], stemmer: bool) -> list[list[float]]:
    pairs = list(zip(references, predictions, strict=True))
    # Forked, not spawned: a script that calls this needs no __main__ guard, and the workers run
    # only plain Python. Without fork, and inside a worker, one process does the work.
    forks = "fork" in get_all_start_methods() and parent_process() is None
    if len(pairs) < _POOLED_FROM or _workers() < 2 or not forks:
        return _score_plain(pairs, stemmer)
    import_module("rouge_score.rouge_scorer")  # once, here, rather than in every worker
    chunks = [pairs[start : start + _CHUNK] for start in range(0, len(pairs), _CHUNK)]
    with ProcessPoolExecutor(_workers(), get_context("fork")) as pool:
        return [row for part in pool.map(partial(_score_plain, stemmer=stemmer), chunks) for row in part]
