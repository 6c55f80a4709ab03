"""Two or more studies side by side: the same policies, one column per study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from eval.common.runs import load_runs, study_samples
from eval.common.tables import POOLED, result_table, write_table
from eval.preference.measure import preference, scorers_of
from eval.reward.section import accuracy_results, evaluated_rewards
from tldr.errors import UsageError

ROWS = ["measure", "scorer", "method", "size", "best_of", "temperature"]
"""The columns that name a row: studies are compared where all of them are equal."""
MEASURES = ("expected_preference", "preference", "valid2_accuracy")


def study_results(name: str, folder: Path, draws: int = 2000) -> pd.DataFrame:
    """Preference to the reference and reward-model accuracy of one study, with a column ``study``.

    Raises:
        UsageError: no such folder, or nothing in it was scored.
    """
    runs = load_runs(folder)
    samples = study_samples(runs)
    results = accuracy_results(evaluated_rewards(runs))
    if samples is not None:
        for scorer in scorers_of(samples):
            results += preference(samples, scorer, by=POOLED, draws=draws)
    table = result_table(results)
    if table.empty:
        raise UsageError("nothing was scored in this study", where=folder, remedy="run the study")
    # Only main runs that were sampled in the same way are compared; a study's sweeps are left out.
    main = table["measure"].isin(MEASURES) & (table["variant"] == "") & table["top_p"].fillna(1.0).eq(1.0)
    return table[main].assign(study=name)


def compare(folders: Mapping[str, Path], out: Path, *, draws: int = 2000) -> pd.DataFrame:
    """Write ``compare.{csv,md,tex}`` under `out`: one row per policy and measure, one column per study.

    Args:
        folders: study name -> its folder of runs, at least two.

    Returns:
        The readable table; a policy that a study lacks has an empty cell.

    Raises:
        UsageError: fewer than two studies, or one without results.
    """
    if len(folders) < 2:
        raise UsageError("a comparison needs at least two studies", remedy="name two or more studies")
    long = pd.concat(
        [study_results(name, folder, draws) for name, folder in folders.items()], ignore_index=True
    )
    cells = long.assign(
        text=[
            f"{value:.3f} [{low:.3f}, {high:.3f}]"
            for value, low, high in zip(long["value"], long["low"], long["high"], strict=True)
        ],
        temperature=long["temperature"].map(lambda value: "" if pd.isna(value) else f"{value:g}"),
    )
    order = cells.drop_duplicates(ROWS)[ROWS]
    wide = cells.pivot_table(index=ROWS, columns="study", values="text", aggfunc="first", sort=False)
    shown = order.merge(wide.reset_index(), on=ROWS, how="left")[[*ROWS, *folders]].fillna("")
    write_table(long, shown, out, "compare")
    return shown
