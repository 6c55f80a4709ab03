"""Cells: the repetitions of a study, each a draw of the data together with a training seed.

A cell is named by a short string. Where all runs share their posts (one data seed, or posts from files)
it is the training seed, "0". Where a study has several data seeds it is both, "d3 s0"; "d3" is then
called its world. Posts of two worlds differ even where their ids are equal, so the ids of such a study
are marked with the world, "d3:p17".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pandas as pd

from tldr.errors import UsageError


def world_name(data_seed: int | None) -> str:
    """The world of one of several data seeds: "d3"; "d?" where a run does not say."""
    return f"d{'?' if data_seed is None else data_seed}"


def cell_name(seed: int | None, world: str = "") -> str:
    """The cell of a training seed: "0", or "d3 s0" in one of several worlds."""
    return f"{world} s{seed or 0}" if world else str(seed or 0)


def world_of(cell: str) -> str:
    """The world of a cell, "" where there is only one."""
    return cell.split()[0] if cell.startswith("d") else ""


def cell_order(cell: str) -> tuple[int, ...]:
    """Sort key: by data seed, then by training seed, as numbers."""
    return tuple(map(int, re.findall(r"\d+", cell)))


def in_world(ids: pd.Series[Any], world: str) -> pd.Series[Any]:
    """Post ids marked with their world; unchanged where there is only one ("")."""
    if not world:
        return ids
    if isinstance(ids.dtype, pd.CategoricalDtype):
        return ids.cat.rename_categories(lambda one: f"{world}:{one}")
    return world + ":" + ids


def with_cells(samples: pd.DataFrame) -> pd.DataFrame:
    """Samples with the column ``cell``, from ``seed`` and, where it holds several, ``tag.data_seed``."""
    if "tag.data_seed" not in samples or samples["tag.data_seed"].nunique(dropna=False) < 2:
        return samples.assign(cell=[cell_name(seed) for seed in samples["seed"]])
    worlds = pd.Series(
        [world_name(None if pd.isna(seed) else int(seed)) for seed in samples["tag.data_seed"]],
        index=samples.index,
    )
    cells = [cell_name(seed, world) for seed, world in zip(samples["seed"], worlds, strict=True)]
    return samples.assign(cell=cells, id=worlds + ":" + samples["id"])


def one_world(samples: pd.DataFrame) -> None:
    """Refuse samples of several data seeds where posts come from one file, whose ids name no data seed.

    Raises:
        UsageError: they are of several.
    """
    worlds = sorted({world_of(cell) for cell in samples["cell"]} - {""})
    if worlds:
        raise UsageError(
            f"samples of several data seeds ({', '.join(worlds)}), but a posts file is of one",
            remedy="give the samples of one data seed with its own posts",
        )


def listed_values(values: Iterable[tuple[str, float]]) -> str:
    """Cells with their values as one text, "d3 s0=0.61; d3 s1=0.58", as tables hold them."""
    return "; ".join(f"{cell}={value!r}" for cell, value in values)


def values_of(text: object) -> dict[str, float]:
    """`listed_values` undone: cell -> value; none for an empty or missing text."""
    if not isinstance(text, str) or not text:
        return {}
    pairs = (part.split("=") for part in text.split("; "))
    return {cell: float(value) for cell, value in pairs}
