"""The rows that claims are tested on: long tables, one row per observation, that name posts and runs.

Every source has the columns ``id`` (the post: what the bootstrap resamples), ``key`` (what is compared
like with like: the post, or a labelled pair), ``cell`` and ``run``, selectors that tell groups apart,
and values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from eval.best_of_n.judged import judged_picks
from eval.best_of_n.measure import best_of_n_values
from eval.best_of_n.pool import POOL_FILE, load_pool
from eval.claims.contrast import Missing
from eval.claims.judges import probe_rows, same_policy_rows, valid_rows
from eval.common.rows import runs_by_name, settings_of
from eval.common.runs import StudyRun
from eval.common.study import StudyResults
from eval.common.tables import group_columns
from eval.overoptimisation.sweeps import BETAS, find_sweeps
from eval.preference.measure import RM, PreferenceScorer, preferred, scorers_of, wins
from eval.ratings.measure import AXES
from eval.ratings.section import ratings
from eval.reward.scored_pairs import RewardModel, main_scorer, reward_models, scorer_name
from eval.rouge.section import rouge_scores
from eval.texts.measure import MEASURES
from eval.texts.samples import measured_samples
from tldr.measures.best_of_n import best_of_n_kl, doublings
from tldr.records import Sample, read_records

Selector = dict[str, str | float | bool]
"""Column -> the value that the rows must have; "lowest" and "highest" select the extreme value."""


class Evidence:
    """The sources of a study, each made once and only when a claim asks for it.

    Args:
        scorer: whose ``preference`` the samples carry; None: the first of `headline_scorers`, if any.
    """

    def __init__(self, study: StudyResults, scorer: PreferenceScorer | None = None):
        self.study = study
        self.scorer = scorer or next(iter(headline_scorers(study)), None)
        self._made: dict[str, pd.DataFrame | Missing] = {}

    def source(self, name: str) -> pd.DataFrame:
        """A source's whole table.

        Raises:
            Missing: the study holds no such runs.
        """
        if name not in self._made:
            try:
                self._made[name] = SOURCES[name](self)
            except Missing as missing:
                self._made[name] = missing
        found = self._made[name]
        if isinstance(found, Missing):
            raise found
        return found

    def rows(self, source: str, selector: Selector, value: str) -> pd.DataFrame:
        """The rows that a selector means, with `value` among their columns.

        For a preference the choice is among the rows that have one: judges need not have seen all samples.

        Raises:
            Missing: no such rows, or nothing in the study gives such a value.
        """
        table = self.source(source)
        if value == "preference" and value in table:
            table = table[table[value].notna()]
        return self.valued(source, select(table, selector), value)

    def valued(self, source: str, rows: pd.DataFrame, value: str) -> pd.DataFrame:
        """Rows of a source with `value` among their columns.

        Raises:
            Missing: nothing in the study gives such a value.
        """
        if value not in rows and value in DERIVED:
            rows = DERIVED[value](self, rows)
        if value not in rows:
            raise Missing(f"{source} carry no {value.replace('_', ' ')}")
        return rows

    @cached_property
    def policies(self) -> dict[str, dict[str, Any]]:
        """Of every run made from a PPO policy: its beta, value network and reward model."""
        by_name = runs_by_name(self.study.runs)
        found = {}
        for run in self.study.runs.runs:
            policy = run if run.stage == "ppo" else by_name.get(run.parents.get("policy", ""))
            if policy is None or policy.stage != "ppo":
                continue
            settings, reward = settings_of(policy), by_name.get(policy.parents.get("reward", ""))
            found[run.run] = {
                "beta": settings.get("beta"),
                "value_network": settings.get("value_network", "separate"),
                "optimised": scorer_name(reward.size, reward.variant) if reward else "",
            }
        return found


def headline_scorers(study: StudyResults) -> list[PreferenceScorer]:
    """Whose preference tests the claims, in order: planted labelers, people, judges.

    A reward model is none of them: what it prefers is a claim of its own (``rm_preference``).
    """
    return [] if study.samples is None else [one for one in scorers_of(study.samples) if one != RM]


def select(table: pd.DataFrame, selector: Selector) -> pd.DataFrame:
    """Rows of `table` that a selector means; exact values first, then the extremes of what is left.

    Raises:
        Missing: no such rows.
    """
    extremes = {name: value for name, value in selector.items() if value in ("lowest", "highest")}
    for name, value in selector.items():
        if name not in extremes:
            table = table[table[name] == value] if name in table else table.iloc[:0]
    for name, end in extremes.items():
        numbers = pd.to_numeric(table[name]) if name in table else pd.Series(dtype=float)
        table = table[numbers == (numbers.min() if end == "lowest" else numbers.max())]
    if table.empty:
        named = ", ".join(f"{name} {value}".strip() for name, value in selector.items() if value != "")
        raise Missing(f"nothing with {named}")
    return table


def _samples(evidence: Evidence) -> pd.DataFrame:
    """Every scored sample; ``preference`` is the scorer's: a probability, or a share of verdicts."""
    samples = evidence.study.samples
    if samples is None:
        raise Missing("no samples")
    table = group_columns(samples)
    table = table.assign(key=table["id"])
    about = pd.DataFrame.from_dict(
        evidence.policies, orient="index", columns=["beta", "value_network", "optimised"]
    )
    table = table.join(about, on="run")
    if evidence.scorer is not None:
        table["preference"] = preferred(table, evidence.scorer)
    if RM in scorers_of(table):
        table["rm_preference"] = wins(table, RM)["expected"]
    return table.rename(columns=lambda name: name.removeprefix("score."))


