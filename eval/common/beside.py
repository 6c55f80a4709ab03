"""Another study's committed report beside this study: where this draw lies outside what it predicts.

A committed value of n cells has the mean m and the standard deviation s between cells. Its interval, m +-
t s / sqrt(n), is one for the mean. A new draw scatters about that mean by s itself, so it is
expected within the prediction interval, m +- t s sqrt(1 + 1/n), with 95 % probability; t has n - 1 degrees
of freedom. For the mean of k new cells the 1 becomes 1/k. A value of one cell predicts nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from tldr.errors import UsageError

EXPLAINED = (
    "a new draw is expected, 19 times in 20, within the mean +- t sd sqrt(1 + 1/n) over the n committed cells"
)

ALONE = "its values are of one cell, one draw, so no prediction interval for another draw exists"


@dataclass(frozen=True)
class CommittedReport:
    """A folder with the ``tables`` and ``claims.csv`` of a report (`eval.report.build.build_report`).

    Raises:
        UsageError: no such folder, or none of a report.
    """

    folder: Path

    def __post_init__(self) -> None:
        if not (self.folder / "tables").is_dir():
            raise UsageError(
                "no tables of a report",
                where=self.folder,
                remedy="name a report's folder, such as results/toy",
            )

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    def table(self, name: str) -> pd.DataFrame | None:
        """The table ``tables/<name>.csv``; None where the report has none.

        Raises:
            UsageError: it was written before tables had cells.
        """
        path = self.folder / "tables" / f"{name}.csv"
        if not path.is_file():
            return None
        table = pd.read_csv(path, keep_default_na=False, na_values=[""])
        if "cells" not in table:
            raise UsageError("a table without cells", where=path, remedy="build that report again")
        return table


def compared(own: pd.DataFrame, other: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The rows of two studies that have the same `keys`, in the order of `own`.

    Args:
        own, other: with ``value``, ``low``, ``high``, ``cells`` and ``cell_sd``.

    Returns:
        `keys`, ``value`` and ``cells`` of this study; ``other``, ``other_low``, ``other_high``,
        ``other_cells``; ``predicted_low`` and ``predicted_high`` (missing where the other has one cell);
        ``outside`` (whether the value lies outside them).
    """
    names = ["value", "low", "high", "cells", "cell_sd"]
    sides = [
        frame[[*keys, *names]].assign(**{key: frame[key].map(_plain) for key in keys})
        for frame in (own, other)
    ]
    both = sides[0].merge(sides[1], on=list(keys), suffixes=("", "_other"))
    cells, draws = both["cells_other"].astype(float), both["cells"].astype(float)
    spread = both["cell_sd_other"].astype(float)
    reach = scipy_stats.t.ppf(0.975, (cells - 1).where(cells > 1)) * spread * np.sqrt(1 / draws + 1 / cells)
    low, high = both["value_other"] - reach, both["value_other"] + reach
    return both[[*keys, "value", "cells"]].assign(
        other=both["value_other"],
        other_low=both["low_other"],
        other_high=both["high_other"],
        other_cells=both["cells_other"],
        predicted_low=low,
        predicted_high=high,
        outside=(both["value"] < low) | (both["value"] > high),
    )


def _plain(value: object) -> object:
    """A key as it is compared: absent and empty alike, numbers as numbers."""
    if value is None or value == "" or (isinstance(value, float) and np.isnan(value)):
        return ""
    return float(value) if isinstance(value, int | float | np.number) else value


def told(table: pd.DataFrame, labels: Sequence[str], name: str) -> str:
    """How many of the shared values (`compared`) lie outside what the other study predicts, and which.

    Args:
        labels: what each row is called.
    """
    if table.empty:
        return f"Beside {name}: no value is shared."
    known = table["predicted_low"].notna().to_numpy()
    if not known.any():
        return f"Beside {name}: {ALONE}."
    out = [label for label, far in zip(labels, table["outside"], strict=True) if far]
    said = (
        f"Beside {name}: {len(out)} of {int(known.sum())} shared values of this study lie outside its "
        f"prediction interval ({EXPLAINED})"
    )
    alone = (
        f" {int((~known).sum())} more are of one cell there and predict nothing." if not known.all() else ""
    )
    return said + (f": {', '.join(out)}." if out else ".") + alone
