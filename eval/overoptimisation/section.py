"""Over-optimisation: the paper's Fig. 5, and PPO and best of N on one KL axis (Gao et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from eval.best_of_n.largest import largest_pools
from eval.best_of_n.section import curve_rows
from eval.common.cells import values_of
from eval.common.rows import FurtherResult, bars, crossed, further_table, intervals
from eval.common.stats import Estimate
from eval.common.study import Picture, Section, StudyResults, Table, once, published, without
from eval.common.tables import POOLED, Measure, MeasuredResult, named, summarise
from eval.judge.verdicts import judged
from eval.overoptimisation.course import ppo_course_table
from eval.overoptimisation.figure import gains_by_kl, kl_sweep
from eval.overoptimisation.measure import Form, OveroptimisationFit, fit_overoptimisation, mean_fit
from eval.overoptimisation.sweeps import FURTHER, KLSweep, actual_scorers, find_sweeps
from eval.preference.measure import UNIT, PreferenceScorer, wins
from tldr.errors import LabError

PROXY = PreferenceScorer("proxy", tau=1.0)
KL = Measure("kl", "kl", "nats a sequence")


@once
def kl_sweep_table(study: StudyResults) -> pd.DataFrame:
    """Every policy of a KL sweep: how often it is preferred, as its reward model says and actually: Fig. 5.

    Measures: ``kl``; ``rm_preference`` (share whose reward model score is above the reference's) and
    ``rm_expected_preference`` (mean sigma of the difference) by the reward model that was optimised;
    ``X_expected_preference`` and, where X scored both, ``X_preference`` for every X that says how
    likely a sample is preferred (``gold``: the planted labelers). Method ``sft`` is the start, KL 0.

    Returns:
        Result columns and ``sweep``, ``beta`` (NaN: the start), ``kl``, ``kl_low``, ``kl_high``: mean
        log-prob ratio to SFT over the policy's own samples at T = 1, nats a sequence; ``kl_cells``: the
        cells' own, where there are several. Sorted by KL within a sweep and measure.
    """
    rows: list[FurtherResult] = []
    for sweep in find_sweeps(study):
        samples = sweep.samples
        results = _preferences(samples, PROXY, "rm", study.draws)
        for name in actual_scorers(samples):
            results += _preferences(samples, PreferenceScorer(name), name, study.draws)
        for judge in judged(samples):
            scorer = PreferenceScorer.of_judge(judge)
            seen = samples.dropna(subset=f"score.{scorer.name}")
            results += _preferences(seen, scorer, scorer.name, study.draws)
        rows += _with_kl(sweep, results, study.draws)
    table = further_table(rows, *FURTHER)
    return table.sort_values(["sweep", "measure", "kl"], kind="stable", ignore_index=True)


def _preferences(
    samples: pd.DataFrame, scorer: PreferenceScorer, name: str, draws: int
) -> list[MeasuredResult]:
    """Hard and expected preference of every policy; the hard one only where both sides have scores."""
    if f"score.{scorer.name}_reference" in samples:
        columns = wins(samples, scorer)
    else:
        columns = pd.DataFrame({"hard": np.nan, "expected": samples[f"score.{scorer.name}_preference"]})
    table = samples.assign(hard=columns["hard"], expected=columns["expected"])
    measures = [
        Measure("hard", f"{name}_preference", UNIT, counted=True),
        Measure("expected", f"{name}_expected_preference", UNIT),
    ]
    return summarise(table, measures, scorer=name, by=POOLED, draws=draws)


def _with_kl(sweep: KLSweep, results: list[MeasuredResult], draws: int) -> list[FurtherResult]:
    """The results, and the KL itself as one, with every policy's place on the KL axis.

    A policy whose samples carry no log-probs has no place there and is left out.
    """
    found = summarise(sweep.samples, [KL], by=POOLED, draws=draws)
    kl = {(one.method, one.variant): one for one in found}
    beta = sweep.samples.groupby(["method", "variant"])["beta"].first().to_dict()
    rows: list[FurtherResult] = []
    for result in [*found, *results]:
        place = kl.get((result.method, result.variant))
        if place is None:
            continue
        more = {"kl": place.value, "kl_low": place.low, "kl_high": place.high, "kl_cells": place.cell_values}
        rows.append((result, {"sweep": sweep.name, "beta": beta[result.method, result.variant], **more}))
    return rows


@once
def overoptimisation_table(study: StudyResults) -> pd.DataFrame:
    """Scores gained over the start against KL: PPO sweeps and best of N on one axis.

    Measures ``rm_gain`` (the reward model that was optimised, or chose) and ``gold_gain`` (planted),
    score minus the start's, post by post. The start of PPO is SFT at T = 1; that of best of N is the
    policy the pool was drawn from (``temperature``), and its KL ln N - (N - 1) / N.

    Returns:
        Result columns and ``sweep``, ``beta``, ``kl``, ``kl_low``, ``kl_high`` as `kl_sweep_table`;
        best of N has the sweep that PPO against the same reward model has.

    Raises:
        UsageError: a sweep's policies and its start were sampled on different posts.
    """
    rows: list[FurtherResult] = []
    for sweep in find_sweeps(study):
        gains = [Measure(f"gain.{name}", f"{name}_gain", "score") for name in ("rm", "gold")]
        samples = sweep.samples.assign(
            **{
                "gain.rm": _gain(sweep.samples, "score.proxy"),
                "gain.gold": _gain(sweep.samples, "score.gold"),
            }
        )
        results = summarise(samples, gains, by=POOLED, draws=study.draws)
        rows += [row for row in _with_kl(sweep, results, study.draws) if row[0].measure != "kl"]
    for pool in largest_pools(study):
        size = pool.run.size
        for chooser in [name for name in pool.choosers if name.startswith("rm")]:
            sweep_name = f"{size}, {pool.scorer if chooser == 'rm' else chooser}"
            for result, more in curve_rows(pool, chooser, study.draws, gain=True):
                exact = {"sweep": sweep_name, "kl_low": more["kl"], "kl_high": more["kl"], "kl_cells": ""}
                rows.append((result, more | exact))
    return further_table(rows, *FURTHER)


def _gain(samples: pd.DataFrame, column: str) -> pd.Series[float]:
    """`column` minus its mean over the start's samples of the same post and cell; missing without a start."""
    if column not in samples:
        return pd.Series(np.nan, index=samples.index)
    start = samples[samples["beta"].isna()].groupby(["cell", "id"])[column].mean().rename("start")
    joined = samples[["cell", "id"]].join(start, on=["cell", "id"])["start"]
    gain: pd.Series[float] = samples[column] - joined
    return gain


@dataclass(frozen=True)
class Fitted:
    """A curve fitted to the gains of a sweep: by `source`, ``policies``, ``course`` or ``best_of_n``."""

    sweep: str
    source: str
    of: str
    fit: OveroptimisationFit
    points: pd.DataFrame


@once
def overoptimisation_fits(study: StudyResults) -> list[Fitted]:
    """Gao et al.'s curves for every set of gains with three points off the start, fitted in each cell.

    All points weigh the same: their errors are common (the same posts, the same pool) and smallest
    next to the start, where weights by them would let the fit ignore the rest of the curve.
    """
    gains, course = overoptimisation_table(study), ppo_course_table(study)
    sets: list[tuple[str, Form, pd.DataFrame]] = [
        ("policies", "rl", gains[gains["method"] == "ppo"]),
        ("best_of_n", "best_of_n", gains[gains["method"] == "best_of_n"]),
        ("course", "rl", course),
    ]
    found = []
    for source, form, table in sets:
        for (sweep, of), points in table[table["kl"] > 0].groupby(["sweep", "measure"], sort=False):
            if points["kl"].nunique() >= 3:
                fits = {
                    cell: fit_overoptimisation(part["kl"], part["value"], form)
                    for cell, part in _points_of_cells(points).items()
                }
                if fits:
                    found.append(Fitted(str(sweep), source, str(of), mean_fit(fits), points))
    return found


def _points_of_cells(points: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """``kl`` and ``value`` of every cell, of the points off the start that have it."""
    if points["cells"].max() < 2:
        return {"": points}
    rows = [
        {"cell": cell, "kl": values_of(row.kl_cells).get(cell, row.kl), "value": value}
        for row in points.itertuples()
        for cell, value in values_of(row.cell_values).items()
    ]
    table = pd.DataFrame(rows)
    parts = {str(cell): part for cell, part in table[table["kl"] > 0].groupby("cell")}
    return {cell: part for cell, part in parts.items() if part["kl"].nunique() >= 3}


@once
def overoptimisation_fit_table(study: StudyResults) -> pd.DataFrame:
    """alpha, beta and the KL of the peak of every fitted curve.

    Measures ``alpha`` (score a sqrt nat), ``beta`` (its unit follows from the form: R = d (alpha -
    beta d) for ``best_of_n``, d (alpha - beta ln d) for ``rl``, d = sqrt(KL)) and ``peak_kl`` (nats),
    which a curve that never falls has not; it is the square of the mean d. Within a single cell points share
    their posts, so the intervals, which take them for independent, are a guide.

    Returns:
        Result columns (``n``: points) and ``sweep``, ``form``, ``source``, ``of``, ``peak_inside``
        (whether the peak lies among the points), ``residual`` (root mean square, score).
    """
    rows: list[FurtherResult] = []
    for one in overoptimisation_fits(study):
        fit, first = one.fit, one.points.iloc[0]
        with np.errstate(over="ignore"):
            at, low, high = np.square([fit.peak.value, max(fit.peak.low, 0), fit.peak.high]).tolist()
        peak = Estimate(at, low, high, np.nan, fit.peak.n, fit.peak.clusters, fit.peak.cells)
        runs = sorted({name for joined in one.points["runs"] for name in joined.split()})
        slope = "score a sqrt nat"
        values = {
            "alpha": (slope, fit.alpha),
            "beta": (slope if fit.form == "rl" else "score a nat", fit.beta),
        }
        if np.isfinite(peak.value):
            values["peak_kl"] = ("nats a sequence", peak)
        for measure, (unit, estimate) in values.items():
            result = named(
                measure, unit, estimate, runs, method=first["method"], size=first["size"],
                params=first["params"], selected_by=first["selected_by"], scorer=one.of.removesuffix("_gain"),
            )  # fmt: skip
            more = {"sweep": one.sweep, "form": fit.form, "source": one.source, "of": one.of}
            rows.append((result, more | {"peak_inside": fit.peak_inside, "residual": fit.residual}))
    return further_table(rows, "sweep", "form", "source", "of", "peak_inside", "residual")


def overoptimisation_section(study: StudyResults) -> Section:
    """The KL sweep (Fig. 5), and PPO and best of N on one KL axis with Gao et al.'s curves."""
    section = Section(
        "overoptimisation",
        "Over-optimisation",
        "As a policy moves away from the supervised policy, the score of the optimised reward model keeps "
        "rising, but people's preference does not. KL is the mean log-prob ratio to the supervised policy "
        "over the policy's own samples at T = 1, in nats per sequence.",
    )
    sweep, paper = kl_sweep_table(study), published(study.paper, "fig5")
    if len(sweep) or paper is not None:
        section.pictures.append(_sweep_picture(sweep, paper))
    if len(sweep):
        index = ["sweep", "method", "variant", "beta", "n", "posts", "cells", "runs"]
        shown = crossed(sweep.sort_values("kl", kind="stable"), index, "measure")
        caption = f"Policies of the KL sweeps at T = 1, by KL (nats a sequence); {intervals(sweep)}."
        section.tables.append(Table("kl_sweep", sweep, caption, shown))
    missing = [] if len(sweep) else ["No KL sweep: fewer than three KL coefficients were sampled at T = 1."]
    try:
        _add_gains(study, section)
    except LabError as error:
        missing.append(f"Gains over the start: no estimate ({error.what}).")
    return without(section, *missing) if missing else section


def _add_gains(study: StudyResults, section: Section) -> None:
    gains, course = overoptimisation_table(study), ppo_course_table(study)
    fits = overoptimisation_fit_table(study)
    section.pictures.extend(_gain_pictures(study, gains, course))
    if len(gains):
        index = ["sweep", "method", "variant", "selected_by", "best_of", "kl", "n", "posts", "cells", "runs"]
        shown = crossed(gains.assign(kl=gains["kl"].round(3)), index, "measure")
        caption = f"Score gained over the start against KL (nats a sequence); {intervals(gains)}."
        section.tables.append(Table("overoptimisation", gains, caption, shown))
    if len(fits):
        section.tables.append(_fit_table(fits))
    if len(course):
        shown = course[
            ["sweep", "iteration", "measure", "kl", "value", "low", "high", "n", "posts", "cells"]
        ].round(4)
        caption = (
            "Gains along PPO's runs over their first rollout, which the supervised policy itself sampled; KL "
            f"{_at_temperature(course)}."
        )
        section.tables.append(Table("ppo_course", course, caption, shown.rename(columns={"sweep": "run"})))


def _sweep_picture(sweep: pd.DataFrame, paper: pd.DataFrame | None) -> Picture:
    panels = {f"Policy {name}": rows for name, rows in sweep.groupby("sweep", sort=False)}
    caption = (
        "This study: each point is a policy trained with its own KL coefficient; KL 0 is the supervised "
        f"policy at the same temperature; {bars(sweep)}. "
        if panels
        else "Not run here; only the paper's points are shown. "
    ) + "The paper's panel: PPO against a weaker reward model (rm3), digitised, without intervals."
    return Picture("kl_sweep", kl_sweep(panels, paper), caption)


def _gain_pictures(study: StudyResults, gains: pd.DataFrame, course: pd.DataFrame) -> list[Picture]:
    fitted = overoptimisation_fits(study)
    pictures = []
    swept = list(dict.fromkeys(gains.loc[gains["method"] == "ppo", "sweep"]))
    names = swept or list(dict.fromkeys(gains.loc[gains["selected_by"] == "rm", "sweep"]))
    for number, name in enumerate(names):
        rows = gains[gains["sweep"] == name].assign(line=lambda table: table["method"])
        curves = {
            (one.source.replace("policies", "ppo"), one.of): one.fit
            for one in fitted
            if one.sweep == name and one.source != "course"
        }
        lines = [_GAIN_LINES[method] for method in _GAIN_LINES if (rows["method"] == method).any()]
        caption = (
            f"Policy and reward model {name}. Score gained over the start against d = sqrt(KL): "
            f"{', and '.join(lines)}; {bars(rows)}. Lines: fitted, Gao et al. (2022)."
        )
        file = "overoptimisation" + (f"_{number + 1}" if number else "")
        pictures.append(Picture(file, gains_by_kl(rows, curves), caption))
    for number, (name, courses) in enumerate(_course_lines(study, course).items()):
        caption = (
            f"Along PPO's training ({name}): the gain of each kept rollout over the first, against "
            f"d = sqrt(KL), {_at_temperature(courses)}; {bars(courses)}."
        )
        file = "ppo_course" + (f"_{number + 1}" if number else "")
        pictures.append(Picture(file, gains_by_kl(courses, {}), caption))
    return pictures


_GAIN_LINES = {
    "ppo": "PPO from the supervised policy at T = 1, d (a - b ln d)",
    "best_of_n": "best of N of the policy that the pool was drawn from, d (a - b d)",
}
"""Method -> what its start and its fitted curve are."""


def _at_temperature(course: pd.DataFrame) -> str:
    """The temperature at which the rollouts were drawn and their KL was computed."""
    found = sorted(course["temperature"].unique())
    return f"at the rollouts' temperature, T = {' and '.join(f'{one:g}' for one in found)}"


def _course_lines(study: StudyResults, course: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Title -> rows with ``line``: every sweep by KL coefficient; without a sweep the main runs by size."""
    drawn = {}
    for sweep in find_sweeps(study):
        trained = _trained(study, sweep)
        of_sweep = course["runs"].map(lambda names, trained=trained: bool(trained & set(names.split())))
        rows = course[of_sweep.astype(bool)].sort_values(["beta", "kl"])
        if len(rows):
            drawn[f"sweep {sweep.name}"] = rows.assign(line=rows["beta"].map("beta = {:g}".format))
    main = course[course["variant"] == ""].sort_values(["params", "kl"])
    if drawn or main.empty:
        return drawn
    return {"one colour per size": main.assign(line="Size " + main["size"])}


def _trained(study: StudyResults, sweep: KLSweep) -> set[str]:
    scored = {run.run: run.parents.get("policy", "") for run in study.runs.finished("score")}
    return {scored[name] for name in sweep.samples.loc[sweep.samples["beta"].notna(), "run"].unique()}


def _fit_table(fits: pd.DataFrame) -> Table:
    index = ["sweep", "source", "of", "form", "peak_inside", "residual", "n", "cells"]
    shown = crossed(fits.assign(residual=fits["residual"].round(4)), index, "measure")
    caption = (
        "Gao et al.'s curves, d = sqrt(KL): R = d (alpha - beta d) for best of N, d (alpha - beta ln d) for "
        "PPO, fitted to the policies of a sweep, to best of N, or along one run's course; peak_kl in nats, "
        "empty where the curve never falls; n: points. Fitted in each cell; in a single one the points share "
        "posts, so the intervals are a guide."
    )
    return Table("overoptimisation_fits", fits, caption, shown)
