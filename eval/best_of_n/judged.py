"""Best of N by the verdicts of people and judges: the paper's Fig. 7, whose preferences are people's.

A judge sees one draw of the best of N on some of a pool's posts: the best of its first N samples
(`tldr.measures.best_of_n.first_best`), each text once. What it says of a text counts wherever that is best.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from eval.best_of_n.largest import Pool, largest_pools
from eval.best_of_n.pool import POOL_FILE, pool_texts
from eval.common.rows import FurtherResult, further_table
from eval.common.runs import StudyRun
from eval.common.stats import Estimate, cellwise, share
from eval.common.study import StudyResults, once
from eval.common.tables import named
from eval.judge.verdicts import PEOPLE, read_pool_verdicts
from eval.preference.measure import UNIT, PreferenceScorer
from tldr.measures.best_of_n import best_of_n_kl, doublings, first_best, pool_choosers

MEASURE = "judged_preference"


@once
def pool_verdicts(study: StudyResults) -> pd.DataFrame:
    """Verdicts on the best of pools (`eval.judge.verdicts.read_pool_verdicts`)."""
    return read_pool_verdicts(study.runs)


def pool_judges(study: StudyResults) -> list[PreferenceScorer]:
    """Who judged the best of pools, people first."""
    names = sorted(pool_verdicts(study)["judge"].unique(), key=lambda name: (name != PEOPLE, name))
    return [PreferenceScorer.of_judge(name) for name in names]


def judged_picks(
    study: StudyResults, run: StudyRun, pool: pd.DataFrame, scorer: PreferenceScorer
) -> pd.DataFrame:
    """What a judge says of a pool's best of the first n samples, by every chooser.

    A post is left out for a chooser if one of its best has no verdict, such as an empty text that people are
    not asked about: all n are of the same posts.

    Args:
        pool: the run's, as `eval.best_of_n.pool.load_pool` reads it, its ids marked with the run's world.

    Returns:
        A row each post, chooser and n: ``id``, ``chooser``, ``n``, ``preferred`` (share of the verdicts that
        are for it, 0..1); none where the judge did not see the pool.
    """
    verdicts = pool_verdicts(study)
    rows = verdicts[verdicts["judge"] == scorer.label].to_dict("records")
    seen = {
        (row["id"], row["text"]): float(row["preferred"]) for row in rows if run.run in row["runs"].split()
    }
    columns = {"id": str, "chooser": str, "n": int, "preferred": float}
    parts = [pd.DataFrame(columns=list(columns)).astype(columns)]
    ids = pool["id"].astype(str)
    judged = pool.assign(id=ids)[ids.isin({post for post, _ in seen})]
    plain = {post: post.removeprefix(f"{run.world}:") for post in judged["id"].unique()}
    texts = pool_texts(run.folder / POOL_FILE, set(plain.values())) if plain else {}
    for post, samples in judged.groupby("id", sort=False):
        parts += _of_post(str(post), samples, texts[plain[str(post)]], seen)
    return pd.concat(parts[1:] or parts, ignore_index=True)


def _of_post(
    post: str, rows: pd.DataFrame, texts: list[str], seen: dict[tuple[str, str], float]
) -> list[pd.DataFrame]:
    choosers, counts = pool_choosers(map(str, rows)), doublings(len(rows))
    places = first_best(rows[choosers].to_numpy(dtype=np.float64).T, counts)
    parts = []
    for chooser, picked in zip(choosers, places.tolist(), strict=True):
        shares = [seen.get((post, texts[place].strip())) for place in picked]
        if None not in shares:
            parts.append(pd.DataFrame({"id": post, "chooser": chooser, "n": counts, "preferred": shares}))
    return parts


@once
def judged_best_of_n_table(study: StudyResults) -> pd.DataFrame:
    """Share of the best of the first N preferred to the reference, by every chooser and judge: Fig. 7.

    Returns:
        Result columns (``measure``: `MEASURE`, ``scorer``: the judge, ``selected_by``: the chooser,
        ``best_of``: N, ``n``: posts judged) and ``kl``, nats from the policy the pool was drawn from; empty
        where no judge saw a pool.
    """
    rows: list[FurtherResult] = []
    for scorer in pool_judges(study):
        for pool in largest_pools(study):
            rows += _of_pool(study, scorer, pool)
    return further_table(rows, "kl")


def _of_pool(study: StudyResults, scorer: PreferenceScorer, pool: Pool) -> list[FurtherResult]:
    runs = [run for run in study.runs.finished("best_of_n") if run.run in pool.runs]
    of_cells = [pool.samples[pool.samples["cell"] == run.cell] for run in runs]
    picks = pd.concat(
        [
            judged_picks(study, run, samples, scorer).assign(cell=run.cell, run=run.run)
            for run, samples in zip(runs, of_cells, strict=True)
        ],
        ignore_index=True,
    )
    rows: list[FurtherResult] = []
    for chooser in pool.choosers:
        chosen = picks[picks["chooser"] == chooser]
        for n in pool.counts if len(chosen) else ():
            part = chosen[chosen["n"] == n]
            estimate = cellwise(part, _preferred, study.draws)[MEASURE]
            result = named(
                MEASURE, UNIT, estimate, sorted(part["run"].unique()), method="best_of_n",
                scorer=scorer.name, size=pool.run.size, params=pool.run.params, variant=pool.run.variant,
                selected_by=chooser, best_of=n, temperature=pool.temperature,
            )  # fmt: skip
            rows.append((result, {"kl": float(best_of_n_kl(n))}))
    return rows


def _preferred(rows: pd.DataFrame, _: int) -> dict[str, Estimate]:
    return {MEASURE: share(rows["preferred"], rows["id"])}
