"""How often a policy's summary is preferred to the reference of the same post, by any scorer.

Two readings of a pair of scores, both reported:

* hard: 1 where the sample's score is higher, 0 where lower, 1/2 where equal (ties are counted);
* expected: P(sample preferred) = sigma(difference / tau), for scorers whose scores are
  utilities of a Bradley-Terry choice: tau = 1 for a reward model (its training loss says so), the
  planted labeler noise for the toy world's gold.

The paper's figures of merit are shares preferred to the reference (P 3.3; Figs. 1, 5, 7, 8).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.special import expit
from statsmodels.stats.multitest import multipletests

from eval.common.cells import listed_values
from eval.common.pairs import REFERENCE, length_in
from eval.common.stats import Estimate, bootstrap_means, cellwise, mcnemar_p, share, sign_flip, t_test
from eval.common.tables import (
    GROUP,
    Measure,
    MeasuredResult,
    PolicyNames,
    policy_groups,
    result_table,
    summarise,
)
from eval.judge.verdicts import PREFIX, judged
from tldr.errors import UsageError

UNIT = "share preferred to the reference"


@dataclass(frozen=True)
class PreferenceScorer:
    """A score column read as preference.

    Attributes:
        name: the scorer: reads ``score.<name>`` and, of the reference, ``score.<name>_reference``;
            ``score.<name>_preference``, where present, is its own P(sample preferred).
        tau: scale of the expected share; None: the scorer only ranks.
        label: who it is, as captions say it: "by the planted labelers", "by people".
        verdicts: its scores are shares of verdicts (`eval.judge.verdicts`), and it may not have seen every
            sample.
    """

    name: str
    tau: float | None = None
    label: str = ""
    verdicts: bool = False

    @property
    def main_measure(self) -> str:
        """Expected preference by the planted labelers, who give probabilities; others rank or vote."""
        return "expected_preference" if self.name == GOLD.name else "preference"

    @property
    def file(self) -> str:
        """Its name as a part of file names; names of judges come from outside."""
        return re.sub(r"[^\w.-]+", "_", self.name)

    @classmethod
    def of_judge(cls, judge: str) -> PreferenceScorer:
        """The verdicts of people or of a judge."""
        return cls(PREFIX + judge, label=judge, verdicts=True)


RM = PreferenceScorer("rm", tau=1.0, label="the reward model")
GOLD = PreferenceScorer("gold", label="the planted labelers")


def wins(samples: pd.DataFrame, scorer: PreferenceScorer) -> pd.DataFrame:
    """Per-sample ``hard`` (0, 0.5, 1), ``tie`` (bool) and ``expected`` (0..1), on the samples' index.

    Of verdicts ``hard`` is their share, and a tie is where they are divided equally.

    Returns:
        Missing (NaN) where the sample has no such score; ``expected`` is all missing for a scorer
        that has neither `tau` nor a ``_preference`` score.

    Raises:
        UsageError: no column of this scorer.
    """
    own, of_reference, planted = (f"score.{scorer.name}{end}" for end in ("", "_reference", "_preference"))
    if own not in samples or of_reference not in samples:
        raise UsageError(
            f"samples carry no {own} with {of_reference}",
            remedy="score them with this scorer, references included",
        )
    difference = (samples[own] - samples[of_reference]).astype(float)
    hard = pd.Series(np.heaviside(difference, 0.5), index=samples.index)
    if scorer.verdicts:
        hard = samples[own].astype(float)
    if planted in samples:
        expected = samples[planted].astype(float)
    elif scorer.tau is not None:
        expected = pd.Series(expit(difference / scorer.tau), index=samples.index)
    else:
        expected = pd.Series(np.nan, index=samples.index)
    return pd.DataFrame(
        {"hard": hard, "tie": (difference == 0).where(difference.notna()), "expected": expected}
    )


def preferred(samples: pd.DataFrame, scorer: PreferenceScorer) -> pd.Series[float]:
    """Per sample the value whose mean is the scorer's main measure, 0..1 (`wins`)."""
    kind = "expected" if scorer.main_measure == "expected_preference" else "hard"
    found: pd.Series[float] = wins(samples, scorer)[kind]
    return found


def preference(
    samples: pd.DataFrame,
    scorer: PreferenceScorer,
    *,
    by: Sequence[str] = GROUP,
    draws: int = 2000,
) -> list[MeasuredResult]:
    """Preference of every policy to the reference (`summarise`).

    Measures are ``preference``, ``expected_preference`` and ``ties``. Policies without this
    scorer's scores are left out, as are samples on which there is no verdict.
    """
    if scorer.verdicts:
        samples = samples.dropna(subset=f"score.{scorer.name}")
    columns = wins(samples, scorer)
    measures = [
        Measure("preference.hard", "preference", UNIT, counted=True),
        Measure("preference.expected", "expected_preference", UNIT),
        Measure("preference.tie", "ties", "share of samples", counted=True),
    ]
    table = samples.assign(**{f"preference.{name}": columns[name].to_numpy() for name in columns})
    return summarise(table, measures, scorer=scorer.name, by=by, draws=draws)


