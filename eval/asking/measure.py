"""What chosen questions gain over random ones, and what a doubling of random ones gains."""

from __future__ import annotations

import numpy as np
import pandas as pd

from eval.common.stats import Estimate, over_cells

RANDOM = "random"


def gain_over_random(accuracies: pd.DataFrame, way: str) -> Estimate | None:
    """Accuracy of reward models on chosen questions minus that on as many random ones, mean over the amounts.

    Args:
        accuracies: ``cell``, ``way``, ``labels``, ``value`` (0..1) and ``n`` (pairs), a row for each.

    Returns:
        Over cells; in one cell without an interval. None where no amount has both.
    """
    tables = accuracies.pivot_table(index=["cell", "labels"], columns="way", values="value")
    if way not in tables or RANDOM not in tables:
        return None
    differences = (tables[way] - tables[RANDOM]).dropna()
    return _over_cells(differences.groupby("cell").mean(), accuracies)


def gain_by_doubling(accuracies: pd.DataFrame) -> Estimate | None:
    """Accuracy that a doubling of random labels gains: in each cell, least squares on their log2.

    Args:
        accuracies: as `gain_over_random`.

    Returns:
        Over cells; in one cell without an interval. None with a single amount.
    """
    slopes = {}
    for cell, part in accuracies[accuracies["way"] == RANDOM].groupby("cell"):
        logs = np.log2(part["labels"].to_numpy(dtype=np.float64))
        if len(set(logs)) > 1:
            slopes[cell] = float(np.polyfit(logs, part["value"].to_numpy(dtype=np.float64), 1)[0])
    return _over_cells(pd.Series(slopes, dtype=float), accuracies)


def _over_cells(values: pd.Series[float], accuracies: pd.DataFrame) -> Estimate | None:
    pairs = accuracies.groupby("cell")["n"].max().to_dict()
    none = float("nan")
    found = {
        str(cell): Estimate(value, none, none, none, pairs[cell], pairs[cell])
        for cell, value in values.to_dict().items()
    }
    return over_cells(found) if found else None
