"""Preference by the supervised policy's temperature and top-p: the paper's Fig. 8."""

from __future__ import annotations

import pandas as pd

from eval.common.rows import bars
from eval.common.study import (
    Picture,
    Section,
    StudyResults,
    once,
    published,
    results_table,
    without,
)
from eval.preference.section import preference_table, scorers
from eval.sampling.figure import sampling_sweeps


@once
def sampling_table(study: StudyResults) -> pd.DataFrame:
    """Preference of the supervised policies at every temperature and top-p, over cells.

    Rows of `eval.preference.section.preference_table`: the temperature sweep has ``top_p`` 1, the
    nucleus sweep ``temperature`` 1.
    """
    table = preference_table(study)
    return table[(table["method"] == "sft") & (table["variant"] == "")].reset_index(drop=True)


def sampling_section(study: StudyResults) -> Section:
    """Preference of the supervised policies against temperature and against top-p."""
    section = Section(
        "sampling",
        "Temperature and nucleus sampling",
        "How often the supervised policies are preferred to the reference at each temperature, and at "
        "temperature 1 when they sample from the smallest set of tokens with probability top-p (paper, "
        "Fig. 8).",
    )
    table = sampling_table(study)
    papers = [published(study.paper, "fig8", item) for item in ("fig8_temperature", "fig8_top_p")]
    swept = table["temperature"].nunique() > 1 or table["top_p"].nunique() > 1
    for scorer in scorers(study) if swept else []:
        rows = table[(table["scorer"] == scorer.name) & (table["measure"] == scorer.main_measure)]
        name = scorer.label
        picture = sampling_sweeps(rows, *papers, title=f"Supervised policies, by {name}")
        caption = (
            f"{scorer.main_measure.replace('_', ' ').capitalize()} by {name}; {bars(rows)}. "
            "Black: the paper's human evaluation, digitised; bars: 1.96 standard errors."
        )
        section.pictures.append(Picture(f"sampling_{scorer.file}", picture, caption))
        by_scorer = table[table["scorer"] == scorer.name]
        section.tables.append(results_table(f"sampling_{scorer.file}", by_scorer, f"By {name}, over cells."))
    if swept:
        return section
    if papers[0] is not None:
        picture = sampling_sweeps(table.iloc[:0], *papers, title="Published: Stiennon et al. 2020, Fig. 8")
        caption = "The paper's human evaluation, digitised; bars: 1.96 standard errors."
        section.pictures.append(Picture("sampling", picture, caption))
    return without(section)
