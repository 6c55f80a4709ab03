"""Bradley-Terry strengths and Elo ratings from pairs, with intervals over posts.

P(first preferred) = sigma(strength_first - strength_second + features), a logistic regression with a
covariance clustered by post. Ties (halves) and probabilities may stand in for choices. Finite
estimates exist only where nobody wins or loses everything (Ford 1957): this is checked
first, and the error names the groups concerned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import sparse
from scipy import stats as scipy_stats
from scipy.sparse.csgraph import connected_components

from eval.common.logistic import clustered_covariance, fit_logistic
from eval.common.stats import Estimate, cells_of, table_over_cells
from tldr.errors import NonFiniteError, UsageError
from tldr.measures import FloatArray

ELO_SCALE = 400 / np.log(10)
"""Elo points of a strength difference of 1: 400 points are odds of ten to one."""


@dataclass(frozen=True)
class Strengths:
    """A fitted Bradley-Terry model.

    Attributes:
        base: the policy whose strength is 0.
        names: the other policies, then the features; one coefficient each.
        coefficients: (p,) in logits. covariance: (p, p), robust to posts.
        n: pairs. posts: independent posts among them.
    """

    base: str
    names: tuple[str, ...]
    coefficients: FloatArray
    covariance: FloatArray
    n: int
    posts: int

    def contrast(self, weights: dict[str, float], level: float = 0.95) -> Estimate:
        """A weighted sum of strengths and coefficients, in logits (the base's strength is 0)."""
        vector = np.array([weights.get(name, 0.0) for name in self.names])
        value = float(vector @ self.coefficients)
        se = float(np.sqrt(vector @ self.covariance @ vector))
        half = float(scipy_stats.norm.ppf((1 + level) / 2)) * se
        return Estimate(value, value - half, value + half, se, self.n, self.posts)


def check_connected(pairs: pd.DataFrame) -> None:
    """Refuse pairs from which no finite strengths follow.

    Raises:
        UsageError: some policies were never compared with the others, or a group never lost to the
            rest.
    """
    names, codes = np.unique(pairs[["first", "second"]].to_numpy(dtype=str).ravel(), return_inverse=True)
    first, second = codes.reshape(-1, 2).T
    preferred = pairs["preferred"].to_numpy(dtype=float)
    beats = sparse.coo_array(
        (
            np.concatenate([preferred, 1 - preferred]),
            (np.concatenate([first, second]), np.concatenate([second, first])),
        ),
        shape=(len(names), len(names)),
    ).tocsr()
    beats.eliminate_zeros()
    problems: tuple[tuple[Literal["weak", "strong"], str], ...] = (
        ("weak", "were never compared with one another"),
        ("strong", "always win or always lose against the others"),
    )
    for kind, what in problems:
        groups, group = connected_components(beats, directed=True, connection=kind)
        if groups > 1:
            members = [", ".join(names[group == number]) for number in range(groups)]
            raise UsageError(
                f"groups of policies {what}: {' | '.join(members)}",
                remedy="compare more posts, or leave out one of the groups",
            )


def fit_strengths(pairs: pd.DataFrame, *, base: str, features: pd.DataFrame | None = None) -> Strengths:
    """Fit strengths, and coefficients of `features` that turn sign when the two sides are swapped.

    Args:
        pairs: as in `eval.common.pairs`. features: (n, f), same index; such as the log length ratio.

    Raises:
        UsageError: `base` is not among the policies, or no finite strengths exist.
        NonFiniteError: a missing preference or feature, or a fit that does not converge.
    """
    policies = sorted(set(pairs["first"]) | set(pairs["second"]))
    if base not in policies:
        raise UsageError(f"no pair with {base!r}", remedy=f"choose from {', '.join(policies)}")
    response = pairs["preferred"].to_numpy(dtype=float)
    if not np.isfinite(response).all():
        raise NonFiniteError(
            f"{int((~np.isfinite(response)).sum())} of {len(pairs)} pairs have no preference"
        )
    check_connected(pairs)
    rest = [name for name in policies if name != base]
    design = pd.DataFrame(
        {
            name: (pairs["first"] == name).astype(float) - (pairs["second"] == name).astype(float)
            for name in rest
        }
    )
    if features is not None:
        design = pd.concat([design, features.astype(float)], axis=1)
    matrix = design.to_numpy(dtype=float)
    if not np.isfinite(matrix).all():
        raise NonFiniteError("a pair lacks a feature")
    codes, posts = pd.factorize(pairs["id"])
    if len(posts) < 2:
        raise UsageError("all pairs are about one post: no interval over posts")
    try:
        if np.linalg.matrix_rank(matrix) < matrix.shape[1]:  # rounding would decide where the fit fails
            raise NonFiniteError("the columns depend on one another")
        coefficients = fit_logistic(matrix, response, steps=100, tolerance=1e-10)
    except NonFiniteError as error:
        raise NonFiniteError(
            "no finite fit: the features separate the pairs or depend on one another",
            remedy="use more pairs or fewer policies",
        ) from error
    covariance = clustered_covariance(matrix, response, coefficients, codes)
    return Strengths(
        base, (*rest, *design.columns[len(rest) :]), coefficients, covariance, len(pairs), len(posts)
    )


def elo(pairs: pd.DataFrame, *, base: str, base_rating: float = 1000.0) -> pd.DataFrame:
    """Elo ratings, best first; the base's rating is given, so it has no interval.

    Policies are rated in each cell by itself, where ``cell`` tells cells apart.

    Returns:
        Columns ``policy``, ``elo``, ``low``, ``high``, ``se``, ``pairs`` (it took part in),
        ``wins`` (its share of them, ties half), and ``cells``, ``cell_sd``, ``cell_values``.

    Raises:
        UsageError, NonFiniteError: as `fit_strengths`; it names the cell, where there are several.
    """
    several = len(cells_of(pairs)) > 1

    def of_cell(part: pd.DataFrame, _: int) -> pd.DataFrame:
        try:
            return _elo(part, base, base_rating)
        except (UsageError, NonFiniteError) as error:
            if not several:
                raise
            what = f"cell {part['cell'].iloc[0]}: {error.what}"
            raise type(error)(what, where=error.where, remedy=error.remedy) from error

    table = table_over_cells(pairs, of_cell, ["policy"], averaged=["wins"])
    table.loc[table["policy"] == base, ["low", "high", "se"]] = np.nan
    table = table.rename(columns={"value": "elo", "n": "pairs"}).drop(columns="posts")
    return table.sort_values("elo", ascending=False, ignore_index=True)


def _elo(pairs: pd.DataFrame, base: str, base_rating: float) -> pd.DataFrame:
    """The ratings of one cell, with ``value``, ``n`` and ``posts``."""
    fit = fit_strengths(pairs, base=base)
    policies: Sequence[str] = [base, *fit.names]
    sides = pd.concat(
        [
            pd.DataFrame({"policy": pairs["first"], "won": pairs["preferred"]}),
            pd.DataFrame({"policy": pairs["second"], "won": 1 - pairs["preferred"]}),
        ]
    ).groupby("policy")["won"]
    rows = []
    for name in policies:
        estimate = fit.contrast({name: ELO_SCALE})
        fixed = name == base
        rows.append(
            {
                "policy": name,
                "value": base_rating + estimate.value,
                "low": np.nan if fixed else base_rating + estimate.low,
                "high": np.nan if fixed else base_rating + estimate.high,
                "se": np.nan if fixed else estimate.se,
                "n": int(sides.count()[name]),
                "wins": float(sides.mean()[name]),
                "posts": fit.posts,
            }
        )
    return pd.DataFrame(rows)
