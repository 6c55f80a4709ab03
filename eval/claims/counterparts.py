"""The study's results that published numbers are set beside: result tables under the names claims use."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from eval.best_of_n.judged import judged_best_of_n_table
from eval.best_of_n.largest import largest_pools
from eval.best_of_n.section import best_of_n_table
from eval.claims.contrast import Missing, runs_of
from eval.claims.judges import same_policy_rows
from eval.common.stats import Estimate, cellwise, mean, share
from eval.common.study import StudyResults, once, policy_names
from eval.common.tables import named
from eval.judge.verdicts import COMPARISONS, JUDGEMENTS
from eval.length.section import length_controlled_table
from eval.news.section import news_rouge_table
from eval.overoptimisation.section import kl_sweep_table
from eval.probes.section import probe_table
from eval.ratings.section import article_length_table, article_rating_table, rating_table
from eval.reward.scored_pairs import reward_models
from eval.reward.section import reward_accuracy_table, reward_breakdown_table, reward_slope_table
from eval.rouge.section import rouge_table
from eval.texts.section import text_table
from eval.training.section import value_network_table


@once
def judged_preference(study: StudyResults) -> pd.DataFrame:
    """Preference to the reference by the verdicts in the study's folder (P Fig. 1), by judge and policy.

    The reward model's own preference is no counterpart of people's, so it is not here.
    """
    verdicts = study.verdicts.table
    if verdicts.empty:
        raise Missing(
            f"no judge or person compared summaries (no {JUDGEMENTS}, no {COMPARISONS} in the study)"
        )
    cells = {run.run: run.cell for run in study.runs.runs}
    of_run = [next((cells[run] for run in runs.split() if run in cells), "0") for runs in verdicts["runs"]]
    results = []
    for (judge, policy), rows in verdicts.assign(cell=of_run).groupby(["judge", "policy"], sort=False):
        estimate, runs = cellwise(rows, _preferred)["preference"], " ".join(rows["runs"]).split()
        unit = "share preferred to the reference"
        made = named("preference", unit, estimate, runs, scorer=str(judge), policy=str(policy))
        results.append(vars(made) | policy_names(study, str(policy)))
    table = pd.DataFrame(results)
    return table.assign(runs=table["runs"].map(" ".join))


def _preferred(rows: pd.DataFrame, _: int) -> dict[str, Estimate]:
    return {"preference": share(rows["preferred"], rows["id"])}


@once
def chosen(study: StudyResults) -> pd.DataFrame:
    """Best-of-N with the size and labels of the reward model that chose."""
    judged, models = judged_best_of_n_table(study), reward_models(study.runs)
    table = best_of_n_table(study)
    table = pd.concat([table, judged], ignore_index=True) if len(judged) else table
    main = table["size"].map({pool.run.size: pool.scorer for pool in largest_pools(study)})
    choosers = table["selected_by"].where(table["selected_by"] != "rm", main)
    about = {scorer: (model.params, model.rankings) for scorer, model in models.items()}
    known = [about.get(str(name), (None, None)) for name in choosers]
    columns = ["chooser_params", "chooser_rankings"]
    return table.join(pd.DataFrame(known, index=table.index, columns=columns))


@once
def labeler_agreement(study: StudyResults) -> pd.DataFrame:
    """How often each judge of same-policy pairs agrees with a labeler; the measure is the judge."""
    made = []
    groups = ["judge", "method", "params", "policy_params"]
    for names, rows in same_policy_rows(study).dropna(subset="hit").groupby(groups, dropna=False):
        estimate = cellwise(rows, _mean_hit)["hit"]
        about = dict(zip(["measure", *groups[1:]], names, strict=True))
        shown = {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}
        shown["cells"] = estimate.cells
        made.append({**about, **shown, "unit": "share of labels", "runs": " ".join(runs_of([rows]))})
    return pd.DataFrame(made)


def _mean_hit(rows: pd.DataFrame, _: int) -> dict[str, Estimate]:
    return {"hit": mean(rows["hit"], rows["id"])}


@once
def news_length(study: StudyResults) -> pd.DataFrame:
    """The columns of Table 14, one row per policy and measure."""
    table = article_length_table(study)
    parts = []
    for measure, column, unit in (
        ("length_characters", "length", "characters"),
        ("length_sd", "length_sd", "characters"),
        ("quality", "rating", "points of 1-7"),
        ("gain_per_100_characters", "per_100", "points of 1-7"),
    ):
        bounds = {end: table.get(f"{column}_{end}", pd.Series(dtype=float)) for end in ("low", "high")}
        named = {"value": table.get(column), "measure": measure, "unit": unit}
        parts.append(table[["policy", "n", "cells", "runs"]].assign(**named, **bounds))
    long = pd.concat(parts, ignore_index=True)
    names = [policy_names(study, policy) for policy in long["policy"]]
    return long.assign(method=[n["method"] for n in names], params=[n["params"] for n in names])


TABLES: dict[str, Callable[[StudyResults], pd.DataFrame]] = {
    "judged preference": judged_preference,
    "preference at equal length": length_controlled_table,
    "ratings": rating_table,
    "ratings of news": article_rating_table,
    "ratings of news by length": news_length,
    "ROUGE": rouge_table,
    "ROUGE of news": news_rouge_table,
    "lengths": text_table,
    "reward-model accuracy": reward_accuracy_table,
    "reward-model accuracy by group": reward_breakdown_table,
    "gain by doubling": reward_slope_table,
    "best of N": chosen,
    "KL sweep": kl_sweep_table,
    "value networks": value_network_table,
    "agreement with labelers": labeler_agreement,
    "probes": probe_table,
}
"""By the name that `NumberRule.table` uses."""
