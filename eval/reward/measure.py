"""How good a reward model is, beyond one number: accuracy by group, calibration and length bias.

Works on pairs (`eval.common.pairs`) with the scores of both sides in ``first_score`` and
``second_score``; ``preferred`` is what the labeler chose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats
from scipy.special import expit

from eval.common.pairs import log_length_ratio
from eval.common.stats import Estimate, bootstrap_means, bootstrap_totals, from_draws, share, table_over_cells
from tldr.errors import NonFiniteError, UsageError

BREAKDOWNS = ("batch", "policies", "strength", "confidence", "split", "subreddit")


def hits(pairs: pd.DataFrame) -> pd.DataFrame:
    """Decided pairs with ``hit`` (1 right, 0 wrong, 0.5 equal scores) and ``margin`` (first - second score).

    Pairs on which the labeler is indifferent are left out.

    Raises:
        NonFiniteError: a missing or infinite score. UsageError: no decided pair.
    """
    decided = pairs[pairs["preferred"] != 0.5]
    if decided.empty:
        raise UsageError("no pair with a choice")
    margin = (decided["first_score"] - decided["second_score"]).astype(float)
    if not np.isfinite(margin).all():
        raise NonFiniteError(
            f"{int((~np.isfinite(margin)).sum())} of {len(margin)} pairs lack a finite score"
        )
    right = np.sign(margin) * np.sign(decided["preferred"] - 0.5)
    policies = [" / ".join(sorted(both)) for both in zip(decided["first"], decided["second"], strict=True)]
    return decided.assign(margin=margin, hit=(right + 1) / 2, policies=policies)


def accuracy(pairs: pd.DataFrame, *, by: Sequence[str] = BREAKDOWNS) -> pd.DataFrame:
    """Accuracy overall and within each group of every breakdown.

    ``policies`` is the unordered pair of policies, ``strength`` is |confidence - 5|.

    Returns:
        Columns ``breakdown`` ("all" for the whole), ``group``, ``value``, ``low``, ``high``,
        ``se``, ``n``, ``posts`` and those of `eval.common.stats.table_over_cells`; within a single cell
        Wilson intervals widened for posts. Breakdowns that the pairs do not carry are left out; pairs
        without a value form no group.
    """

    def of_cell(part: pd.DataFrame, _: int) -> pd.DataFrame:
        judged = hits(part)
        rows = [_row("all", "", judged)]
        for name in by:
            if name in judged and judged[name].notna().any():
                rows += [_row(name, group, chosen) for group, chosen in judged.groupby(name)]
        return pd.DataFrame(rows)

    return table_over_cells(pairs, of_cell, ["breakdown", "group"])


def _row(breakdown: str, group: object, part: pd.DataFrame) -> dict[str, object]:
    estimate = share(part["hit"], part["id"])
    return {
        "breakdown": breakdown,
        "group": group,
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "se": estimate.se,
        "n": estimate.n,
        "posts": estimate.clusters,
    }


@dataclass(frozen=True)
class Calibration:
    """Whether sigma(score difference) is the true probability of the preference.

    Attributes:
        curve: bins of equal size by claimed probability: ``claimed`` (mean), ``observed`` with
            ``low``, ``high`` and ``se``, ``n``, ``posts``.
        ece: expected calibration error, mean |claimed - observed| over pairs, 0..1.
        log_loss: mean -ln P(the labeler's choice), nats; ln 2 is a coin. brier: mean squared error.
    """

    curve: pd.DataFrame
    ece: float
    log_loss: float
    brier: float


def calibration(pairs: pd.DataFrame, *, bins: int = 10) -> Calibration:
    """Calibration of the preferred side: claimed probability sigma(|margin|) against accuracy.

    Raises:
        UsageError: fewer pairs than bins.
    """
    judged = _claims(pairs, bins)
    rows = []
    for _, part in judged.groupby("bin"):
        estimate = share(part["hit"], part["id"])
        rows.append(
            {
                "claimed": float(part["claimed"].mean()),
                "observed": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "se": estimate.se,
                "n": estimate.n,
                "posts": estimate.clusters,
            }
        )
    curve = pd.DataFrame(rows)
    return Calibration(
        curve=curve,
        ece=float(((curve["claimed"] - curve["observed"]).abs() * curve["n"]).sum() / len(judged)),
        log_loss=float(judged["log_loss"].mean()),
        brier=float(judged["brier"].mean()),
    )


def _claims(pairs: pd.DataFrame, bins: int) -> pd.DataFrame:
    """`hits` with ``claimed``, its ``bin`` (0..bins-1, equal sizes), ``log_loss`` and ``brier`` a pair."""
    judged = hits(pairs)
    if len(judged) < bins:
        raise UsageError(f"{len(judged)} pairs do not fill {bins} bins")
    claimed = pd.Series(expit(judged["margin"].abs()), index=judged.index)
    place = np.minimum(claimed.rank(method="first").sub(1) * bins // len(judged), bins - 1)
    chosen = np.where(judged["preferred"] > 0.5, judged["margin"], -judged["margin"])
    return judged.assign(
        claimed=claimed,
        bin=place.astype(int),
        log_loss=np.logaddexp(0, -chosen),
        brier=np.square(1 - expit(chosen)),
    )


def calibration_estimates(pairs: pd.DataFrame, *, bins: int = 10, draws: int = 2000) -> dict[str, Estimate]:
    """``ece``, ``overconfidence`` (mean claimed - observed), ``log_loss``, ``brier``, intervals over posts.

    Noise in the bins makes every resample's calibration error larger than the estimate, by about as
    much as the estimate exceeds the truth. The interval is therefore shifted back by the mean excess.

    Raises:
        UsageError: fewer pairs than bins.
    """
    judged = _claims(pairs, bins)
    gap = (judged["claimed"] - judged["hit"]).to_numpy()
    by_bin = gap[:, None] * (judged["bin"].to_numpy()[:, None] == np.arange(bins))
    totals = bootstrap_totals(np.column_stack([by_bin, np.ones(len(gap))]), judged["id"], draws=draws)
    errors = np.abs(totals[:, :-1]).sum(axis=1) / totals[:, -1]
    ece = float(np.abs(by_bin.sum(axis=0)).sum() / len(gap))
    moved = np.maximum(errors - (errors.mean() - ece), 0) if draws else errors
    columns = np.column_stack([gap, judged["log_loss"], judged["brier"]])
    rest = bootstrap_means(columns, judged["id"], draws=draws)
    posts = judged["id"].nunique()
    return {
        "ece": from_draws(ece, moved, len(gap), posts),
        **dict(zip(("overconfidence", "log_loss", "brier"), rest, strict=True)),
    }


@dataclass(frozen=True)
class LengthBias:
    """How length affects labelers and model, as shares of the pairs whose lengths differ.

    Attributes:
        labelers_longer, model_longer: how often each prefers the longer summary.
        accuracy_longer_chosen, accuracy_shorter_chosen: the model's accuracy where the labeler
            chose the longer, the shorter one; far apart = it has learned length. None: no such pair.
        correlation: Spearman's, of score difference and log length ratio; NaN if either never varies.
    """

    labelers_longer: Estimate
    model_longer: Estimate
    accuracy_longer_chosen: Estimate | None
    accuracy_shorter_chosen: Estimate | None
    correlation: float


def length_bias(pairs: pd.DataFrame, *, unit: str = "words") -> LengthBias:
    """Measure `LengthBias`.

    Raises:
        UsageError: all pairs are of equal length.
    """
    judged = hits(pairs)
    ratio = log_length_ratio(judged, unit)
    judged, ratio = judged[ratio != 0], ratio[ratio != 0]
    if judged.empty:
        raise UsageError("no two summaries differ in length")
    chose_longer = np.sign(judged["preferred"] - 0.5) == np.sign(ratio)
    model_longer = (np.sign(judged["margin"]) * np.sign(ratio) + 1) / 2

    def within(mask: pd.Series[bool]) -> Estimate | None:
        part = judged[mask]
        return share(part["hit"], part["id"]) if len(part) else None

    return LengthBias(
        labelers_longer=share(chose_longer.astype(float), judged["id"]),
        model_longer=share(model_longer, judged["id"]),
        accuracy_longer_chosen=within(chose_longer),
        accuracy_shorter_chosen=within(~chose_longer),
        correlation=_spearman(judged["margin"], ratio),
    )


def _spearman(first: pd.Series[float], second: pd.Series[float]) -> float:
    varied = first.nunique() > 1 and second.nunique() > 1
    return float(scipy_stats.spearmanr(first, second).statistic) if varied else float("nan")
