"""ROUGE, length, copying and wording of every policy; ROUGE by size as the paper's Fig. 14."""

from __future__ import annotations

import pandas as pd

from eval.common.study import (
    Picture,
    Section,
    Study,
    Table,
    once,
    plain_table,
    published,
    results_table,
    without,
)
from eval.common.tables import POOLED, Measure, result_table, summarise, wide
from eval.rouge.figure import rouge_by_size
from eval.rouge.measure import VARIANTS, resolve_backend, rouge
from eval.texts import measure as lengths

ROUGE_MEASURES = ("rouge_mean", *(f"{variant}_{part}" for variant in VARIANTS for part in "fpr"))


def has_references(study: Study) -> bool:
    """Whether every reporting post is at hand with its reference."""
    return study.posts is not None and bool(study.posts["summary"].notna().all())


@once
def measured_samples(study: Study) -> pd.DataFrame:
    """All samples, and the plain baselines where the posts are at hand, with `eval.texts.measure.MEASURES`.

    Empty where nothing was sampled; without copying and length ratio where references are missing.
    """
    samples, posts = study.samples, study.posts
    if samples is None:
        return pd.DataFrame()
    if posts is None or not has_references(study):
        return lengths.add_measures(samples)
    plain = lengths.baselines(posts.loc[samples["id"].unique()])
    return lengths.add_measures(pd.concat([samples, plain], ignore_index=True), posts)


@once
def text_table(study: Study) -> pd.DataFrame:
    """Result table of `eval.texts.measure.MEASURES` of every policy and baseline, seeds pooled."""
    measured = measured_samples(study)
    return result_table(
        lengths.length_results(measured, by=POOLED, draws=study.draws) if len(measured) else []
    )


@once
def rouge_scores(study: Study) -> pd.DataFrame:
    """`rouge` of every row of `measured_samples` but the references; empty without references."""
    measured = measured_samples(study)
    if measured.empty or study.posts is None or not has_references(study):
        return pd.DataFrame()
    samples = measured[measured["policy"] != "reference"]
    scores = rouge(study.posts.loc[samples["id"], "summary"].tolist(), samples["text"].tolist())
    return scores.set_index(samples.index)


@once
def rouge_table(study: Study) -> pd.DataFrame:
    """Result table of ROUGE against the reference, of every policy and of title and lead-2.

    Measures are `ROUGE_MEASURES`, 0-1, without stemming; seeds pooled. Empty without references.
    """
    scores = rouge_scores(study)
    if scores.empty:
        return result_table([])
    scored = pd.concat([measured_samples(study).loc[scores.index], scores], axis=1)
    measures = [Measure(name, name, "0-1") for name in ROUGE_MEASURES]
    return result_table(summarise(scored, measures, by=POOLED, draws=study.draws))


def text_section(study: Study) -> Section:
    """ROUGE, length, stopping, KL, copying and repetition of every policy, beside plain baselines."""
    section = Section(
        "text",
        "Texts: ROUGE, length, copying",
        "ROUGE against the reference is for comparison with other work; it does not measure preference "
        "(paper, section 4.4). Length is given in tokens (end of text included), words and characters.",
    )
    if study.samples is None:
        return without(section)
    scores = rouge_table(study)
    if len(scores):
        _add_rouge(study, section, scores)
    caption = (
        "Length, stopping, KL to the supervised start, repetition and copying; 95 % intervals over posts."
    )
    section.tables.append(results_table("texts", text_table(study), caption))
    caption = "Distinct words and word pairs; comparable only between equal numbers of samples."
    distinct = lengths.distinct_table(measured_samples(study), by=POOLED).round(4)
    section.tables.append(plain_table("distinct", distinct, caption))
    note = "ROUGE and copying: not run here, the posts with references (valid2.jsonl) are not at hand."
    return section if len(scores) else without(section, note)


def _add_rouge(study: Study, section: Section, table: pd.DataFrame) -> None:
    how = f"No stemming; {resolve_backend()}; sentences are not split."
    if table["params"].notna().any():
        picture = rouge_by_size(table, published(study.paper, "fig14", "fig14a"))
        caption = (
            "ROUGE F1 against the reference, mean of ROUGE-1, -2 and -L, at the lowest temperature sampled; "
            f"bars: 95 % intervals over posts. {how} The paper names no variant (T = 0); this mean is the "
            "likely one."
        )
        section.pictures.append(Picture("rouge", picture, caption))
    caption = (
        "ROUGE F1 against the reference; rouge_mean = mean of ROUGE-1, -2 and -L (probably what the paper's "
        f"Fig. 14 plots). {how} Precision and recall are in the CSV file."
    )
    shown = wide(table[table["measure"].str.endswith(("_f", "_mean"))])
    section.tables.append(Table("rouge", table, caption, shown))
