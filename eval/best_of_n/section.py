"""Best of N by every chooser: the paper's Fig. 7."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from scipy.special import expit

from eval.best_of_n.figure import best_of_n_by_chooser
from eval.best_of_n.measure import best_of_n_curve
from eval.best_of_n.pool import POOL_FILE, load_pool
from eval.common.rows import FurtherResult, bars, crossed, further_table, intervals, row_estimate, settings_of
from eval.common.runs import StudyRun
from eval.common.study import Picture, Section, StudyResults, Table, once, published, without
from eval.common.tables import named
from eval.reward.scored_pairs import main_scorer, reward_models

CHOOSERS = ("rm", "rouge", "length", "gold")
"""Further ones are other reward models, ``rm_<name>``."""
GOLD_SHARE = "share preferred to the reference"
RM_SHARE = "share preferred to the reference by the reward model"
RM_PREFERENCE = "preference.rm"
"""Column of a pool without planted truth: sigma of the main reward model's score minus the reference's."""
SHARES = ("gold_expected_preference", "rm_expected_preference")
"""Measures that the figure draws, the first that there is."""


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
        names = [str(name) for name in self.samples]
        models = [name for name in names if name.startswith("rm_") and not name.endswith("_reference")]
        return [name for name in CHOOSERS if name in names] + [
            name for name in models if not (twice and name == self.scorer)
        ]

    @property
    def counts(self) -> list[int]:
        """Powers of two up to N, and N itself."""
        powers = [2**power for power in range(self.total.bit_length()) if 2**power <= self.total]
        return powers if powers[-1] == self.total else [*powers, self.total]


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


@once
def best_of_n_table(study: StudyResults) -> pd.DataFrame:
    """The value of the best of N by each chooser, at every power of two: Fig. 7.

    Measures: ``gold_expected_preference`` (mean planted probability of being preferred to the
    reference), ``gold_score``; where nothing is planted ``rm_expected_preference``, the same as the main
    reward model says; and ``chooser_score``, the chooser's own score, where it is a reward
    model. One pool of samples per post serves all N (`best_of_n_curve`).

    Returns:
        Result columns (``selected_by``: the chooser, ``best_of``: N, ``n``: samples in the pool) and
        ``kl``, nats from the policy the pool was drawn from.

    Raises:
        UsageError: pools of different N. RecordError: a broken pool.
    """
    rows: list[FurtherResult] = []
    for pool in largest_pools(study):
        for chooser in pool.choosers:
            rows += curve_rows(pool, chooser, study.draws)
    return further_table(rows, "kl")


def curve_rows(pool: Pool, chooser: str, draws: int, *, gain: bool = False) -> list[FurtherResult]:
    """One chooser's curves from a pool; with `gain` those of the scores, measured from N = 1."""
    values = {
        "gold_expected_preference": ("gold_preference", GOLD_SHARE),
        "gold_score": ("gold", "score"),
        "rm_expected_preference": (RM_PREFERENCE, RM_SHARE),
        "chooser_score": (chooser, "score"),
    }
    if gain:
        values = {"gold_gain": ("gold", "score"), "rm_gain": (chooser, "score")}
    rows: list[FurtherResult] = []
    for measure, (column, unit) in values.items():
        own = column == chooser and column != "gold"
        if column not in pool.samples or (own and not chooser.startswith("rm")):
            continue
        known = pool.samples.groupby("cell")[list({chooser, column})].transform("count").gt(0).all(axis=1)
        samples = pool.samples[known] if known.any() else pool.samples  # a cell may lack a reward model
        curve = best_of_n_curve(samples, chooser, column, pool.counts, gain=gain, draws=draws)
        for _, point in curve.assign(n=len(samples), best_of=curve["n"]).iterrows():
            result = named(
                measure, unit, row_estimate(point), pool.runs, method="best_of_n", scorer=column,
                size=pool.run.size, params=pool.run.params, variant=pool.run.variant, selected_by=chooser,
                best_of=int(point["best_of"]), temperature=pool.temperature,
            )  # fmt: skip
            rows.append((result, {"kl": float(point["kl"])}))
    return rows


def best_of_n_section(study: StudyResults) -> Section:
    """Best of N by reward models, ROUGE, length and the planted truth."""
    section = Section(
        "best_of_n",
        "Best of N",
        "The best of N samples of the supervised policy, chosen by a reward model, by ROUGE with the "
        "reference, or by length. Each post has one pool of samples for every N: a value is the mean over "
        "all ways to draw N samples from the pool.",
    )
    table, paper = best_of_n_table(study), published(study.paper, "fig7")
    found = [name for name in SHARES if (table["measure"] == name).any()]
    shares = table[table["measure"] == (found[0] if found else "")]
    if paper is not None or len(shares):
        drawn = shares[~shares["selected_by"].isin(_left_out(study))]
        panels = {f"Policy {size}": part for size, part in drawn.groupby("size", sort=False)}
        heat = ", ".join(f"{one:g}" for one in sorted(set(shares["temperature"].dropna())))
        drawn_from = f"pools drawn at T = {heat}; {bars(shares)}."
        said = {
            SHARES[0]: f"Mean planted probability of being preferred; {drawn_from} "
            "The planted truth as chooser is the upper bound for every chooser. ",
            SHARES[1]: f"Mean probability of being preferred, as the main reward model says; {drawn_from} "
            "It is no judge of what it chose itself: that line is the upper bound for every chooser. ",
        }
        caption = (
            said[found[0]]
            if found
            else "This study has no pool with preferences; only the paper's values are shown. "
        ) + "The paper's human evaluation is digitised; its standard errors are 2 to 5 points."
        section.pictures.append(Picture("best_of_n", best_of_n_by_chooser(panels, paper), caption))
    if table.empty:
        return without(section)
    section.tables.append(_shown(table))
    return section


def _left_out(study: StudyResults) -> set[str]:
    """Reward models that are not drawn: all variants of a size but one, which is one that policies were
    trained against (the paper's rm3), else the one with the fewest labels."""
    others = [model for model in reward_models(study.runs).values() if model.variant]
    optimised = {run.parents.get("reward", "") for run in study.runs.finished("ppo")}
    order = sorted(others, key=lambda m: (not optimised.isdisjoint(m.runs), -(m.rankings or 0)))
    drawn = {model.size: model.scorer for model in order}
    return {model.scorer for model in others} - set(drawn.values())


def _shown(table: pd.DataFrame) -> Table:
    """One row per policy, chooser and measure, one column an N."""
    index = ["size", "params", "selected_by", "measure", "n", "posts", "cells", "runs"]
    shown = crossed(table, index, "best_of")
    shown = shown.rename(columns=lambda name: f"N = {name}" if isinstance(name, int) else name)
    caption = f"Best of N by every chooser; n: samples in the pool; {intervals(table)}."
    return Table("best_of_n", table, caption, shown)
