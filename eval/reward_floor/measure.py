"""The floor under a reward model: a logistic regression on five surface features of a pair.

A reward model that does not beat this regression, fitted on the same pairs, has learned only length
and overlap.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit

from eval.texts.overlap import words
from tldr.errors import UsageError
from tldr.measures import FloatArray

FEATURES = ("likeness", "length", "copied", "distinct", "stop")

RIDGE = 1e-3


def pair_features(pairs: pd.DataFrame) -> pd.DataFrame:
    """Features of the first summary minus the second's, on the pairs' index.

    Args:
        pairs: as `eval.common.pairs.comparison_pairs` gives them (``post``, ``first_text``, ``second_text``).

    Returns:
        Columns `FEATURES`: cosine of the tf-idf vectors of post and summary; ln(words + 1); share of the
        summary's words that occur in the post; different words / words; 1 if it ends with a full stop,
        ! or ?.
    """
    posts = {str(post): Counter(words(str(post))) for post in pairs["post"].unique()}
    known = Counter(word for counts in posts.values() for word in counts)
    idf = {word: np.log((1 + len(posts)) / (1 + count)) + 1 for word, count in known.items()}
    sides = [
        np.array(
            [
                _features(posts[str(post)], text, idf)
                for post, text in zip(pairs["post"], pairs[f"{side}_text"], strict=True)
            ]
        )
        for side in ("first", "second")
    ]
    return pd.DataFrame(sides[0] - sides[1], index=pairs.index, columns=list(FEATURES))


def _features(post: Counter[str], text: str, idf: dict[str, float]) -> list[float]:
    said = words(text)
    counts = Counter(said)
    weight = {word: count * idf.get(word, 0.0) for word, count in counts.items()}
    dot = sum(value * post[word] * idf[word] for word, value in weight.items() if word in post)
    norms = [sum(value**2 for value in weight.values()), sum((n * idf[w]) ** 2 for w, n in post.items())]
    return [
        dot / np.sqrt(norms[0] * norms[1]) if min(norms) else 0.0,
        np.log(len(said) + 1),
        sum(word in post for word in said) / max(1, len(said)),
        len(counts) / max(1, len(said)),
        float(text.rstrip().endswith((".", "!", "?"))),
    ]


def cross_fitted(features: FloatArray, chosen: FloatArray, folds: npt.NDArray[np.intp]) -> FloatArray:
    """P(the first is preferred) of every pair, from a logistic regression fitted on the other folds.

    There is no intercept, as the order of the two summaries carries no information. Features are scaled
    on the pairs that are fitted.

    Args:
        features: (n, m) differences. chosen: (n,) 1 where the first was preferred, else 0.
        folds: (n,) each pair's fold; pairs of one post share theirs.

    Raises:
        UsageError: a single fold.
    """
    if len(np.unique(folds)) < 2:
        raise UsageError("cross-fitting needs at least two folds")
    claimed = np.empty(len(chosen))
    for fold in np.unique(folds):
        held_out = folds == fold
        scale = features[~held_out].std(axis=0)
        scale[scale == 0] = 1.0
        weights = _logistic(features[~held_out] / scale, chosen[~held_out])
        claimed[held_out] = expit(features[held_out] / scale @ weights)
    return claimed


def _logistic(features: FloatArray, chosen: FloatArray) -> FloatArray:
    """Weights of largest likelihood with a very small ridge.

    Without the ridge there is no maximum where the features separate the pairs perfectly.
    """
    signed = features * (2 * chosen - 1)[:, None]

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        margin = signed @ weights
        gradient = -(expit(-margin) @ signed) + RIDGE * weights
        return float(np.logaddexp(0, -margin).sum() + RIDGE / 2 * weights @ weights), gradient

    weights: FloatArray = minimize(loss, np.zeros(features.shape[1]), jac=True, method="BFGS").x
    return weights
