"""The course of PPO's runs: what their kept rollouts gained over the first, against their KL (P Fig. 5)."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from eval.common.cells import listed_values
from eval.common.io import load_samples
from eval.common.rows import FurtherResult, further_table, settings_of
from eval.common.runs import StudyRun
from eval.common.stats import Estimate, bootstrap_means, cellwise
from eval.common.study import StudyResults, once
from eval.common.tables import named
from eval.overoptimisation.sweeps import FURTHER

ROLLOUTS_FILE = "rollouts.jsonl"


@once
def ppo_course_table(study: StudyResults) -> pd.DataFrame:
    """Along PPO's runs: what their rollouts gained over the first iteration's, against their KL.

    Measures ``rm_gain`` and ``gold_gain``: an iteration's mean minus that of the first, which SFT sampled
    itself. Their posts differ, so within a single cell the variances add. A run without its first rollout is
    left out.

    Returns:
        Result columns, the runs of a size and variant together, and ``iteration``, ``sweep`` (the run's
        name; of several without what tells them apart), ``beta``, ``kl``, ``kl_low``, ``kl_high``,
        ``kl_cells``.
    """
    alike: dict[tuple[str, str], list[StudyRun]] = {}
    for run in study.runs.finished("ppo"):
        alike.setdefault((run.size, run.variant), []).append(run)
    rows: list[FurtherResult] = []
    for runs in alike.values():
        found = [(run, _rollouts(run)) for run in runs if (run.folder / ROLLOUTS_FILE).is_file()]
        known = [(run, samples) for run, samples in found if samples is not None]
        if known:
            rows += _course([run for run, _ in known], pd.concat([s for _, s in known]), study.draws)
    return further_table(rows, "iteration", *FURTHER)


def _rollouts(run: StudyRun) -> pd.DataFrame | None:
    """A run's rollouts with ``iteration`` and ``kl``; None without the first and a further one."""
    samples = load_samples(run.folder / ROLLOUTS_FILE)
    if "tag.iteration" not in samples or samples["tag.iteration"].nunique() < 2:
        return None
    samples = samples.assign(
        cell=run.cell,
        id=run.post_ids(samples["id"]),
        iteration=samples["tag.iteration"].astype(int),
        kl=samples["logprob"] - samples["logprob_sft"],
    )
    return samples if (samples["iteration"] == 1).any() else None


def _course(runs: list[StudyRun], samples: pd.DataFrame, draws: int) -> list[FurtherResult]:
    scores = [name for name in ("rm", "gold") if f"score.{name}" in samples]
    first, alone = runs[0], len(runs) == 1
    sweep = first.run if alone else "-".join(filter(None, ("ppo", first.size, first.variant)))
    found = cellwise(samples, partial(_gains, scores), draws)
    rows: list[FurtherResult] = []
    for (iteration, name), estimate in found.items():
        if name == "kl":
            continue
        result = named(
            f"{name}_gain", "score", estimate, [run.run for run in runs],
            method="ppo", scorer=name, policy=str(samples["policy"].iloc[0]), size=first.size,
            params=first.params, variant=first.variant, cell=first.cell if alone else None,
            temperature=float(samples["temperature"].iloc[0]),
        )  # fmt: skip
        kl = found[iteration, "kl"]
        place = {"kl": kl.value, "kl_low": kl.low, "kl_high": kl.high}
        more = {"iteration": iteration, "sweep": sweep, "beta": settings_of(first).get("beta")}
        rows.append((result, more | place | {"kl_cells": listed_values(kl.cell_values)}))
    return rows


def _gains(scores: list[str], samples: pd.DataFrame, draws: int) -> dict[tuple[int, str], Estimate]:
    """By iteration and score what one run gained over its first rollout, and its KL."""
    columns = ["kl", *(f"score.{name}" for name in scores)]
    found = {
        int(str(iteration)): bootstrap_means(part[columns], part["id"], draws=draws)
        for iteration, part in samples.groupby("iteration")
    }
    gains: dict[tuple[int, str], Estimate] = {}
    for iteration, (kl, *now) in found.items():
        gains[iteration, "kl"] = kl
        for name, estimate, start in zip(scores, now, found[1][1:], strict=True):
            gains[iteration, name] = _gained(estimate, start, first=iteration == 1)
    return gains


def _gained(now: Estimate, start: Estimate, *, first: bool) -> Estimate:
    """The difference of two independent means, with a normal interval."""
    gain, se = now.value - start.value, 0.0 if first else float(np.hypot(now.se, start.se))
    return Estimate(gain, gain - 1.96 * se, gain + 1.96 * se, se, now.n, now.clusters)