def _sweep(evidence: Evidence) -> pd.DataFrame:
    """Policies trained with different KL coefficients against one reward model, sampled at T = 1.

    ``kl``: nats from the SFT policy, mean over the cells of the mean over a coefficient's samples (P Fig. 5);
    the SFT policy is the point at 0. ``rm_preference`` is by the reward model that was optimised.
    """
    parts = []
    for sweep in find_sweeps(evidence.study):
        rows = sweep.samples
        beta = rows["beta"].fillna(np.inf)  # an infinite penalty leaves the start unchanged
        drift = (rows["logprob"] - rows["logprob_sft"]).groupby([beta, rows["cell"]]).mean()
        drift = drift.groupby(level=0).mean()
        table = rows.assign(
            key=rows["id"],
            sweep=sweep.name,
            optimised=rows["run"].map({run: about["optimised"] for run, about in evidence.policies.items()}),
            beta=beta,
            kl=beta.map(drift).where(np.isfinite(beta), 0.0),
            rm_preference=expit(rows["score.proxy"] - rows["score.proxy_reference"]),
        )
        if evidence.scorer in scorers_of(table):
            table["preference"] = preferred(table, evidence.scorer)
        parts.append(table.rename(columns=lambda name: str(name).removeprefix("score.")))
    if not parts:
        raise Missing("no PPO policies of one size that differ in beta alone, sampled at T = 1")
    return pd.concat(parts, ignore_index=True)


def _rollouts(evidence: Evidence) -> pd.DataFrame:
    """Rollouts of a PPO run along its training: ``rm`` (the proxy), ``gold``, by iteration.

    Runs of one cell draw the same prompts, so the key is post and iteration. ``swept``: the run is one
    of a sweep of KL coefficients.
    """
    tables = []
    for run in evidence.study.runs.finished("ppo"):
        found: list[dict[str, Any]] = []
        path = run.folder / "rollouts.jsonl"
        about = evidence.policies[run.run] | {"size": run.size, "params": run.params, "variant": run.variant}
        for sample in read_records(path, Sample) if path.is_file() else []:
            iteration = sample.tags.get("iteration")
            named = {"id": sample.id, "key": f"{sample.id} {iteration}", "run": run.run, "cell": run.cell}
            found.append({**named, **about, "iteration": iteration, **sample.scores})
        if found:
            made = pd.DataFrame(found)
            tables.append(made.assign(id=run.post_ids(made["id"])))
    if not tables:
        raise Missing("no rollouts")
    table = pd.concat(tables, ignore_index=True)
    betas = table.groupby(["size", "optimised"])["beta"].transform("nunique")
    return table.assign(swept=betas >= BETAS)


def _pool(evidence: Evidence) -> pd.DataFrame:
    """Best of n by every chooser, for n = 1, 2, 4, ..: what each post can expect (unbiased estimator).

    By the verdicts of people or a judge ``preference`` is theirs, of one draw (`judged_picks`).
    """
    models = reward_models(evidence.study.runs)
    runs = evidence.study.runs.finished("best_of_n")
    parts = [_best_of(run, models, evidence) for run in runs if (run.folder / POOL_FILE).is_file()]
    if not parts:
        raise Missing("no pools of best-of-N samples")
    return pd.concat(parts, ignore_index=True)


