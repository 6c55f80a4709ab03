"""Likert ratings: the paper's Figs. 3, 12, 13 and 4."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from eval.common.rows import bars
from eval.common.runs import StudyRun
from eval.common.study import (
    Picture,
    Section,
    StudyResults,
    once,
    plain_table,
    policy_names,
    published,
    results_table,
    without,
)
from eval.common.tables import result_table
from eval.length.measure import rating_by_length
from eval.ratings.figure import OWN, axis_ratings, overall_by_length, overall_by_size, paper_policy
from eval.ratings.measure import AXES, length_bins, rating_lengths, rating_results, rating_rows, with_slope
from tldr.records import Rating, read_records

FILE = "ratings.jsonl"
NO_RATINGS = f"no ratings by simulated labelers, and no {FILE} of people in the study's folder."


@once
def ratings(study: StudyResults) -> pd.DataFrame:
    """All ratings of the study (`rating_rows`) with ``run``, ``cell`` and what names the policy.

    Files are those of the ratings runs and a ``ratings.jsonl`` (OpenAI's axis evaluations are such
    rows) at the top of the folder. Empty where there is none.
    """
    loose = StudyRun(FILE, "ratings", study.runs.folder)
    tables = [
        _rows_of(run) for run in [*study.runs.finished("ratings"), loose] if (run.folder / FILE).is_file()
    ]
    rows = pd.concat([table for table in tables if len(table)] or [pd.DataFrame()], ignore_index=True)
    if rows.empty:
        return rows
    tags = {policy: policy_names(study, policy) for policy in rows["policy"].unique()}
    for name in ("method", "size", "params", "variant"):
        rows[f"tag.{name}"] = rows["policy"].map({policy: tag[name] for policy, tag in tags.items()})
    return rows


def _rows_of(run: StudyRun) -> pd.DataFrame:
    rows = rating_rows(read_records(run.folder / FILE, Rating))
    return rows.assign(run=run.run, cell=run.cell, id=run.post_ids(rows["id"])) if len(rows) else rows


@once
def rating_table(study: StudyResults) -> pd.DataFrame:
    """Ratings of summaries of posts: a result table of `rating_results`, empty without any."""
    return _results(study, article=False)


@once
def article_rating_table(study: StudyResults) -> pd.DataFrame:
    """The same for summaries of news articles."""
    return _results(study, article=True)


@once
def article_length_table(study: StudyResults) -> pd.DataFrame:
    """Overall rating of news summaries by length in characters, as the paper's Table 14.

    Columns of `eval.length.measure.rating_by_length` and ``runs``; policies with fewer than ten
    ratings, or texts of one length, are left out.
    """
    return rating_lengths(_of_articles(study))


def _results(study: StudyResults, article: bool) -> pd.DataFrame:
    rows = ratings(study)
    kept = rows[rows["article"] == article] if len(rows) else rows
    return result_table(rating_results(kept, draws=study.draws) if len(kept) else [])


def _of_articles(study: StudyResults) -> pd.DataFrame:
    rows = ratings(study)
    return rows[rows["article"]] if len(rows) else rows


def _by_length(study: StudyResults) -> pd.DataFrame:
    """Overall ratings of articles of the policies that allow a slope."""
    rows = _of_articles(study)
    return with_slope(rows) if len(rows) else rows


def rating_section(study: StudyResults) -> Section:
    """Mean ratings of every policy on the four axes; of news also by size and length."""
    section = Section(
        "ratings",
        "Ratings on the axes",
        "Each summary is rated on its own from 1 to 7: overall, and for coverage of the post, coherence and "
        "accuracy (paper, section 4.1). Policies are rated at the lowest temperature.",
    )
    table, news = rating_table(study), article_rating_table(study)
    for name, ours, what in (
        ("ratings", table, "Posts"),
        ("ratings_articles", news, "News articles (CNN/DM)"),
    ):
        if len(ours):
            caption = f"{what}: means of 1-7, and the share of summaries rated 7 of 7 overall."
            section.tables.append(
                results_table(name, ours, caption + (_sevens(study) if name == "ratings" else ""))
            )
        said = "" if len(ours) else " This study has no such ratings; only the paper's points are shown."
        section.pictures.extend(axis_pictures(name, ours, study.paper, news=ours is news, said=said))
    _add_news(study, section, news)
    missing = [f"{what}: {NO_RATINGS}" for what, ours in (("Posts", table), ("News", news)) if ours.empty]
    return without(section, *missing) if missing else section


def axis_pictures(
    name: str, ours: pd.DataFrame, paper: Path, *, news: bool, own: str = OWN, said: str = ""
) -> list[Picture]:
    """The figure of ratings on the four axes, as the paper's Fig. 12, or Fig. 13 of `news`.

    Args:
        ours: results of `rating_results`, may be empty. paper: folder of the published numbers.
        own: what our ratings are called. said: what else the caption says.

    Returns:
        One picture; none where neither has a rating.
    """
    number = 13 if news else 12
    theirs = published(paper, f"fig{number}")
    if ours.empty and theirs is None:
        return []
    title = f"Published: Stiennon et al. 2020, Fig. {number}"
    figure = axis_ratings(ours[ours["measure"].isin(AXES)], theirs, published=title, own=own)
    what = "News articles (CNN/DM)" if news else "Posts"
    shown = f"{what}; {bars(ours, 'articles' if news else 'posts')}." if len(ours) else f"{what}."
    hollow = " Below, hollow: the paper's human ratings, digitised."
    return [Picture(name, figure, shown + hollow + said)]


def _sevens(study: StudyResults) -> str:
    """The paper's shares of 7 of 7, which it gives in its text."""
    text = published(study.paper, "fig12", "fig12_text")
    if text is None:
        return ""
    rows = text[text["x"] == "share_overall_7"]
    shares = zip(rows["series"], rows["value"], strict=True)
    return f" The paper's shares: {', '.join(f'{paper_policy(name)[0]} {one:.0%}' for name, one in shares)}."


