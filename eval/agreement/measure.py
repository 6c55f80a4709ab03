"""How often any two judges of the same pairs agree (P 3.1, App. C.2; App. G.7, Tables 20-23).

A judge is a column of signed preferences over pairs: above 0 the first summary, below 0 the
second, 0 indifferent, missing = not judged. Pairs on which either judge is indifferent are left
out, as in the paper. Intervals and standard errors are bootstrapped over posts.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from eval.agreement.text_judges import text_judges
from eval.common.pairs import REFERENCE, in_one_order, pair_key
from eval.common.stats import bootstrap_totals, from_draws, table_over_cells
from tldr.errors import UsageError


def agreement(
    judges: pd.DataFrame, posts: pd.Series[str], *, draws: int = 2000, seed: int = 0, level: float = 0.95
) -> pd.DataFrame:
    """Agreement of every two judges.

    Args:
        judges: (pairs, judges) signed preferences. posts: (pairs,) the post of each pair.

    Returns:
        A row each two judges: ``first``, ``second``, ``value``, ``low``, ``high``, ``se``, ``n``
        (pairs that both decided), ``posts``, ``left_out`` (judged by both, indifferent to one).
        Judges that decided no pair in common have no row.

    Raises:
        UsageError: fewer than two judges, or none that decided a pair in common.
    """
    signs = {name: np.sign(judges[name].to_numpy(dtype=float)) for name in judges}
    both = list(combinations(signs, 2))
    decided = [np.nan_to_num(np.abs(signs[a] * signs[b])) for a, b in both]
    known = [(pair, mask) for pair, mask in zip(both, decided, strict=True) if mask.any()]
    if not known:
        raise UsageError("no two judges decided a pair in common")
    agreed = [mask * (signs[a] == signs[b]) for (a, b), mask in known]
    columns = np.column_stack([*agreed, *(mask for _, mask in known)])
    totals = bootstrap_totals(columns, posts, draws=draws, seed=seed)
    rows = []
    for number, ((a, b), mask) in enumerate(known):
        inside, hits = mask > 0, totals[:, number]
        counts = totals[:, len(known) + number]
        # A resample without such a pair has no share.
        shares = hits[counts > 0] / counts[counts > 0]
        units = int(posts[inside].nunique())
        value = float(agreed[number].sum() / mask.sum())
        estimate = from_draws(value, shares, int(mask.sum()), units, level)
        seen = int((~np.isnan(signs[a] * signs[b])).sum())
        rows.append(
            {
                "first": a,
                "second": b,
                "value": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "se": estimate.se,
                "n": estimate.n,
                "posts": units,
                "left_out": seen - estimate.n,
            }
        )
    return pd.DataFrame(rows)


def agreement_matrix(table: pd.DataFrame, value: str = "value") -> pd.DataFrame:
    """`agreement`'s rows as a symmetric matrix in the judges' order; nothing on the diagonal."""
    names = list(dict.fromkeys([*table["first"], *table["second"]]))
    matrix = pd.DataFrame(index=names, columns=names, dtype=table[value].dtype)
    for row in table.itertuples():
        matrix.loc[row.first, row.second] = matrix.loc[row.second, row.first] = getattr(row, value)
    return matrix


def labeler_columns(labels: pd.DataFrame, *, ensemble_of: int = 3) -> pd.DataFrame:
    """Judges made of the labelers themselves, for every label of a pair.

    Args:
        labels: human comparisons (`eval.common.pairs.comparison_pairs`), several rows where several
            workers judged the same two texts.
        ensemble_of: fewest other workers whose majority counts as an ensemble.

    Returns:
        `labels` turned into one order, with ``labeler`` (this worker's sign) and
        ``labeler ensemble`` (majority of the *other* workers on the pair; 0 = they split, missing
        = too few).

    Raises:
        UsageError: a worker judged the same pair twice.
    """
    turned = in_one_order(labels)
    turned["labeler"] = np.sign(turned["preferred"] - 0.5)
    key = pair_key(turned)
    twice = pd.DataFrame({"key": key, "worker": turned["worker"]}).duplicated()
    if twice.any():
        raise UsageError(
            f"{int(twice.sum())} labels are a worker's second of the same pair",
            remedy="keep one label per worker",
        )
    groups = turned.groupby(key)["labeler"]
    others = groups.transform("sum") - turned["labeler"]
    enough = groups.transform("size") - 1 >= ensemble_of
    turned["labeler ensemble"] = np.where(enough, np.sign(others), np.nan)
    return turned


def labeler_agreement(labels: pd.DataFrame, *, draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """How often two labelers of the same pair agree: one row as in `agreement`.

    Every two labels of a pair count once; the interval is over posts.

    Raises:
        UsageError: no pair was labelled twice.
    """
    turned = labeler_columns(labels)
    rows = [
        {"id": one["id"], "labeler": one["labeler"], "another labeler": other["labeler"]}
        for _, group in turned[["id", "labeler"]].groupby(pair_key(turned))
        for one, other in combinations(group.to_dict("records"), 2)
    ]
    if not rows:
        raise UsageError("no pair was labelled by two workers")
    table = pd.DataFrame(rows)
    return agreement(table[["labeler", "another labeler"]], table["id"], draws=draws, seed=seed)


def comparison_agreement(
    labels: pd.DataFrame,
    posts: pd.DataFrame | None = None,
    *,
    same_policy: bool = False,
    ensemble_of: int = 3,
    unit: str = "words",
    stemmer: bool = False,
    draws: int = 2000,
) -> pd.DataFrame:
    """Every two judges of labelled pairs: people, ensembles of them, texts and scorers (Tables 20-23).

    Judges are ``labeler``, ``labeler ensemble``, ``another labeler``, and those of
    `eval.agreement.text_judges.text_judges`. People count once a label; two judges that are not people count
    a pair once, however often it was labelled.

    Args:
        labels: human comparisons (`eval.common.pairs.comparison_pairs`). posts: for the references.
        same_policy: only two samples of one policy at one temperature, as in the paper: two summaries
            of equal `policy` name, references left out.
        ensemble_of, unit, stemmer: as `labeler_columns` and `text_judges`.

    Returns:
        Rows as `agreement`, people first, with the columns of `eval.common.stats.table_over_cells`: judges
        are compared in each cell by itself, where ``cell`` tells cells apart.

    Raises:
        UsageError: no such pair, or as `labeler_columns` and `text_judges`.
    """
    if same_policy:
        labels = labels[(labels["first"] == labels["second"]) & (labels["first"] != REFERENCE)]
        if labels.empty:
            raise UsageError(
                "no comparison is between two samples of one policy", remedy="leave out --same-policy"
            )

    def of_cell(part: pd.DataFrame, number: int) -> pd.DataFrame:
        turned = labeler_columns(part.reset_index(drop=True), ensemble_of=ensemble_of)
        return _every_two(turned, text_judges(turned, posts, unit=unit, stemmer=stemmer), number)

    return table_over_cells(labels, of_cell, ["first", "second"], draws, summed=["left_out"])


def _every_two(turned: pd.DataFrame, texts: pd.DataFrame, draws: int) -> pd.DataFrame:
    """`comparison_agreement` of one cell: `turned` as `labeler_columns`, `texts` as `text_judges`."""
    people = turned[["labeler", "labeler ensemble"]].dropna(axis="columns", how="all")
    with_people = agreement(pd.concat([people, texts], axis=1), turned["id"], draws=draws)
    parts = [with_people[with_people["first"].isin(people.columns)]]
    key = pair_key(turned)
    if key.duplicated().any():
        parts.insert(0, labeler_agreement(turned, draws=draws))
    once = ~key.duplicated()
    if texts.shape[1] > 1:
        parts.append(agreement(texts[once], turned.loc[once, "id"], draws=draws))
    return pd.concat(parts, ignore_index=True)
