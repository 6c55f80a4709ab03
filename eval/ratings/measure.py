"""The 1-7 axis ratings of single summaries (P 3.4, App. C.5; Figs. 3, 12 and, for news, 4 and 13).

A rating needs no second summary, so policies may be rated on different posts. Their means then compare
only as far as the posts do.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from eval.common.cells import listed_values
from eval.common.pairs import LENGTHS, REFERENCE, post_id
from eval.common.stats import Estimate, cellwise, mean
from eval.common.tables import Measure, MeasuredResult, summarise
from eval.length.measure import rating_by_length
from tldr.errors import UsageError
from tldr.records import Rating

AXES = ("overall", "coverage", "coherence", "accuracy")
"""In the order of the paper's figures."""
BEST = 7
UNIT = "mean of 1-7"


def rating_rows(ratings: Iterable[Rating]) -> pd.DataFrame:
    """Ratings as a table.

    Returns:
        A row per rating: ``id`` (post), ``policy`` (OpenAI's ``ref`` is ``reference``), ``article``
        (whether the summary is of a news article), ``characters``, ``worker``, ``batch``, ``split``
        and `AXES` (1-7, NaN where not rated).
    """
    rows = [
        {
            "id": post_id(row.info),
            "policy": REFERENCE if row.summary.policy == "ref" else row.summary.policy,
            "article": row.info.article is not None,
            "characters": LENGTHS["characters"](row.summary.text),
            "worker": row.worker,
            "batch": row.batch,
            "split": row.split,
            **{axis: getattr(row.summary.axes, axis) for axis in AXES},
        }
        for row in ratings
    ]
    return pd.DataFrame(rows).astype(dict.fromkeys(AXES, float)) if rows else pd.DataFrame()


def rating_results(rows: pd.DataFrame, *, draws: int = 2000) -> list[MeasuredResult]:
    """Every policy's mean on every axis, and the share of its summaries that are 7 of 7 overall.

    Args:
        rows: as `rating_rows`, with ``run`` and ``cell``, and ``tag.method``, ``tag.size``,
            ``tag.params`` where known.

    Returns:
        Results named like `AXES` and ``share_overall_7``; a policy without ratings of an axis has
        none there.

    Raises:
        UsageError: a rating outside 1..7.
    """
    values: pd.DataFrame = rows[list(AXES)]
    if ((values < 1) | (values > BEST)).to_numpy().any():
        raise UsageError(f"a rating outside 1..{BEST}", remedy="fix the ratings file")
    made = rows.assign(n=1, share_overall_7=(rows["overall"] == BEST).where(rows["overall"].notna()))
    measures = [Measure(axis, axis, UNIT) for axis in AXES]
    measures.append(Measure("share_overall_7", "share_overall_7", "share of ratings", counted=True))
    by = ("policy", "method", "size", "params", "variant")
    return [
        result
        for measure in measures
        if made[measure.column].notna().any()
        for result in summarise(made.dropna(subset=[measure.column]), [measure], by=by, draws=draws)
    ]


def with_slope(rows: pd.DataFrame) -> pd.DataFrame:
    """The overall ratings of policies that allow a slope: at least ten, of texts that differ in length.

    This holds for each of a policy's cells.
    """
    rated = rows.dropna(subset=["overall"])
    of_cell = rated.groupby(["policy", "cell"])["characters"].agg(["size", "nunique"])
    fit = of_cell.groupby("policy").min()
    return rated[rated["policy"].isin(fit.index[(fit["size"] >= 10) & (fit["nunique"] > 1)])]


def rating_lengths(rows: pd.DataFrame) -> pd.DataFrame:
    """Overall rating by length in characters, as the paper's Table 14.

    Args:
        rows: as `rating_rows`, with ``run`` and ``cell``.

    Returns:
        Columns of `eval.length.measure.rating_by_length` and ``runs``, a row per policy of `with_slope`.
    """
    rows = with_slope(rows) if len(rows) else rows
    if rows.empty:
        return pd.DataFrame(columns=["policy", "n", "cells", "runs"])
    table = rating_by_length(rows.rename(columns={"characters": "length", "overall": "rating"}))
    runs = rows.groupby("policy")["run"].agg(lambda names: " ".join(sorted(set(names))))
    return table.assign(runs=table["policy"].map(runs))


def length_bins(rows: pd.DataFrame, *, bins: int = 6) -> pd.DataFrame:
    """Mean overall rating of each policy's summaries of similar length (the points of Fig. 4b).

    Returns:
        A row per policy and bin of about equally many ratings: ``policy``, ``method`` (``tag.method``, or
        the policy's name where there is none), ``characters`` (geometric mean), ``value``, ``low``, ``high``,
        ``se``, ``n``, ``cell_values``. The bins are those of all cells.
    """
    made = []
    for policy, group in rows.dropna(subset=["overall"]).groupby("policy") if len(rows) else ():
        place = pd.qcut(group["characters"], min(bins, max(1, len(group) // 10)), duplicates="drop")
        for _, part in group.groupby(place, observed=True):
            estimate = cellwise(part, _overall)["overall"]
            made.append(
                {
                    "policy": policy,
                    "method": part["tag.method"].iloc[0] if "tag.method" in part else policy,
                    "characters": float(np.exp(np.log(part["characters"].clip(lower=1)).mean())),
                    "value": estimate.value,
                    "low": estimate.low,
                    "high": estimate.high,
                    "se": estimate.se,
                    "n": estimate.n,
                    "cell_values": listed_values(estimate.cell_values),
                }
            )
    return pd.DataFrame(made)


def _overall(part: pd.DataFrame, _: int) -> dict[str, Estimate]:
    return {"overall": mean(part["overall"], part["id"])}
