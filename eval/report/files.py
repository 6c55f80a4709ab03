"""The sections that record files from anywhere allow, tables alone (``tldr-lab evaluate``)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import pandas as pd

from eval.common.cells import one_world
from eval.common.pairs import REFERENCE, judgement_pairs, score_pairs
from eval.common.study import Section, try_table
from eval.common.tables import GROUP, policy_groups
from eval.elo.measure import elo
from eval.judge.measure import judge_results
from eval.length.measure import length_control, length_controlled
from eval.preference.measure import (
    PreferenceScorer,
    length_bins,
    pair_shares,
    paired_tests,
    policy_label,
    preference,
    preference_by,
    reference_scorers,
    wins,
)
from eval.ratings.measure import rating_lengths, rating_results, rating_rows, with_slope
from eval.rouge.measure import resolve_backend, rouge_results
from eval.texts.measure import add_measures, baselines, distinct_results, length_results
from tldr.errors import UsageError
from tldr.records import Judgement, Rating

BY = tuple(name for name in GROUP if name != "cell")
"""Policies are told apart by name, tags and sampling; the cells of one are together."""
Breakdown = Literal["subreddit", "length"]


def file_sections(
    samples: pd.DataFrame | None = None,
    posts: pd.DataFrame | None = None,
    comparisons: pd.DataFrame | None = None,
    judgements: Sequence[Judgement] = (),
    ratings: Sequence[Rating] = (),
    *,
    by: Breakdown | None = None,
    stemmer: bool = False,
    draws: int = 2000,
) -> list[Section]:
    """Compute every measure whose inputs are present.

    Args:
        samples, posts, comparisons: as the loaders of `eval` give them. judgements: as
            `eval.common.pairs.read_judgements`. ratings: OpenAI's axis evaluations.
        by: break preference down by subreddit (needs posts) or by length of the sample in words.

    Returns:
        Tables of ROUGE and texts; of every scorer's preference, also at equal length, by
        policy pairs and as Elo; of human comparisons, judges and ratings. All intervals are 95 %, over
        cells, or within a single one over posts. What the files do not allow is said in `Section.missing`,
        and costs no other table.

    Raises:
        UsageError: samples of posts that are not in `posts`, or of several data seeds beside `posts`.
    """
    sections = []
    if samples is not None and posts is not None:
        one_world(samples)
    if samples is not None:
        method = (
            samples["tag.method"] if "tag.method" in samples else pd.Series(None, samples.index, dtype=object)
        )
        samples = samples.assign(**{"tag.method": method.fillna(samples["policy"])})
        sections.append(_texts(samples, posts, stemmer, draws))
        sections += [_scored(samples, posts, scorer, by, draws) for scorer in reference_scorers(samples)]
    if comparisons is not None:
        who = f"By people ({split_counts(comparisons)})"
        sections.append(_compared("comparisons", who, comparisons))
    if judgements:
        sections.append(_judged(judgements))
        for (judge, axis), pairs in judgement_pairs(judgements).groupby(["judge", "axis"]):
            sections.append(_compared(f"judge_{judge}_{axis}", f"By {judge}, {axis}", pairs))
    if ratings:
        sections.append(_rated(rating_rows(ratings), draws))
    return sections


def _judged(judgements: Sequence[Judgement]) -> Section:
    section = Section("judges", "Judges")
    caption = "Judges, both orders of each pair together"
    try_table(section, "judges", caption, lambda: judge_results(judgements))
    return section


def _rated(rows: pd.DataFrame, draws: int) -> Section:
    """Axis ratings of summaries of posts and of articles, and what length has to do with the overall one."""
    section = Section("ratings", "Ratings on the axes")
    rows = rows.assign(run=rows["batch"], cell="0")
    for article, name, what in ((False, "ratings", "posts"), (True, "ratings_articles", "news articles")):
        part = rows[rows["article"] == article]
        if part.empty:
            continue
        counts = split_counts(part)
        caption = f"Ratings of summaries of {what} ({counts}): means of 1-7, and the share of 7 overall"
        try_table(section, name, caption, partial(rating_results, part, draws=draws))
        caption = (
            f"Overall rating of summaries of {what} by length in characters: means, what 100 more gain, and "
            f"value: the rating predicted at {part['characters'].mean():.0f} characters, the mean of all"
        )
        if len(with_slope(part)):
            try_table(section, f"{name}_by_length", caption, partial(_by_length, part))
    return section


def split_counts(rows: pd.DataFrame) -> str:
    """Rows of each split: "203 of valid1, 647 of valid2"."""
    counts = rows["split"].value_counts().sort_index()
    return ", ".join(f"{count} of {split}" for split, count in counts.items())


def _by_length(rows: pd.DataFrame) -> pd.DataFrame:
    return rating_lengths(rows).rename(columns={"at_length": "value"})


def _texts(samples: pd.DataFrame, posts: pd.DataFrame | None, stemmer: bool, draws: int) -> Section:
    section = Section("text", "Texts: ROUGE, length, copying")
    if posts is None:
        section.missing.append("rouge, copying, length ratio: no posts were given")
        compared = samples
    else:
        about = posts.loc[posts.index.isin(samples["id"])]
        compared = pd.concat([samples, baselines(about)], ignore_index=True)
        caption = (
            f"ROUGE against the reference, {'Porter stemmer' if stemmer else 'no stemming'}, "
            f"{resolve_backend()}, sentences not split; rouge_mean is the mean F of ROUGE-1, -2 and -L"
        )
        others = compared[compared["policy"] != REFERENCE]
        measure = partial(rouge_results, others, posts, stemmer=stemmer, by=BY, draws=draws)
        try_table(section, "rouge", caption, measure)
    measured = add_measures(compared, posts)
    caption = "Lengths, stopping, KL from the SFT start, repetition and copying; units are in the CSV file"
    try_table(section, "texts", caption, lambda: length_results(measured, by=BY, draws=draws))
    caption = "Distinct words and word pairs of all texts together; compare equal numbers of samples only"
    try_table(section, "distinct", caption, lambda: distinct_results(compared, by=BY))
    return section


def _scored(
    samples: pd.DataFrame,
    posts: pd.DataFrame | None,
    scorer: PreferenceScorer,
    by: Breakdown | None,
    draws: int,
) -> Section:
    name = scorer.name
    section = Section(f"preference_{name}", f"Preference to the reference by {name}")
    scored = samples.dropna(subset=[f"score.{name}", f"score.{name}_reference"])
    if len(scored) < len(samples):
        section.missing.append(
            f"{name}: {len(samples) - len(scored)} of {len(samples)} samples have no score"
        )
    caption = f"Preferred to the reference by {name}, ties half"
    measure = partial(preference, scored, scorer, by=BY, draws=draws)
    try_table(section, f"preference_{name}", caption, measure)
    if by is not None:
        caption = f"Preferred to the reference by {name}, by {by}{' in words' if by == 'length' else ''}"
        try_table(
            section,
            f"preference_{name}_by_{by}",
            caption,
            lambda: preference_by(scored, scorer, _breakdown(scored, posts, by), by=BY, draws=draws),
        )
    if posts is not None:
        try_table(
            section,
            f"length_controlled_{name}",
            f"Preferred to the reference by {name} at equal length in words",
            lambda: length_controlled(scored, posts, wins(scored, scorer)["hard"], scorer=name)[0],
        )
    labels = pd.concat(
        [pd.Series(policy_label(n), index=part.index) for n, part in policy_groups(scored, BY)]
    )
    try_table(
        section,
        f"elo_{name}",
        f"Elo by {name}, every two policies on each post; the reference is 1000",
        lambda: elo(score_pairs(scored, name, labels), base=REFERENCE).assign(runs=_runs(scored)),
    )
    try_table(
        section,
        f"paired_{name}",
        f"Difference of preference by {name} on the same posts; p: sign-flip test, Holm, McNemar",
        lambda: paired_tests(scored, scorer, by=BY),
    )
    return section


def _breakdown(samples: pd.DataFrame, posts: pd.DataFrame | None, by: Breakdown) -> pd.Series[str]:
    if by == "length":
        return length_bins(samples)
    if posts is None:
        raise UsageError("no posts were given, so no subreddits")
    return samples["id"].map(posts["subreddit"]).rename("subreddit")


def _compared(name: str, who: str, pairs: pd.DataFrame) -> Section:
    """Shares, length control and Elo of human comparisons or one judge's verdicts."""
    section = Section(name, who)
    runs = " ".join(sorted({*pairs["batch"]} if "batch" in pairs else {*" ".join(pairs["runs"]).split()}))
    try_table(
        section,
        name,
        f"{who}: share for the first of two policies, ties half",
        lambda: pair_shares(pairs).assign(runs=runs),
    )
    usable = pairs[pairs["first"] != pairs["second"]].dropna(subset="preferred")
    policies = sorted({*usable["first"], *usable["second"]})
    base = REFERENCE if REFERENCE in policies else next(iter(policies), "")
    if usable[["first_text", "second_text"]].notna().all(axis=None):
        try_table(
            section,
            f"{name}_length_controlled",
            f"{who}: share preferred to {base} at equal length in words",
            lambda: _at_equal_length(usable, base).assign(runs=runs),
        )
    try_table(
        section,
        f"{name}_elo",
        f"{who}: Elo; {base} is 1000",
        lambda: elo(usable, base=base).assign(runs=runs),
    )
    return section


def _at_equal_length(pairs: pd.DataFrame, base: str) -> pd.DataFrame:
    control = length_control(pairs, base=base)
    rows = []
    for policy in sorted({*pairs["first"], *pairs["second"]} - {base}):
        one = control.preference(policy)
        rows.append(
            {
                "policy": policy,
                "value": one.value,
                "low": one.low,
                "high": one.high,
                "n": one.n,
                "posts": one.clusters,
            }
        )
    return pd.DataFrame(rows)


def _runs(samples: pd.DataFrame) -> str:
    return " ".join(sorted(set(samples["run"])))