def preference_by(
    samples: pd.DataFrame,
    scorer: PreferenceScorer,
    breakdown: pd.Series[str],
    *,
    by: Sequence[str] = GROUP,
    draws: int = 2000,
) -> pd.DataFrame:
    """`preference` within each value of `breakdown` (on the samples' index), such as subreddits.

    Returns:
        `eval.common.tables.result_table` with the columns ``breakdown`` (its name) and ``group`` before;
        groups in sorted order. Samples without a value are in no group.
    """
    parts = []
    for group, part in samples.groupby(breakdown, observed=True):
        table = result_table(preference(part, scorer, by=by, draws=draws))
        table.insert(0, "group", str(group))
        parts.append(table)
    if not parts:
        raise UsageError(f"no sample has a {breakdown.name}")
    whole = pd.concat(parts, ignore_index=True)
    whole.insert(0, "breakdown", str(breakdown.name))
    return whole


def length_bins(samples: pd.DataFrame, *, unit: str = "words", bins: int = 4) -> pd.Series[str]:
    """The length bin of each sample, as many samples in one bin as in another (ties apart).

    Returns:
        A categorical series named ``length (<unit>)`` whose values, such as "18-24", are in order.

    Raises:
        UsageError: an unknown unit.
    """
    lengths = length_in(samples["text"], unit).to_numpy()
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, bins + 1), method="inverted_cdf"))
    place = np.maximum(np.searchsorted(edges, lengths) - 1, 0)
    names = [f"{lengths[place == bin].min()}-{lengths[place == bin].max()}" for bin in np.unique(place)]
    values = pd.Categorical([names[bin] for bin in place], categories=names)
    return pd.Series(values, index=samples.index, name=f"length ({unit})")


def pair_shares(pairs: pd.DataFrame) -> pd.DataFrame:
    """How often each policy is preferred to each other one, in pairs of `eval.common.pairs`.

    Returns:
        A row each two different policies (the reference second): ``first``, ``second``, ``value``
        (share for the first, ties half), ``low``, ``high`` (Wilson's, widened for posts), ``se``,
        ``ties`` (share), ``n`` (answers), ``posts``, ``invalid`` (answers without a preference, left out).

    Raises:
        UsageError: no such pair.
    """
    turn = (pairs["first"] > pairs["second"]) & (pairs["second"] != REFERENCE) | (pairs["first"] == REFERENCE)
    turned = pairs.assign(
        first=pairs["first"].where(~turn, pairs["second"]),
        second=pairs["second"].where(~turn, pairs["first"]),
        preferred=pairs["preferred"].where(~turn, 1 - pairs["preferred"]),
    )
    rows = []
    for (first, second), group in turned[turned["first"] != turned["second"]].groupby(["first", "second"]):
        valid = group.dropna(subset="preferred")
        if valid.empty:
            continue
        one = share(valid["preferred"], valid["id"])
        row = {"first": first, "second": second, "value": one.value, "low": one.low, "high": one.high}
        row |= {"se": one.se, "ties": float((valid["preferred"] == 0.5).mean())}
        rows.append(row | {"n": one.n, "posts": one.clusters, "invalid": len(group) - len(valid)})
    if not rows:
        raise UsageError("no pair of two different policies with a preference")
    return pd.DataFrame(rows)


def policy_label(names: PolicyNames) -> str:
    """A policy's name where it has one column: "ppo-l T=0.7"."""
    parts = [str(names.get("policy") or " ".join(filter(None, (names.get("method"), names.get("size")))))]
    parts += [str(names[key]) for key in ("variant", "selected_by") if names.get(key)]
    best_of, top_p, temperature = (names.get(key) for key in ("n", "top_p", "temperature"))
    parts += [f"N={best_of}"] if best_of not in (None, 1) else []
    parts += [f"T={temperature:g}"] if temperature is not None else []
    parts += [f"top_p={top_p:g}"] if top_p not in (None, 1) else []
    return " ".join(parts)


