"""Preference to the reference by every scorer: the paper's Fig. 1."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from eval.common.beside import compared, told
from eval.common.rows import bars, intervals
from eval.common.study import (
    Picture,
    Section,
    StudyResults,
    Table,
    once,
    plain_table,
    published,
    results_table,
    without,
)
from eval.common.tables import COLUMNS, GROUP, POOLED, group_columns, result_table, wide
from eval.judge.calibration import FEWEST, calibrated
from eval.judge.verdicts import PEOPLE
from eval.preference.figure import headline, preference_by_size
from eval.preference.measure import (
    PreferenceScorer,
    length_bins,
    paired_tests,
    preference,
    preference_by,
    scorers_of,
)
from eval.texts.samples import measured_samples
from tldr.errors import UsageError

FEW_POSTS = 30
"""Subreddits with fewer posts are counted together."""


def scorers(study: StudyResults) -> list[PreferenceScorer]:
    """The scorers that the study's samples carry with their references' scores."""
    return scorers_of(study.samples) if study.samples is not None else []


@once
def preference_table(study: StudyResults) -> pd.DataFrame:
    """Result table of `eval.preference.measure.preference` of every policy by every scorer, over cells."""
    return _preferences(study, POOLED)


@once
def preference_by_cell_table(study: StudyResults) -> pd.DataFrame:
    """The same, each cell apart."""
    return _preferences(study, GROUP)


def _preferences(study: StudyResults, by: Sequence[str]) -> pd.DataFrame:
    known = scorers(study)
    if study.samples is None or not known:
        return result_table([])
    return result_table(
        result for scorer in known for result in preference(study.samples, scorer, by=by, draws=study.draws)
    )


@once
def preference_by_subreddit_table(study: StudyResults) -> pd.DataFrame:
    """Preference in each subreddit: result columns, ``breakdown`` and ``group`` (the subreddit).

    Policies of the main figure, by each scorer's main measure. Subreddits with fewer than
    `FEW_POSTS` posts are together as "other".
    """
    samples = headline_samples(study)
    if study.posts is None or samples.empty:
        return _broken_down(study, samples, None)
    names = study.posts["subreddit"].fillna("none")
    few = names.map(names.value_counts()) < FEW_POSTS
    return _broken_down(study, samples, samples["id"].map(names.mask(few, "other")).rename("subreddit"))


@once
def preference_by_length_table(study: StudyResults) -> pd.DataFrame:
    """Preference of summaries of each length, in words: the same columns, ``group`` as "18-24"."""
    samples = headline_samples(study)
    return _broken_down(study, samples, length_bins(samples) if len(samples) else None)


def _broken_down(study: StudyResults, samples: pd.DataFrame, groups: pd.Series[str] | None) -> pd.DataFrame:
    tables = [result_table([]).assign(breakdown="", group="")]
    for scorer in scorers(study) if groups is not None else ():
        assert groups is not None
        table = preference_by(samples, scorer, groups, by=POOLED, draws=study.draws)
        # One post alone has no interval, so it is not shown.
        tables.append(table[(table["measure"] == scorer.main_measure) & table["low"].notna()])
    return pd.concat(tables[1:] or tables, ignore_index=True)


@once
def paired_test_table(study: StudyResults) -> pd.DataFrame:
    """The main figure's policies compared two by two on the same posts (`paired_tests`).

    By the planted labelers where there are any, else by the reward model. Empty with fewer than two.
    """
    samples, known = headline_samples(study), scorers(study)
    try:
        return paired_tests(samples, known[0], by=POOLED) if known and len(samples) else pd.DataFrame()
    except UsageError:  # no two policies on the same posts
        return pd.DataFrame()


@once
def headline_samples(study: StudyResults) -> pd.DataFrame:
    """Samples of the main figure's policies (`eval.preference.figure.headline`), with their measures."""
    measured = measured_samples(study)
    if measured.empty:
        return measured
    named = group_columns(measured).rename(columns={"n": "best_of"})
    return measured.loc[headline(named.dropna(subset=["params"])).index]


def preference_section(study: StudyResults) -> Section:
    """Preference to the reference by every scorer; main figure as the paper's Fig. 1."""
    section = Section(
        "preference",
        "Preference to the reference",
        "How often a policy's summary is preferred to the author's own. Preference counts which of the two "
        "scores is higher (ties count half); expected preference is the mean probability of being preferred.",
    )
    known = scorers(study)
    if not known:
        return without(section, "No sample was scored together with its reference.")
    for scorer in known:
        _add_scorer(study, section, scorer)
    tests = paired_test_table(study)
    if len(tests):
        caption = (
            f"Preference by {known[0].label} of every two policies on the same posts: "
            f"difference with {intervals(tests)}, and a p value (of a t test over cells, or in a single "
            "cell of a sign-flip permutation test), also with Holm's correction."
        )
        section.tables.append(plain_table("preference_paired", tests, caption))
    _add_calibration(study, section, [scorer for scorer in known if scorer.verdicts])
    section.missing.extend(study.verdict_notes)
    return section


