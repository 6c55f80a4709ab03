"""Judges made of texts and scores alone, for the agreement matrix (P 4.4, App. G.7).

Each gives a signed preference for the first of two summaries: by length, by copying, by ROUGE with
the reference, or by a score. None of them reads a label.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from eval.common.pairs import REFERENCE, log_length_ratio, scorers_of_pairs
from eval.rouge.measure import rouge
from eval.texts.overlap import copying
from tldr.errors import NonFiniteError

TOKENS = "tokens"
_LOGPROB = "logprob"


def text_judges(
    pairs: pd.DataFrame, posts: pd.DataFrame | None = None, *, unit: str = "words", stemmer: bool = False
) -> pd.DataFrame:
    """Signed preferences for the first summary, on the pairs' index; missing = not judged.

    Args:
        pairs: as `eval.common.pairs.comparison_pairs` gives them.
        posts: as `eval.common.io.load_posts`; where a post is absent, the reference is taken from the pairs
            about the same post in which it takes part.
        unit: of length, "words" or "characters" (`eval.common.pairs.LENGTHS`).
        stemmer: for ROUGE.

    Returns:
        Columns ``length (<unit>)``; ``copying`` (share of the summary's bigrams, footnote 9);
        ``ROUGE`` (mean F of R-1, R-2 and R-L against the reference; missing where there is none, or
        where one of the two *is* the reference); and one per scorer: each key of the summaries' `scores`
        under its own name, a key ``tokens`` as ``length (tokens)``, and ``<key> per token`` for
        log-probabilities of summaries whose tokens were counted. Judges that judge no pair are
        left out.

    Raises:
        UsageError: an unknown unit. NonFiniteError: a score or count that is not finite.
    """
    first, second = (
        [copying(str(post), text) for post, text in zip(pairs["post"], pairs[f"{side}_text"], strict=True)]
        for side in ("first", "second")
    )
    made = {
        f"length ({unit})": log_length_ratio(pairs, unit),
        "copying": pd.Series(np.subtract(first, second), index=pairs.index),
        "ROUGE": _rouge(pairs, posts, stemmer),
    }
    names = scorers_of_pairs(pairs)
    for name in names:
        made[f"length ({TOKENS})" if name == TOKENS else name] = _scores(pairs, name)
        if name.startswith(_LOGPROB) and TOKENS in names:
            made[f"{name} per token"] = _scores(pairs, name, per=TOKENS)
    return pd.DataFrame(made).dropna(axis="columns", how="all")


def _scores(pairs: pd.DataFrame, name: str, per: str | None = None) -> pd.Series[float]:
    sides = []
    for side in ("first", "second"):
        score = pairs[f"{side}_score.{name}"].astype(float)
        sides.append(score / pairs[f"{side}_score.{per}"].astype(float) if per else score)
    margin = sides[0] - sides[1]
    if margin.abs().max() == float("inf"):
        raise NonFiniteError(f"{name}: a score that is not finite", remedy="leave out those pairs")
    return margin


def _rouge(pairs: pd.DataFrame, posts: pd.DataFrame | None, stemmer: bool) -> pd.Series[float]:
    references = _references(pairs, posts)
    # If one of the two summaries is the reference, ROUGE always prefers it.
    judged = references.notna() & (pairs["first"] != REFERENCE) & (pairs["second"] != REFERENCE)
    known, part = references[judged].tolist(), pairs[judged]
    first, second = (
        rouge(known, part[f"{side}_text"].tolist(), stemmer=stemmer)["rouge_mean"].to_numpy()
        for side in ("first", "second")
    )
    return pd.Series(first - second, index=part.index).reindex(pairs.index)


def _references(pairs: pd.DataFrame, posts: pd.DataFrame | None) -> pd.Series[str]:
    """The reference of each pair's post, missing where it is not known."""
    sides = [
        pairs.loc[pairs[side] == REFERENCE, ["id", f"{side}_text"]].set_axis(["id", "text"], axis=1)
        for side in ("first", "second")
    ]
    known = pd.concat(sides).drop_duplicates("id").set_index("id")["text"]
    if posts is not None:
        known = posts["summary"].combine_first(known)
    return pairs["id"].map(known)
