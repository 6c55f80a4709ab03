"""The pools of best-of-N samples that a study's Fig. 7 is drawn from: of each size the largest."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from scipy.special import expit

from eval.best_of_n.pool import POOL_FILE, load_pool
from eval.common.rows import settings_of
from eval.common.runs import StudyRun
from eval.common.study import StudyResults, once
from eval.reward.scored_pairs import main_scorer
from tldr.measures.best_of_n import doublings, pool_choosers

RM_PREFERENCE = "preference.rm"
"""Column of a pool without planted truth: sigma of the main reward model's score minus the reference's."""


@dataclass(frozen=True)
class Pool:
    """The largest pool of a model size, all cells: ``cell`` and the columns of `load_pool`.

    `scorer`: the name of its main reward model, whose scores are the column ``rm``.
    """

    run: StudyRun
    runs: tuple[str, ...]
    samples: pd.DataFrame
    total: int
    temperature: float | None
    scorer: str

    @property
    def choosers(self) -> list[str]:
        """Scores that a sample can be chosen by; the main reward model is ``rm`` alone."""
        named = self.scorer.replace("rm_", "reward-", 1)
        same = self.run.parents.get(named) == self.run.parents.get("reward")
        twice = "rm" in self.samples and same
        return [name for name in pool_choosers(map(str, self.samples)) if not (twice and name == self.scorer)]

    @property
    def counts(self) -> list[int]:
        """Powers of two up to N, and N itself."""
        return doublings(self.total)


@once
def largest_pools(study: StudyResults) -> list[Pool]:
    """Of each size the pool with most samples per post (``settings.n``), smallest model first."""
    groups: dict[tuple[str, str], list[StudyRun]] = {}
    for run in study.runs.finished("best_of_n"):
        if (run.folder / POOL_FILE).is_file():
            groups.setdefault((run.size, run.variant), []).append(run)
    largest: dict[str, tuple[int, list[StudyRun]]] = {}
    for (size, _), runs in groups.items():
        n = int(settings_of(runs[0]).get("n", 0))
        if size not in largest or n > largest[size][0]:
            largest[size] = (n, runs)
    pools = [_pool(study, runs) for _, runs in largest.values()]
    return sorted(pools, key=lambda pool: pool.run.params or 0)


def _pool(study: StudyResults, runs: list[StudyRun]) -> Pool:
    parts = [_of_run(study, run) for run in runs]
    samples = parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
    total = int(parts[0].groupby("id", observed=True).size().iloc[0])
    temperature = settings_of(runs[0]).get("temperature")
    names = tuple(run.run for run in runs)
    return Pool(runs[0], names, samples, total, temperature, main_scorer(study.runs, runs[0]))


def _of_run(study: StudyResults, run: StudyRun) -> pd.DataFrame:
    pool = load_pool(run.folder / POOL_FILE)
    pool = pool.assign(cell=run.cell, id=run.post_ids(pool["id"]))
    references = _reference_scores(study, run)
    if "gold_preference" in pool or "rm" not in pool or not set(pool["id"]) <= set(references.index):
        return pool
    return pool.assign(**{RM_PREFERENCE: expit(pool["rm"] - pool["id"].astype(str).map(references))})


def _reference_scores(study: StudyResults, run: StudyRun) -> pd.Series[float]:
    """The references' scores by the reward model of a pool's cell, by post."""
    column = "score.rm_reference"
    if study.samples is None or column not in study.samples:
        return pd.Series(dtype=float)
    reward = run.parents.get("reward")
    scored = [one.run for one in study.runs.finished("score") if one.parents.get("reward") == reward]
    rows = study.samples[study.samples["run"].isin(scored)].dropna(subset=column)
    return rows.groupby("id")[column].first()
