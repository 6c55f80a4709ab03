"""How often a policy's summary is preferred to the reference of the same post, by any scorer.

Two readings of a pair of scores, both reported:

* hard: 1 where the sample's score is higher, 0 where lower, 1/2 where equal (ties are counted);
* expected: P(sample preferred) = sigma(difference / tau), for scorers whose scores are
  utilities of a Bradley-Terry choice: tau = 1 for a reward model (its training loss says so), the
  planted labeler noise for the toy world's gold.

The paper's figures of merit are shares preferred to the reference (P 3.3; Figs. 1, 5, 7, 8).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit

from eval.io import join_by_post
from eval.tables import GROUP, Measure, Result, summarise
from tldr.errors import UsageError

UNIT = "share preferred to the reference"


@dataclass(frozen=True)
class PreferenceScorer:
    """A score column read as preference.

    Attributes:
        name: the scorer: reads ``score.<name>`` and, of the reference, ``score.<name>_reference``;
            ``score.<name>_preference``, where present, is its own P(sample preferred).
        tau: scale of the expected share; None: the scorer's differences mean nothing but order.
    """

    name: str
    tau: float | None = None


RM = PreferenceScorer("rm", tau=1.0)
GOLD = PreferenceScorer("gold")


def reference_scores(references: pd.DataFrame, name: str) -> pd.DataFrame:
    """``score.<name>`` of the reference samples, by post id, as column ``score.<name>_reference``."""
    return references.set_index("id")[[f"score.{name}"]].rename(columns=lambda column: f"{column}_reference")


def wins(
    samples: pd.DataFrame, scorer: PreferenceScorer, references: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Per-sample ``hard`` (0, 0.5, 1), ``tie`` (bool) and ``expected`` (0..1), on the samples' index.

    Args:
        references: samples that are the posts' references, scored alike; needed only where the
            samples do not carry ``score.<name>_reference`` themselves.

    Returns:
        Missing (NaN) where the sample has no such score; ``expected`` is all missing for a scorer
        that has neither `tau` nor a ``_preference`` score.

    Raises:
        UsageError: no column of this scorer, or posts without a scored reference.
    """
    own, of_reference, planted = (f"score.{scorer.name}{end}" for end in ("", "_reference", "_preference"))
    if references is not None and of_reference not in samples:
        samples = join_by_post(samples, reference_scores(references, scorer.name), what="scored references")
    if own not in samples or of_reference not in samples:
        raise UsageError(
            f"samples carry no {own} with {of_reference}",
            remedy="score them with this scorer, references included",
        )
    difference = (samples[own] - samples[of_reference]).astype(float)
    hard = pd.Series(np.heaviside(difference, 0.5), index=samples.index)
    if planted in samples:
        expected = samples[planted].astype(float)
    elif scorer.tau is not None:
        expected = pd.Series(expit(difference / scorer.tau), index=samples.index)
    else:
        expected = pd.Series(np.nan, index=samples.index)
    return pd.DataFrame(
        {"hard": hard, "tie": (difference == 0).where(difference.notna()), "expected": expected}
    )


def preference(
    samples: pd.DataFrame,
    scorer: PreferenceScorer,
    *,
    references: pd.DataFrame | None = None,
    by: Sequence[str] = GROUP,
    draws: int = 2000,
) -> list[Result]:
    """Preference of every policy to the reference, with intervals over posts (`eval.tables.summarise`).

    Measures are ``preference``, ``expected_preference`` and ``ties``. Policies without this
    scorer's scores are left out.
    """
    columns = wins(samples, scorer, references)
    measures = [
        Measure("preference.hard", "preference", UNIT, counted=True),
        Measure("preference.expected", "expected_preference", UNIT),
        Measure("preference.tie", "ties", "share of samples", counted=True),
    ]
    table = samples.assign(**{f"preference.{name}": columns[name].to_numpy() for name in columns})
    return summarise(table, measures, scorer=scorer.name, by=by, draws=draws)


def scorers_of(
    samples: pd.DataFrame, known: Iterable[PreferenceScorer] = (GOLD, RM)
) -> list[PreferenceScorer]:
    """The known scorers whose sample and reference scores are both in the table."""
    return [
        scorer
        for scorer in known
        if {f"score.{scorer.name}", f"score.{scorer.name}_reference"} <= set(samples.columns)
    ]