def _add_calibration(study: StudyResults, section: Section, judges: list[PreferenceScorer]) -> None:
    """Each judge beside people, where both gave verdicts on the same samples."""
    if study.samples is None or len(judges) < 2 or judges[0].label != PEOPLE:
        return
    people, *others = judges
    for judge in others:
        columns = (f"score.{one.name}" for one in (people, judge))
        table = result_table(calibrated(study.samples, *columns))
        if table.empty:
            section.missing.append(
                f"{judge.label} is not set beside people: no policy has {FEWEST} posts that both saw."
            )
            continue
        caption = (
            f"{judge.label} beside people. Corrected preference: the judge's share over all its posts, "
            "corrected by its difference from people's on the posts that both saw (prediction-powered "
            "inference); the interval holds the uncertainty of both. Agreement: of pairs that both saw, "
            "ties as halves."
        )
        section.tables.append(results_table(f"preference_{judge.file}_calibrated", table, caption))


def _add_scorer(study: StudyResults, section: Section, scorer: PreferenceScorer) -> None:
    name, measure = scorer.label, scorer.main_measure
    tables = (preference_table(study), preference_by_cell_table(study))
    pooled, single = (table[table["scorer"] == scorer.name] for table in tables)
    rows = pooled[pooled["measure"] == measure].dropna(subset=["params"])
    shown = headline(rows)
    if len(shown):
        other = _of_other(study, scorer.file, measure)
        others = None if other is None else headline(other.dropna(subset=["params"]))
        picture = preference_by_size(
            shown,
            published(study.paper, "fig1"),
            title=f"This study, by {name}",
            beside=others,
            beside_title="" if study.beside is None else f"{study.beside.name}: {_interval_of(other)}",
        )
        caption = (
            f"Left: {measure.replace('_', ' ')} by {name}, at the lowest temperature sampled; "
            f"{bars(rows)}. Right: the paper's human evaluation, digitised; bars: 1.96 standard errors."
        )
        if scorer.verdicts:
            caption += f" {study.verdicts.about(scorer.label)}"
        if study.beside is not None and other is not None:
            caption += f" Wide pale bars: the committed intervals of {study.beside.name}."
        section.pictures.append(Picture(f"preference_{scorer.file}", picture, caption))
        if other is not None:
            section.tables.append(_beside_table(study, scorer.file, shown, headline(other)))
    for end, table, what in (("", pooled, "over cells"), ("_by_cell", single, "each cell apart")):
        section.tables.append(results_table(f"preference_{scorer.file}{end}", table, f"By {name}, {what}."))
    for table, what in (
        (preference_by_subreddit_table(study), f"subreddit (those with at least {FEW_POSTS} posts)"),
        (preference_by_length_table(study), "length in words"),
    ):
        part = table[table["scorer"] == scorer.name]
        if len(part):
            caption = f"{measure.replace('_', ' ').capitalize()} by {name}, by {what}."
            title = f"preference_{scorer.file}_by_{what.split()[0]}"
            section.tables.append(Table(title, part, caption, _spread(part)))


def _of_other(study: StudyResults, scorer: str, measure: str) -> pd.DataFrame | None:
    """The committed report's rows of the figure; None without such a report or table."""
    table = None if study.beside is None else study.beside.table(f"preference_{scorer}")
    if table is None:
        return None
    names = ["variant", "selected_by"]
    table[names] = table[names].astype(object).fillna("")
    return table[table["measure"] == measure]


def _interval_of(table: pd.DataFrame | None) -> str:
    cells = 1 if table is None or table.empty else int(table["cells"].max())
    return f"95 % interval over {cells} cells" if cells > 1 else "one draw, 95 % interval over posts"


POLICY = ["method", "size", "best_of", "temperature"]


def _beside_table(study: StudyResults, scorer: str, own: pd.DataFrame, other: pd.DataFrame) -> Table:
    """The figure's values beside the committed report's, and where they lie outside what it predicts."""
    assert study.beside is not None
    table = compared(own, other, POLICY)
    labels = [f"{row.method} {row.size}" for row in table.itertuples()]
    caption = told(table, labels, study.beside.name)
    return plain_table(f"preference_{scorer}_beside", table.round(4), caption)


def _spread(table: pd.DataFrame) -> pd.DataFrame:
    """One row per policy, one column a group; numbers of samples are in the long table."""
    return wide(table[COLUMNS].assign(measure=table["group"], n=None, posts=None, cells=1))
