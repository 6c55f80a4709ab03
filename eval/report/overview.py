"""Everything that can be measured on files from anywhere, as one list of tables (``tldr-lab evaluate``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import pandas as pd

from eval.common.pairs import REFERENCE, judgement_pairs, score_pairs
from eval.common.tables import GROUP, Result, policy_groups, result_table, wide
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
from eval.ratings.measure import rating_lengths, rating_results, rating_rows
from eval.rouge.measure import resolve_backend, rouge_results
from eval.texts.measure import add_measures, baselines, distinct_results, length_results
from tldr.errors import NonFiniteError, UsageError
from tldr.records import Judgement, Rating

BY = tuple(name for name in GROUP if name != "seed")
"""Policies are told apart by name, tags and sampling; the seeds of one are pooled."""


@dataclass(frozen=True)
class Sheet:
    """One table with the name it is saved under, a caption, and its form for people."""

    name: str
    caption: str
    table: pd.DataFrame
    shown: pd.DataFrame


@dataclass
class Overview:
    """What was measured, and what could not be and why."""

    sheets: list[Sheet] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def add(self, name: str, caption: str, make: Callable[[], pd.DataFrame | list[Result]]) -> None:
        """Add a table; one that these files do not allow is noted, and costs no other table."""
        name = re.sub(r"[^\w.-]+", "_", name)  # judges and scorers are named by others; this becomes a file
        try:
            made = make()
        except (UsageError, NonFiniteError) as error:
            self.missing.append(f"{name}: {error.what}")
            return
        table = result_table(made) if isinstance(made, list) else made
        shown = _wide(table) if "measure" in table else _for_people(table)
        self.sheets.append(Sheet(name, caption, table, shown))


def overview(
    samples: pd.DataFrame | None = None,
    posts: pd.DataFrame | None = None,
    comparisons: pd.DataFrame | None = None,
    judgements: Sequence[Judgement] = (),
    ratings: Sequence[Rating] = (),
    *,
    by: Literal["subreddit", "length"] | None = None,
    stemmer: bool = False,
    draws: int = 2000,
) -> Overview:
    """Measure what is there.

    Args:
        samples, posts, comparisons: as the loaders of `eval` give them. judgements: as
            `eval.common.pairs.read_judgements`. ratings: OpenAI's axis evaluations.
        by: break preference down by subreddit (needs posts) or by length of the sample in words.

    Returns:
        Tables of ROUGE and texts; of every scorer's preference, also at equal length, by
        policy pairs and as Elo; of human comparisons, judges and ratings. All intervals are 95 % over posts.

    Raises:
        UsageError: samples of posts that are not in `posts`.
    """
    made = Overview()
    if samples is not None:
        method = (
            samples["tag.method"] if "tag.method" in samples else pd.Series(None, samples.index, dtype=object)
        )
        samples = samples.assign(**{"tag.method": method.fillna(samples["policy"])})
        _texts(made, samples, posts, stemmer, draws)
        for scorer in reference_scorers(samples):
            _scored(made, samples, posts, scorer, by, draws)
    if comparisons is not None:
        _compared(made, "comparisons", "By people", comparisons)
    if judgements:
        made.add("judges", "Judges, both orders of each pair together", lambda: judge_results(judgements))
        for (judge, axis), pairs in judgement_pairs(judgements).groupby(["judge", "axis"]):
            _compared(made, f"judge_{judge}_{axis}", f"By {judge}, {axis}", pairs)
    if ratings:
        _rated(made, rating_rows(ratings), draws)
    return made


def _rated(made: Overview, rows: pd.DataFrame, draws: int) -> None:
    """Axis ratings of summaries of posts and of articles, and what length has to do with the overall one."""
    rows = rows.assign(run=rows["batch"], seed=0)
    for article, name, what in ((False, "ratings", "posts"), (True, "ratings_articles", "news articles")):
        part = rows[rows["article"] == article]
        if part.empty:
            continue
        caption = f"Ratings of summaries of {what}: means of 1-7, and the share of 7 overall"
        made.add(name, caption, partial(rating_results, part, draws=draws))
        caption = (
            f"Overall rating of summaries of {what} by length in characters: means, what 100 more gain, and "
            f"value: the rating predicted at {part['characters'].mean():.0f} characters, the mean of all"
        )
        lengths = rating_lengths(part).rename(columns={"at_length": "value"})
        if len(lengths):
            made.add(f"{name}_by_length", caption, lengths.copy)


def _texts(
    made: Overview, samples: pd.DataFrame, posts: pd.DataFrame | None, stemmer: bool, draws: int
) -> None:
    if posts is None:
        made.missing.append("rouge, copying, length ratio: no posts were given")
        compared = samples
    else:
        about = posts.loc[posts.index.isin(samples["id"])]
        compared = pd.concat([samples, baselines(about)], ignore_index=True)
        caption = (
            f"ROUGE against the reference, {'Porter stemmer' if stemmer else 'no stemming'}, "
            f"{resolve_backend()}, sentences not split; rouge_mean is the mean F of ROUGE-1, -2 and -L"
        )
        others = compared[compared["policy"] != REFERENCE]
        made.add("rouge", caption, lambda: rouge_results(others, posts, stemmer=stemmer, by=BY, draws=draws))
    measured = add_measures(compared, posts)
    caption = "Lengths, stopping, KL from the SFT start, repetition and copying; units are in the CSV file"
    made.add("texts", caption, lambda: length_results(measured, by=BY, draws=draws))
    caption = "Distinct words and word pairs of all texts together; compare equal numbers of samples only"
    made.add("distinct", caption, lambda: distinct_results(compared, by=BY))


def _scored(
    made: Overview,
    samples: pd.DataFrame,
    posts: pd.DataFrame | None,
    scorer: PreferenceScorer,
    by: Literal["subreddit", "length"] | None,
    draws: int,
) -> None:
    name = scorer.name
    scored = samples.dropna(subset=[f"score.{name}", f"score.{name}_reference"])
    if len(scored) < len(samples):
        made.missing.append(f"{name}: {len(samples) - len(scored)} of {len(samples)} samples have no score")
    caption = f"Preferred to the reference by {name}, ties half"
    made.add(f"preference_{name}", caption, lambda: preference(scored, scorer, by=BY, draws=draws))
    if by is not None:
        caption = f"Preferred to the reference by {name}, by {by}{' in words' if by == 'length' else ''}"
        made.add(
            f"preference_{name}_by_{by}",
            caption,
            lambda: preference_by(scored, scorer, _breakdown(scored, posts, by), by=BY, draws=draws),
        )
    if posts is not None:
        made.add(
            f"length_controlled_{name}",
            f"Preferred to the reference by {name} at equal length in words",
            lambda: length_controlled(scored, posts, wins(scored, scorer)["hard"], scorer=name)[0],
        )
    labels = pd.concat(
        [pd.Series(policy_label(n), index=part.index) for n, part in policy_groups(scored, BY)]
    )
    made.add(
        f"elo_{name}",
        f"Elo by {name}, every two policies on each post; the reference is 1000",
        lambda: elo(score_pairs(scored, name, labels), base=REFERENCE).assign(runs=_runs(scored)),
    )
    made.add(
        f"paired_{name}",
        f"Difference of preference by {name} on the same posts; p: sign-flip test, Holm, McNemar",
        lambda: paired_tests(scored, scorer, by=BY),
    )


def _breakdown(
    samples: pd.DataFrame, posts: pd.DataFrame | None, by: Literal["subreddit", "length"]
) -> pd.Series[str]:
    if by == "length":
        return length_bins(samples)
    if posts is None:
        raise UsageError("no posts were given, so no subreddits")
    return samples["id"].map(posts["subreddit"]).rename("subreddit")


def _compared(made: Overview, name: str, who: str, pairs: pd.DataFrame) -> None:
    """Shares, length control and Elo of human comparisons or one judge's verdicts."""
    runs = " ".join(sorted({*pairs["batch"]} if "batch" in pairs else {*" ".join(pairs["runs"]).split()}))
    made.add(
        name,
        f"{who}: share for the first of two policies, ties half",
        lambda: pair_shares(pairs).assign(runs=runs),
    )
    usable = pairs[pairs["first"] != pairs["second"]].dropna(subset="preferred")
    policies = sorted({*usable["first"], *usable["second"]})
    base = REFERENCE if REFERENCE in policies else next(iter(policies), "")
    if usable[["first_text", "second_text"]].notna().all(axis=None):
        made.add(
            f"{name}_length_controlled",
            f"{who}: share preferred to {base} at equal length in words",
            lambda: _at_equal_length(usable, base).assign(runs=runs),
        )
    made.add(f"{name}_elo", f"{who}: Elo; {base} is 1000", lambda: elo(usable, base=base).assign(runs=runs))


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


