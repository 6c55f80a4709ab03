from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from eval.best_of_n.measure import best_of_n_curve
from tldr.errors import UsageError


def pool(rows: list[tuple[str, float, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["id", "rm", "gold"])


def test_best_of_n_curve_is_the_mean_over_all_draws() -> None:
    draw = np.random.default_rng(2)
    table = pool([(post, draw.random(), draw.random()) for post in "abc" for _ in range(6)])
    found = best_of_n_curve(table, "rm", "gold", [1, 2, 5, 6]).set_index("n")
    for n in (1, 2, 5, 6):
        expected = []
        for _, group in table.groupby("id"):
            best = [
                group.loc[list(some)].sort_values("rm")["gold"].iloc[-1]
                for some in combinations(group.index, n)
            ]
            expected.append(np.mean(best))
        assert found.loc[n, "value"] == pytest.approx(np.mean(expected))
    assert found.loc[1, "value"] == pytest.approx(table["gold"].mean()) and found.loc[1, "kl"] == 0
    assert (found["posts"] == 3).all() and (found["low"] <= found["value"]).all()


def test_equal_scores_share_their_gold() -> None:
    table = pool([("a", 1.0, 0.0), ("a", 1.0, 1.0), ("b", 1.0, 1.0), ("b", 1.0, 0.0)])
    assert best_of_n_curve(table, "rm", "gold", [2])["value"].item() == 0.5


def test_pools_must_be_equal() -> None:
    with pytest.raises(UsageError, match="pools of 1 to 2"):
        best_of_n_curve(pool([("a", 1, 1), ("b", 1, 1), ("b", 2, 1)]), "rm", "gold", [1])
    with pytest.raises(UsageError, match="between 1 and the pool's 1"):
        best_of_n_curve(pool([("a", 1, 1)]), "rm", "gold", [2])