def paired_tests(
    samples: pd.DataFrame,
    scorer: PreferenceScorer,
    *,
    by: Sequence[str] = GROUP,
    draws: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Every two policies' preference to the reference, compared on the same posts.

    Several samples of a post are averaged first. Two policies are compared in the cells in which they
    were sampled on exactly the same posts.

    Returns:
        A row each two policies: ``first``, ``second``, ``difference`` (first - second, of the hard
        shares) with ``low``, ``high``, ``se``; ``p_value`` and ``p_holm`` (the same for all rows together:
        Holm 1979); ``mcnemar``; ``posts``, ``runs``, ``cells``, ``cell_sd``, ``cell_values``. Over several
        cells the p value is that of the t test. Within one the interval is a bootstrap over posts, the p
        value that of a sign-flip permutation test, and ``mcnemar`` exact, over posts that only one of
        them won (missing with several samples per post).

    Raises:
        UsageError: no two policies were sampled on the same posts.
    """
    table = samples.assign(hard=wins(samples, scorer)["hard"]).dropna(subset="hard")
    tests: dict[_Two, _Tests] = {}

    def differences(part: pd.DataFrame, number: int) -> dict[_Two, Estimate]:
        sets: dict[frozenset[str], list[tuple[PolicyNames, pd.DataFrame]]] = {}
        for names, group in policy_groups(part, by):
            sets.setdefault(frozenset(group["id"]), []).append((names, group))
        found: dict[_Two, Estimate] = {}
        for members in sets.values():
            for two, estimate, one in _compared(members, number, seed) if len(members) > 1 else ():
                found[two] = estimate
                known = tests.get(two)
                tests[two] = one if known is None else replace(one, runs=known.runs | one.runs)
        return found

    estimates = cellwise(table, differences, draws)
    if not estimates:
        raise UsageError("no two policies were sampled on the same posts")
    rows = pd.DataFrame([_test_row(two, estimate, tests[two]) for two, estimate in estimates.items()])
    rows.insert(7, "p_holm", multipletests(rows["p_value"], method="holm")[1])
    return rows


_Two = tuple[tuple[object, ...], tuple[object, ...]]
"""The names of two policies, as values of `policy_groups`."""


@dataclass(frozen=True)
class _Tests:
    """What a comparison has besides its estimate; the tests are over the posts of one cell."""

    labels: tuple[str, str]
    p_value: float
    exact: float | None
    runs: frozenset[str]


def _compared(
    members: list[tuple[PolicyNames, pd.DataFrame]], draws: int, seed: int
) -> Iterator[tuple[_Two, Estimate, _Tests]]:
    """Every two policies of one cell that share their posts; without draws, no tests."""
    means = pd.concat([group.groupby("id")["hard"].mean() for _, group in members], axis=1).to_numpy()
    single = [not group["id"].duplicated().any() for _, group in members]
    pairs = list(combinations(range(len(members)), 2))
    differences = np.column_stack([means[:, a] - means[:, b] for a, b in pairs])
    estimates = bootstrap_means(differences, draws=draws, seed=seed)
    p_values = sign_flip(differences, draws=draws, seed=seed) if draws else np.full(len(pairs), np.nan)
    keys = [tuple(value for name, value in names.items() if name != "cell") for names, _ in members]
    for (a, b), one, p_value in zip(pairs, estimates, p_values, strict=True):
        labels = policy_label(members[a][0]), policy_label(members[b][0])
        exact = mcnemar_p(means[:, a], means[:, b]) if draws and single[a] and single[b] else None
        runs = frozenset([*members[a][1]["run"], *members[b][1]["run"]])
        yield (keys[a], keys[b]), one, _Tests(labels, float(p_value), exact, runs)


def _test_row(two: _Two, one: Estimate, tests: _Tests) -> dict[str, object]:
    p_value = tests.p_value if one.cells == 1 else t_test(one)
    row = {"first": tests.labels[0], "second": tests.labels[1], "difference": one.value}
    row |= {"low": one.low, "high": one.high, "se": one.se, "p_value": p_value}
    exact = tests.exact if one.cells == 1 else None
    row |= {"mcnemar": exact, "posts": one.clusters, "runs": " ".join(sorted(tests.runs))}
    return row | {
        "cells": one.cells,
        "cell_sd": one.cell_sd,
        "cell_values": listed_values(one.cell_values),
    }


def reference_scorers(samples: pd.DataFrame) -> list[PreferenceScorer]:
    """Every scorer whose sample and reference scores are both in the table, known or not.

    Reward models (``rm``, ``rm_<name>``) are read as utilities of a Bradley-Terry choice.
    """
    names = [str(name).removeprefix("score.") for name in samples if str(name).startswith("score.")]
    found = [name for name in names if f"score.{name}_reference" in samples]
    return [PreferenceScorer(name, tau=1.0 if name.split("_")[0] == "rm" else None) for name in found]


def scorers_of(samples: pd.DataFrame) -> list[PreferenceScorer]:
    """The scorers whose sample and reference scores are both in the table.

    Planted labelers, people, judges, the reward model: in the order in which they carry a study's headline.
    """
    ordered = [GOLD, *map(PreferenceScorer.of_judge, judged(samples)), RM]
    return [
        scorer
        for scorer in ordered
        if {f"score.{scorer.name}", f"score.{scorer.name}_reference"} <= set(samples.columns)
    ]
