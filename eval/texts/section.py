"""ROUGE, length, copying and wording of every policy; ROUGE by size as the paper's Fig. 14."""

from __future__ import annotations

import pandas as pd

from eval.common.rows import intervals
from eval.common.study import Section, StudyResults, once, plain_table, results_table, without
from eval.common.tables import POOLED, result_table
from eval.rouge.section import add_rouge, rouge_table
from eval.texts import measure as lengths
from eval.texts.samples import measured_samples


@once
def text_table(study: StudyResults) -> pd.DataFrame:
    """Result table of `eval.texts.measure.MEASURES` of every policy and baseline, over cells."""
    measured = measured_samples(study)
    return result_table(
        lengths.length_results(measured, by=POOLED, draws=study.draws) if len(measured) else []
    )


def text_section(study: StudyResults) -> Section:
    """ROUGE, length, stopping, KL, copying and repetition of every policy, beside plain baselines."""
    section = Section(
        "text",
        "Texts: ROUGE, length, copying",
        "ROUGE with the reference is given for comparison with other work; it does not measure preference "
        "(paper, section 4.4). Length is given in tokens (end of text included), words and characters.",
    )
    if study.samples is None:
        return without(section)
    scores = rouge_table(study)
    if len(scores):
        add_rouge(study, section, scores)
    texts = text_table(study)
    caption = f"Length, stopping, KL to the supervised start, repetition and copying; {intervals(texts)}."
    section.tables.append(results_table("texts", texts, caption))
    caption = "Distinct words and word pairs; comparable only between equal numbers of samples and cells."
    distinct = lengths.distinct_table(measured_samples(study), by=POOLED).round(4)
    section.tables.append(plain_table("distinct", distinct, caption))
    note = "ROUGE and copying: not run here, as the posts with references (valid2.jsonl) are not at hand."
    return section if len(scores) else without(section, note)
