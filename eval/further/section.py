"""Further reporting sets, such as the test posts: ROUGE and the reward model's preference, each set apart."""

from __future__ import annotations

import pandas as pd

from eval.common.rows import intervals
from eval.common.runs import NEWS, study_posts, study_samples
from eval.common.study import Section, StudyResults, Table, results_table, without
from eval.common.tables import POOLED, result_table, wide
from eval.preference.measure import preference, reference_scorers
from eval.rouge.measure import resolve_backend, rouge, rouge_means

NAMES = {"test": "test posts", "validation_unmarked": "validation posts that no comparison marks"}


def further_section(study: StudyResults) -> Section:
    """The policies on further posts: nothing of it is in any other table of samples."""
    section = Section(
        "further",
        "Further posts",
        "The same policies on posts that are neither selected on nor part of the main evaluation. Agreement "
        "with the main tables shows that those depend on no choice of posts.",
    )
    names = sorted({run.dataset for run in study.runs.runs} - {"", NEWS})
    for name in names:
        samples, posts = study_samples(study.runs, name), study_posts(study.runs, f"{name}.jsonl")
        if samples is not None and posts is not None:
            _add_set(study, section, name, samples, posts)
    return section if section.tables else without(section)


def _add_set(
    study: StudyResults, section: Section, name: str, samples: pd.DataFrame, posts: pd.DataFrame
) -> None:
    what = f"{posts.loc[samples['id'].unique()].shape[0]:,} {NAMES.get(name, name)}"
    scores = rouge(posts.loc[samples["id"], "summary"].tolist(), samples["text"].tolist())
    table = result_table(rouge_means(samples, scores.set_index(samples.index), by=POOLED, draws=study.draws))
    caption = (
        f"ROUGE F1 against the reference on {what}, at the lowest temperature. No stemming; "
        f"{resolve_backend()}; {intervals(table)}."
    )
    shown = wide(table[table["measure"].str.endswith(("_f", "_mean"))])
    section.tables.append(Table(f"rouge_{name}", table, caption, shown))
    found = [
        result
        for scorer in reference_scorers(samples)
        for result in preference(samples, scorer, by=POOLED, draws=study.draws)
    ]
    if found:
        caption = f"Preference to the reference by the reward model, on {what}."
        section.tables.append(results_table(f"preference_{name}", result_table(found), caption))
