"""The TL;DR policies on news articles (P 4.2): ROUGE as the paper's Fig. 14b, length, copying, reward."""

from __future__ import annotations

import pandas as pd

from eval.common.rows import bars, intervals
from eval.common.study import (
    Picture,
    Section,
    StudyResults,
    Table,
    once,
    published,
    results_table,
    without,
)
from eval.common.tables import POOLED, Measure, result_table, summarise, wide
from eval.preference.measure import preference, reference_scorers
from eval.rouge.figure import NEWS, rouge_by_size
from eval.rouge.measure import resolve_backend, rouge, rouge_means
from eval.texts import measure as lengths

BASELINES = ("lead-3", "reference")


@once
def measured_news(study: StudyResults) -> pd.DataFrame:
    """Summaries of articles and the baselines with `lengths.MEASURES`; empty where there are none."""
    samples, articles = study.news, study.articles
    if samples is None or articles is None:
        return pd.DataFrame()
    plain = lengths.baselines(articles.loc[samples["id"].unique()])
    kept = plain[plain["policy"].isin(BASELINES)]
    return lengths.add_measures(pd.concat([samples, kept], ignore_index=True), articles)


@once
def news_rouge_table(study: StudyResults) -> pd.DataFrame:
    """Result table of ROUGE against the highlights, sentences split by newlines; over cells.

    ``rouge_mean`` is the mean of ROUGE-1, -2 and -Lsum, which is what papers on CNN/DM call ROUGE-L:
    the paper's own policy has 0.340 in Fig. 14b and 42.49, 19.84 and 39.53 in Table 15.
    """
    measured = measured_news(study)
    if measured.empty or study.articles is None:
        return result_table([])
    rows = measured[measured["policy"] != "reference"]
    references = study.articles.loc[rows["id"], "summary"].tolist()
    scores = rouge(references, rows["text"].tolist(), split_sentences=True).set_index(rows.index)
    scores["rouge_mean"] = scores[["rouge1_f", "rouge2_f", "rougeLsum_f"]].mean(axis=1)
    return result_table(rouge_means(rows, scores, by=POOLED, draws=study.draws))


def news_section(study: StudyResults) -> Section:
    """Transfer to news: nothing of it is in any other table of samples."""
    section = Section(
        "news",
        "Transfer to news (CNN/DM)",
        "The policies that were trained on posts summarize news articles, which they were not trained on "
        "(paper, section 4.2). The articles' highlights are the references. Human ratings of such summaries, "
        "where there are any, are under Ratings.",
    )
    measured = measured_news(study)
    if measured.empty:
        return without(section)
    how = f"No stemming; {resolve_backend()}; a newline after each sentence, as ROUGE-Lsum needs."
    table = news_rouge_table(study)
    if table["params"].notna().any():
        paper = published(study.paper, "fig14", "fig14b")
        picture = rouge_by_size(table, paper, NEWS)
        caption = (
            "ROUGE F1 against the highlights, mean of ROUGE-1, -2 and -Lsum, at the lowest temperature; "
            f"{bars(table, 'articles')}. {how} The paper names no variant."
        )
        section.pictures.append(Picture("rouge_news", picture, caption))
    caption = f"ROUGE F1 against the highlights; rouge_mean = mean of ROUGE-1, -2 and -Lsum. {how}"
    shown = wide(table[table["measure"].str.endswith(("_f", "_mean"))])
    section.tables.append(Table("rouge_news", table, caption, shown))
    texts = result_table(lengths.length_results(measured, by=POOLED, draws=study.draws))
    how = intervals(texts, "articles")
    caption = f"Length, stopping, repetition and copying of the summaries of news; {how}."
    section.tables.append(results_table("texts_news", texts, caption))
    _add_scores(study, section)
    return section


def _add_scores(study: StudyResults, section: Section) -> None:
    """The reward model's mean score, and how often it prefers a summary to the highlights."""
    assert study.news is not None
    results = summarise(
        study.news, [Measure("score.rm", "rm", "reward-model score")], by=POOLED, draws=study.draws
    )
    for scorer in reference_scorers(study.news):
        results += preference(study.news, scorer, by=POOLED, draws=study.draws)
    if results:
        caption = (
            "Scores by the reward model of posts, which was trained on no news: its mean score, and the "
            "share of summaries that it prefers to the highlights. The policies were trained on it, so it is "
            "no judge."
        )
        section.tables.append(results_table("reward_news", result_table(results), caption))
