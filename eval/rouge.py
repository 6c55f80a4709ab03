"""ROUGE-1, -2, -L and -Lsum with the reference implementation, fast.

Scores are rouge-score's (google-research), which equals ROUGE-1.5.5. Where the optional
``rouge-score-rs`` is installed (extra ``fast-rouge``) it is used: the same numbers, some 50 times
faster, on all cores.

Report the variant: the paper names none. Its Fig. 14 very likely plots the mean of R-1, R-2 and
R-L (`rouge_mean` here), without saying whether words were stemmed. `rougeLsum` differs from
`rougeL` only where sentences end in newlines (CNN/DM; `split_sentences` adds them).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import pandas as pd

from eval.overlap import sentences
from tldr.errors import UsageError

VARIANTS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
Backend = Literal["auto", "rouge-score", "rouge-score-rs"]


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
        scores = _scorer("rouge_score_rs", stemmer).score_batch(list(references), list(predictions))
    else:
        scorer = _scorer("rouge_score", stemmer)
        scores = [scorer.score(*pair) for pair in zip(references, predictions, strict=True)]
    rows = [[float(part) for variant in VARIANTS for part in row[variant]] for row in scores]
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


def _scorer(module: str, stemmer: bool) -> Any:
    return import_module(f"{module}.rouge_scorer").RougeScorer(list(VARIANTS), use_stemmer=stemmer)