def _add_news(study: StudyResults, section: Section, news: pd.DataFrame) -> None:
    """Figs. 4a and 4b and the table behind the latter."""
    said = "" if len(news) else " This study has no ratings of news; only the paper's points are shown."
    section.pictures.extend(size_pictures("ratings_articles_by_size", news, study.paper, said=said))
    table = article_length_table(study)
    if len(table):
        caption = (
            "Overall rating of news summaries by length in characters, with a straight line for each policy: "
            "its mean, the gain from 100 more characters, and the prediction at the mean length of all."
        )
        section.tables.append(plain_table("ratings_articles_by_length", table.round(3), caption))
    rows = _by_length(study)
    section.pictures.extend(length_pictures("ratings_articles_by_length", rows, study.paper, said=said))


def size_pictures(
    name: str, news: pd.DataFrame, paper: Path, *, own: str = OWN, said: str = ""
) -> list[Picture]:
    """The figure of overall ratings of news by model size, as Fig. 4a; arguments as `axis_pictures`."""
    sizes, levels = (published(paper, "fig4", item) for item in ("fig4a", "fig4a_line"))
    if sizes is None or levels is None:
        return []
    figure = overall_by_size(news[news["measure"] == "overall"], sizes, levels, own=own)
    return [
        Picture(
            name, figure, f"Overall rating of news summaries by model size; {bars(news, 'articles')}.{said}"
        )
    ]


def length_pictures(
    name: str, rows: pd.DataFrame, paper: Path, *, own: str = OWN, said: str = ""
) -> list[Picture]:
    """The figure of overall ratings of news by length, as Fig. 4b.

    Args:
        rows: ratings of `with_slope` with ``tag.method`` and ``tag.params``; the others as `axis_pictures`.
    """
    lengths = published(paper, "table14")
    if lengths is None:
        return []
    shown = _largest(rows)
    bins = length_bins(shown)
    drawn = bars(rating_lengths(shown), "articles")
    caption = (
        f"Overall rating of news summaries by length; {drawn}; lines: linear in the log of length; of "
        "several sizes the largest. Published: means and slopes, over one standard deviation of length each "
        f"way; dashed: 1.3B.{said}"
    )
    return [Picture(name, overall_by_length(bins, _log_fits(shown), lengths, own=own), caption)]


def _largest(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each method the largest model; policies without a size stay."""
    if rows.empty:
        return rows
    params = pd.to_numeric(rows["tag.params"])
    return rows[params.isna() | (params == params.groupby(rows["tag.method"]).transform("max"))]


def _log_fits(rows: pd.DataFrame) -> pd.DataFrame:
    """Lines of Fig. 4b, which are straight in log length; columns as `overall_by_length` takes them."""
    if rows.empty:
        return rows
    logs = rows.assign(length=np.log(rows["characters"].clip(lower=1)), rating=rows["overall"])
    fits = rating_by_length(logs)
    return fits.assign(slope=fits["per_100"] / 100)