def _best_of(run: StudyRun, models: dict[str, RewardModel], evidence: Evidence) -> pd.DataFrame:
    pool = load_pool(run.folder / POOL_FILE)
    pool["id"] = run.post_ids(pool["id"])
    total = int(pool.groupby("id", observed=True).size().max())
    counts = [n for n in doublings(total) if n.bit_count() == 1]
    main = main_scorer(evidence.study.runs, run)
    values = {"gold_preference": "preference", "gold": "gold", "rm": "rm"}
    choosers = [name for name in map(str, pool) if name in ("rouge", "rm") or name.startswith("rm_")]
    parts = []
    for chooser in choosers:
        worth = {
            name: best_of_n_values(pool, chooser, old, counts) for old, name in values.items() if old in pool
        }
        worth["choice"] = best_of_n_values(pool, chooser, chooser, counts)
        posts = worth["choice"][1]
        model = models.get(main if chooser == "rm" else chooser)
        about = {"chooser_params": model and model.params, "chooser_rankings": model and model.rankings}
        for place, n in enumerate(counts):
            columns = {name: matrix[:, place] for name, (matrix, _) in worth.items()}
            parts.append(pd.DataFrame({"id": posts, "n": n, "chooser": chooser, **about, **columns}))
    table = pd.concat(parts, ignore_index=True)
    if evidence.scorer is not None and evidence.scorer.verdicts:
        judged = judged_picks(evidence.study, run, pool, evidence.scorer)
        table = table.drop(columns="preference", errors="ignore")
        if len(judged):
            judged = judged.rename(columns={"preferred": "preference"})
            table = table.merge(judged, on=["id", "n", "chooser"], how="left")
    return table.assign(
        key=table["id"],
        kl=best_of_n_kl(table["n"]),
        pool=total,
        from_4=table["n"] >= 4,
        run=run.run,
        cell=run.cell,
        size=run.size,
        params=run.params,
    )


def _ratings(evidence: Evidence) -> pd.DataFrame:
    """1-7 ratings of summaries of posts, a row per rating and axis."""
    table = ratings(evidence.study)
    if table.empty or table["article"].all():
        raise Missing("no ratings")
    table = table[~table["article"].astype(bool)].rename(columns=lambda name: str(name).removeprefix("tag."))
    return table.assign(key=table["id"]).melt(
        ["id", "key", "policy", "method", "size", "params", "variant", "run", "cell"],
        list(AXES),
        var_name="axis",
        value_name="rating",
    )


def _measured(evidence: Evidence, rows: pd.DataFrame) -> pd.DataFrame:
    measured = measured_samples(evidence.study)
    return rows.assign(**{name: measured.loc[rows.index, name] for name in MEASURES if name in measured})


def _with_rouge(evidence: Evidence, rows: pd.DataFrame) -> pd.DataFrame:
    scores = rouge_scores(evidence.study)
    if scores.empty:
        raise Missing("no references to compare with")
    return rows.assign(rouge_mean=scores.loc[rows.index, "rouge_mean"])


SOURCES: dict[str, Callable[[Evidence], pd.DataFrame]] = {
    "samples": _samples,
    "sweep": _sweep,
    "rollouts": _rollouts,
    "pool": _pool,
    "ratings": _ratings,
    "valid pairs": lambda evidence: valid_rows(evidence.study),
    "same-policy pairs": lambda evidence: same_policy_rows(evidence.study),
    "probes": lambda evidence: probe_rows(evidence.study),
}

DERIVED: dict[str, Callable[[Evidence, pd.DataFrame], pd.DataFrame]] = {
    "copying": _measured,
    "words": _measured,
    "log_length_ratio": _measured,
    "rouge_mean": _with_rouge,
}
"""Values worked out of the texts of those rows alone that a claim compares."""

UNITS = {
    "preference": "share preferred to the reference",
    "rm_preference": "share preferred to the reference by the reward model",
    "gold": "planted utility",
    "rm": "reward-model score",
    "choice": "score of the chooser",
    "copying": "share of summary bigrams",
    "rouge_mean": "mean F of ROUGE-1, -2, -L",
    "rating": "points of 1-7",
    "hit": "share of labelled pairs",
}


def matched_on(source: str, varied: Sequence[str]) -> list[str]:
    """The columns that rows of a source are matched on within a cell, without those that a claim varies."""
    on = ["key"] if source in ("valid pairs", "same-policy pairs", "probes") else ["key", "size"]
    by_size = {"size", "params"} & set(varied)
    return [name for name in on if name not in varied and not (by_size and name == "size")]
