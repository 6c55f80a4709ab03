"""ROUGE, length, copying and wording of every policy."""

from __future__ import annotations

import pandas as pd

from eval import lengths
from eval.rouge import VARIANTS, resolve_backend, rouge
from eval.sections.base import Section, Study, Table, plain_table, results_table, without
from eval.tables import POOLED, Measure, result_table, summarise, wide


def text_section(study: Study) -> Section:
    """ROUGE, length, stopping, KL, copying and repetition of every policy, beside plain baselines."""
    section = Section(
        "text",
        "Texts: ROUGE, length, copying",
        "ROUGE against the reference is for comparison with other work; it does not measure preference "
        "(paper, section 4.4). Length is given in tokens (end of text included), words and characters.",
    )
    samples, posts = study.samples, study.posts
    if samples is None:
        return without(section)
    compared = posts is not None and bool(posts["summary"].notna().all())
    if posts is not None and compared:
        plain = lengths.baselines(posts.loc[samples["id"].unique()])
        compared_with = pd.concat([samples, plain[plain["policy"] != "reference"]], ignore_index=True)
        section.tables.append(_rouge_table(compared_with, posts, study.draws))
        samples = pd.concat([samples, plain], ignore_index=True)
    measured = lengths.add_measures(samples, posts if compared else None)
    results = lengths.length_results(measured, by=POOLED, draws=study.draws)
    caption = (
        "Length, stopping, KL to the supervised start, repetition and copying; 95 % intervals over posts."
    )
    section.tables.append(results_table("texts", result_table(results), caption))
    caption = "Distinct words and word pairs; comparable only between equal numbers of samples."
    section.tables.append(
        plain_table("distinct", lengths.distinct_table(samples, by=POOLED).round(4), caption)
    )
    note = "ROUGE and copying: not run here, the posts with references (valid2.jsonl) are not at hand."
    return section if compared else without(section, note)


def _rouge_table(samples: pd.DataFrame, posts: pd.DataFrame, draws: int) -> Table:
    scores = rouge(posts.loc[samples["id"], "summary"].tolist(), samples["text"].tolist())
    scored = pd.concat([samples, scores.set_index(samples.index)], axis=1)
    names = ["rouge_mean"] + [f"{variant}_{part}" for variant in VARIANTS for part in "fpr"]
    table = result_table(
        summarise(scored, [Measure(name, name, "0-1") for name in names], by=POOLED, draws=draws)
    )
    caption = (
        "ROUGE F1 against the reference; rouge_mean = mean of ROUGE-1, -2 and -L (probably what the paper's "
        f"Fig. 14 plots). No stemming; {resolve_backend()}; sentences are not split. Precision and "
        "recall are in the CSV file."
    )
    shown = wide(table[table["measure"].str.endswith(("_f", "_mean"))])
    return Table("rouge", table, caption, shown)
