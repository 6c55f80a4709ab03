"""ROUGE-1, -2, -L and -Lsum with the reference implementation, fast.

Scores are rouge-score's (google-research), which equals ROUGE-1.5.5. Where the optional
``rouge-score-rs`` is installed (extra ``fast-rouge``) it is used: the same numbers, some 50 times
faster; else large sets go through a process pool.

Report the variant: the paper names none. Its Fig. 14 very likely plots the mean of R-1, R-2 and
R-L (`rouge_mean` here), without saying whether words were stemmed. `rougeLsum` differs from
`rougeL` only where sentences end in newlines (CNN/DM; `split_sentences` adds them).
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from eval.overlap import sentences
from tldr.errors import UsageError

VARIANTS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
Backend = Literal["auto", "rouge-score", "rouge-score-rs"]

_POOL_FROM = 10_000
"""Pairs below which starting processes costs more than it saves."""


def rouge(
    references: Sequence[str],
    predictions: Sequence[str],
    *,
    stemmer: bool = False,
    split_sentences: bool = False,
    backend: Backend = "auto",
    processes: int | None = None,
) -> pd.DataFrame:
    """ROUGE of each prediction against its reference.

    Args:
        stemmer: Porter stemming of words longer than three letters (adds about a point of R-1).
        split_sentences: put a newline after each sentence of both sides, for `rougeLsum`.
        backend: "auto" takes rouge-score-rs where installed.
        processes: of the rouge-score pool; None: one a core for large sets.

    Returns:
        One row a pair, columns ``rouge1_p``, ``rouge1_r``, ``rouge1_f``, ... for each of
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
        scores = _rust(list(references), list(predictions), stemmer)
    else:
        scores = _python(list(references), list(predictions), stemmer, processes)
    names = [f"{variant}_{part}" for variant in VARIANTS for part in "prf"]
    table = pd.DataFrame(scores, columns=names)
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


def _row(scores: dict[str, Any]) -> list[float]:
    return [float(part) for variant in VARIANTS for part in scores[variant]]


def _rust(references: list[str], predictions: list[str], stemmer: bool) -> npt.NDArray[np.float64]:
    scorer: Any = import_module("rouge_score_rs.rouge_scorer").RougeScorer(
        list(VARIANTS), use_stemmer=stemmer
    )
    rows = scorer.score_batch(references, predictions)
    return np.array([_row(row) for row in rows]).reshape(len(rows), 3 * len(VARIANTS))


def _score_block(stemmer: bool, pairs: list[tuple[str, str]]) -> list[list[float]]:
    """Scores of a block of pairs; at module level, so that a worker process can import it."""
    logging.getLogger("absl").setLevel(logging.WARNING)
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(VARIANTS), use_stemmer=stemmer)
    return [_row(scorer.score(reference, prediction)) for reference, prediction in pairs]


def _python(
    references: list[str], predictions: list[str], stemmer: bool, processes: int | None
) -> npt.NDArray[np.float64]:
    pairs = list(zip(references, predictions, strict=True))
    workers = processes or (os.cpu_count() or 1 if len(pairs) >= _POOL_FROM else 1)
    block: Callable[[list[tuple[str, str]]], list[list[float]]] = partial(_score_block, stemmer)
    if workers == 1:
        rows = block(pairs)
    else:
        size = -(-len(pairs) // (4 * workers)) or 1
        blocks = [pairs[start : start + size] for start in range(0, len(pairs), size)]
        # Spawned, not forked: a parent with running threads must not be copied.
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            rows = [row for part in pool.map(block, blocks) for row in part]
    return np.array(rows).reshape(len(rows), 3 * len(VARIANTS))
