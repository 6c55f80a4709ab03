"""ROUGE of every policy, and by size as the paper's Fig. 14: a part of the section on texts."""

from __future__ import annotations

import pandas as pd

from eval.common.rows import bars
from eval.common.study import Picture, Section, StudyResults, Table, once, published
from eval.common.tables import POOLED, result_table, wide
from eval.rouge.figure import rouge_by_size
from eval.rouge.measure import resolve_backend, rouge, rouge_means
from eval.texts.samples import has_references, measured_samples


@once
def rouge_scores(study: StudyResults) -> pd.DataFrame:
    """`rouge` of every row of `measured_samples` but the references; empty without references."""
    measured = measured_samples(study)
    if measured.empty or study.posts is None or not has_references(study):
        return pd.DataFrame()
    samples = measured[measured["policy"] != "reference"]
    scores = rouge(study.posts.loc[samples["id"], "summary"].tolist(), samples["text"].tolist())
    return scores.set_index(samples.index)


@once
def rouge_table(study: StudyResults) -> pd.DataFrame:
    """Result table of ROUGE against the reference, of every policy and of title and lead-2.

    Measures are `eval.rouge.measure.MEASURES`, 0-1, without stemming; over cells. Empty without references.
    """
    scores = rouge_scores(study)
    if scores.empty:
        return result_table([])
    samples = measured_samples(study).loc[scores.index]
    return result_table(rouge_means(samples, scores, by=POOLED, draws=study.draws))


def add_rouge(study: StudyResults, section: Section, table: pd.DataFrame) -> None:
    """Add the figure and the table of `rouge_table` to a section."""
    how = f"No stemming; {resolve_backend()}; sentences are not split."
    if table["params"].notna().any():
        picture = rouge_by_size(table, published(study.paper, "fig14", "fig14a"))
        caption = (
            "ROUGE F1 against the reference, mean of ROUGE-1, -2 and -L, at the lowest temperature sampled; "
            f"{bars(table)}. {how} The paper names no variant (T = 0); this mean is the "
            "likely one."
        )
        section.pictures.append(Picture("rouge", picture, caption))
    caption = (
        "ROUGE F1 against the reference; rouge_mean = mean of ROUGE-1, -2 and -L (probably what the paper's "
        f"Fig. 14 plots). {how} Precision and recall are in the CSV file."
    )
    shown = wide(table[table["measure"].str.endswith(("_f", "_mean"))])
    section.tables.append(Table("rouge", table, caption, shown))
