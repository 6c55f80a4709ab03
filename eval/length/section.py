"""Preference at equal length: the paper's App. F and Fig. 10."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd
from scipy.special import expit, logit

from eval.common.numeric import numeric_failures_told
from eval.common.rows import bars, further_table
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
from eval.common.tables import POOLED, Measure, group_result, named, policy_groups, result_table
from eval.length.figure import preference_by_ratio
from eval.length.measure import length_controlled, preference_bins
from eval.preference.figure import headline, preference_by_size
from eval.preference.measure import PreferenceScorer, preferred
from eval.preference.section import headline_samples, scorers
from eval.texts.samples import has_references
from tldr.errors import NonFiniteError, UsageError

BIN = Measure("preferred", "preference_in_bin", "share preferred to the reference")


class _Fits(NamedTuple):
    """The regressions' results and slopes, and for each scorer without one the reason."""

    policies: pd.DataFrame
    slopes: pd.DataFrame
    problems: dict[str, str]


@once
def _fits(study: StudyResults) -> _Fits:
    results, slopes, problems = [], [], {}
    samples, posts = study.samples, study.posts
    for scorer in scorers(study) if has_references(study) else []:
        assert samples is not None and posts is not None
        try:
            with numeric_failures_told():
                found, slope = length_controlled(
                    samples, posts, preferred(samples, scorer), scorer=scorer.name
                )
        except (UsageError, NonFiniteError) as error:
            problems[scorer.name] = error.what
            continue
        results += found
        runs = {run for result in found for run in result.runs}
        unit = "logits per ln(words / words of the reference)"
        slopes.append(named("length_slope", unit, slope, runs, scorer=scorer.name))
    return _Fits(result_table(results), result_table(slopes), problems)


def length_controlled_table(study: StudyResults) -> pd.DataFrame:
    """Result table of ``length_controlled_preference`` of every policy by every scorer, over cells.

    Policies that win or lose every pair of a cell are left out; empty where references are missing.
    """
    return _fits(study).policies


def length_slope_table(study: StudyResults) -> pd.DataFrame:
    """Result table of ``length_slope``, a row per scorer: logits per 1 in the log length ratio."""
    return _fits(study).slopes


@once
def length_bin_table(study: StudyResults) -> pd.DataFrame:
    """Points of Fig. 10b: result columns, ``log_ratio`` and ``fitted``, the regression's curve there.

    Of each method the largest size, at the lowest temperature, by every scorer; ratios in words.
    """
    samples, fits, rows = headline_samples(study), _fits(study), []
    if "log_length_ratio" not in samples:
        return further_table([], "log_ratio", "fitted")
    largest = pd.to_numeric(samples["tag.params"]).groupby(samples["tag.method"]).transform("max")
    samples = samples[pd.to_numeric(samples["tag.params"]) == largest]
    for scorer in scorers(study):
        compared = samples.assign(preferred=preferred(samples, scorer), log_ratio=samples["log_length_ratio"])
        slope = fits.slopes[fits.slopes["scorer"] == scorer.name]["value"]
        at_zero = headline(fits.policies[fits.policies["scorer"] == scorer.name])
        centers = at_zero.set_index(["method", "size"])["value"].to_dict()
        for names, group in policy_groups(compared.dropna(subset=["preferred"]), POOLED):
            center = centers.get((names["method"], names["size"]))
            for ratio, estimate in preference_bins(group, counted=scorer.main_measure == "preference"):
                fitted = None if center is None else expit(logit(center) + slope.iloc[0] * ratio)
                result = group_result(group, names, BIN, estimate, scorer=scorer.name)
                rows.append((result, {"log_ratio": ratio, "fitted": fitted}))
    return further_table(rows, "log_ratio", "fitted")


def length_section(study: StudyResults) -> Section:
    """Preference at equal length, as the paper's App. F and Fig. 10."""
    section = Section(
        "length",
        "Preference at equal length",
        "Longer summaries are preferred more often. A logistic regression on policy and log length ratio (in "
        "words) predicts how often each policy would be preferred if its summaries were as long as the "
        "references (paper, App. F).",
    )
    known = scorers(study) if has_references(study) else []
    if not known:
        return without(section)
    for scorer in known:
        _add_scorer(study, section, scorer)
    problems = [
        f"By {scorer.label}: no estimate ({_fits(study).problems[scorer.name]})."
        for scorer in known
        if scorer.name in _fits(study).problems
    ]
    return without(section, *problems) if problems else section


def _add_scorer(study: StudyResults, section: Section, scorer: PreferenceScorer) -> None:
    name, file = scorer.label, scorer.file
    table, slopes, bins = (
        frame[frame["scorer"] == scorer.name]
        for frame in (length_controlled_table(study), length_slope_table(study), length_bin_table(study))
    )
    for slope in slopes.itertuples():
        caption = (
            f"By {name}; slope {slope.value:.2f} [{slope.low:.2f}, {slope.high:.2f}] logits per unit of "
            "the log length ratio. Policies that win or lose every pair of a cell are left out."
        )
        section.tables.append(results_table(f"length_controlled_{file}", table, caption))
    shown = headline(table.dropna(subset=["params"]))
    if len(shown):
        picture = preference_by_size(
            shown,
            published(study.paper, "fig10a"),
            title=f"At equal length, by {name}",
            paper_title="Published: Stiennon et al. 2020, Fig. 10a",
        )
        caption = (
            f"Left: predicted preference at equal length; {bars(table)}. Right: the paper's human "
            "evaluation, digitised."
        )
        section.pictures.append(Picture(f"length_controlled_{file}", picture, caption))
    if len(bins):
        picture = preference_by_ratio(
            bins, published(study.paper, "fig10b"), title=f"Preference by length, by {name}"
        )
        caption = (
            "The largest model of each method at the lowest temperature: about ten bins of equally many "
            f"summaries by length over length of the reference, in words; {bars(bins)}; "
            "lines: the logistic regression with one slope for all. Hollow: the paper's curves at equal "
            "length, read by eye from Fig. 10b, which names no unit."
        )
        section.pictures.append(Picture(f"preference_by_length_ratio_{file}", picture, caption))
        caption = f"Preference by length ratio (the points of the figure above), by {name}."
        columns = ["method", "size", "log_ratio", "value", "low", "high", "fitted", "n", "cells"]
        section.tables.append(
            Table(f"preference_by_length_ratio_{file}", bins, caption, bins[columns].round(3))
        )