def _wide(table: pd.DataFrame) -> pd.DataFrame:
    """One row a policy (and group); precision and recall stay in the file."""
    table = table[~table["measure"].str.contains(r"^rouge.*_[pr](?:_stemmed)?$")]
    if "group" in table:
        parts = [wide(part).assign(group=group) for group, part in table.groupby("group", sort=False)]
        shown = pd.concat(parts, ignore_index=True).fillna("")
        shown.insert(0, "group", shown.pop("group"))
    else:
        shown = wide(table)
    # A policy without a method tag was filed under its own name.
    twice = {"method", "policy"} <= set(shown) and shown["method"].equals(shown["policy"])
    return shown.drop(columns="method") if twice else shown


def _for_people(table: pd.DataFrame) -> pd.DataFrame:
    """Value and bounds in one cell; nothing that says nothing."""
    shown = table.loc[:, table.notna().any() & (table.astype(str) != "").any()].copy()
    value = next(name for name in ("value", "difference", "elo") if name in shown)
    digits = 0 if value == "elo" else 3
    shown[value] = [
        f"{one:.{digits}f}" + ("" if pd.isna(low) else f" [{low:.{digits}f}, {high:.{digits}f}]")
        for one, low, high in zip(table[value], table["low"], table["high"], strict=True)
    ]
    return shown.drop(columns=["low", "high", "se"], errors="ignore")
