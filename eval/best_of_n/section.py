"""Best of N by every chooser: the paper's Fig. 7."""

from __future__ import annotations

import pandas as pd

from eval.best_of_n.figure import best_of_n_by_chooser
from eval.best_of_n.judged import judged_best_of_n_table, pool_judges
from eval.best_of_n.largest import RM_PREFERENCE, Pool, largest_pools
from eval.best_of_n.measure import best_of_n_curve
from eval.common.rows import FurtherResult, bars, crossed, further_table, intervals, row_estimate
from eval.common.study import Picture, Section, StudyResults, Table, once, published, without
from eval.common.tables import named
from eval.preference.measure import PreferenceScorer
from eval.reward.scored_pairs import reward_models

GOLD_SHARE = "share preferred to the reference"
RM_SHARE = "share preferred to the reference by the reward model"
SHARES = ("gold_expected_preference", "rm_expected_preference")
"""Measures that the figure draws, the first that there is."""


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
    for judge in pool_judges(study):
        _add_judge(study, section, judge, paper)
    return section


def _add_judge(
    study: StudyResults, section: Section, judge: PreferenceScorer, paper: pd.DataFrame | None
) -> None:
    """The figure and the table once more, by the verdicts of people or a judge."""
    table = judged_best_of_n_table(study)
    table = table[table["scorer"] == judge.name]
    if table.empty:
        section.missing.append(f"By {judge.label}: it judged pools that are not the study's largest ones.")
        return
    drawn = table[~table["selected_by"].isin(_left_out(study))]
    panels = {f"Policy {size}, by {judge.label}": part for size, part in drawn.groupby("size", sort=False)}
    posts = " to ".join(f"{count:,}" for count in sorted({table["posts"].min(), table["posts"].max()}))
    caption = (
        f"Share of the verdicts by {judge.label} that prefer the best of the first N samples to the "
        f"reference, over {posts} posts; {bars(table)}. One draw of the best of N a post, not the mean over "
        "all draws, as each text is judged by itself. The paper's human evaluation is digitised; its "
        "standard errors are 2 to 5 points."
    )
    name = f"best_of_n_{judge.file}"
    section.pictures.append(Picture(name, best_of_n_by_chooser(panels, paper, judged=True), caption))
    caption = f"Best of the first N by {judge.label}; n: posts judged; {intervals(table)}."
    section.tables.append(_shown(table, name, caption))


def _left_out(study: StudyResults) -> set[str]:
    """Reward models that are not drawn: all variants of a size but one, which is one that policies were
    trained against (the paper's rm3), else the one with the fewest labels."""
    others = [model for model in reward_models(study.runs).values() if model.variant]
    optimised = {run.parents.get("reward", "") for run in study.runs.finished("ppo")}
    order = sorted(others, key=lambda m: (not optimised.isdisjoint(m.runs), -(m.rankings or 0)))
    drawn = {model.size: model.scorer for model in order}
    return {model.scorer for model in others} - set(drawn.values())


def _shown(table: pd.DataFrame, name: str = "best_of_n", caption: str = "") -> Table:
    """One row per policy, chooser and measure, one column an N."""
    index = ["size", "params", "selected_by", "measure", "n", "posts", "cells", "runs"]
    shown = crossed(table, index, "best_of")
    shown = shown.rename(columns=lambda name: f"N = {name}" if isinstance(name, int) else name)
    caption = caption or f"Best of N by every chooser; n: samples in the pool; {intervals(table)}."
    return Table(name, table, caption, shown)
