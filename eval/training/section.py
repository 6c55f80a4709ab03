"""PPO's course, and the gain from a separate value network (the paper's Fig. 11)."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd

from eval.common.io import load_samples
from eval.common.rows import FurtherResult, further_table, intervals, runs_by_name, settings_of
from eval.common.runs import StudyRun, training_metrics
from eval.common.stats import Estimate, bootstrap_means, cellwise
from eval.common.study import (
    Picture,
    Section,
    StudyResults,
    once,
    plain_table,
    published,
    results_table,
    without,
)
from eval.common.tables import named
from eval.overoptimisation.sweeps import find_sweeps
from eval.training.figure import CURVES, training_curves, value_networks

ROLLOUTS_FILE = "rollouts.jsonl"
LEGIBLE = 7
"""Most KL coefficients that stay legible in one set of panels."""


def training_section(study: StudyResults) -> Section:
    """PPO's training curves: the main runs, the KL sweeps, and the value networks compared."""
    section = Section(
        "training",
        "PPO training",
        "The course of PPO training. Reward should rise at a moderate KL. A value function that explains no "
        "variance, or an entropy near zero, is a sign of trouble." + _prompts_note(study),
    )
    _add_value_networks(study, section)
    metrics = training_metrics(study.runs.finished("ppo"))
    if metrics is None:
        return without(section)
    if not {curve.key for curve in CURVES} & set(metrics.columns):
        return without(section, "The PPO runs logged none of the curves.")
    main = metrics[metrics["variant"] == ""] if (metrics["variant"] == "").any() else metrics
    caption = (
        f"One colour per size, {_lines(main)}; raw values, not smoothed; {_kl_temperature(study, main)}."
    )
    section.pictures.insert(0, Picture("training_curves", training_curves(main), caption))
    section.pictures[1:1] = _sweep_pictures(study, metrics)
    last = metrics.groupby("run", sort=False).tail(1).drop(columns=["seconds"], errors="ignore")
    front = ["run", "size", "cell", "variant", "episodes"]
    columns = front + [name for name in last if name not in (*front, "params", "update")]
    section.tables.append(
        plain_table("training_last", last[columns].round(4), "The last update of every PPO run.")
    )
    return section


def _sweep_pictures(study: StudyResults, metrics: pd.DataFrame) -> list[Picture]:
    """The curves of every KL sweep that is small enough to read, one colour per coefficient."""
    policies = {run.run: run.parents.get("policy", "") for run in study.runs.finished("score")}
    pictures = []
    for number, sweep in enumerate(find_sweeps(study), start=1):
        members = sweep.samples.dropna(subset=["beta"]).drop_duplicates("run")
        coefficient = {policies[run]: beta for run, beta in zip(members["run"], members["beta"], strict=True)}
        rows = metrics[metrics["run"].isin(list(coefficient))]
        if rows.empty or len(set(coefficient.values())) > LEGIBLE:
            continue
        beta = rows["run"].map(coefficient)
        drawn = rows.assign(coefficient=beta, line=beta.map("beta = {:g}".format))
        caption = (
            f"Sweep {sweep.name}: one colour per KL coefficient, {_lines(drawn)}; raw values, not smoothed; "
            f"{_kl_temperature(study, drawn)}."
        )
        name = f"training_curves_sweep_{number}"
        pictures.append(Picture(name, training_curves(drawn, by="line", order="coefficient"), caption))
    return pictures


def _lines(metrics: pd.DataFrame) -> str:
    several = metrics["cell"].nunique() > 1
    return "thin lines: single cells, thick: their mean" if several else "one line per run"


def _kl_temperature(study: StudyResults, metrics: pd.DataFrame) -> str:
    """The temperature at which the drawn runs sampled and computed their KL."""
    runs = runs_by_name(study.runs)
    settings = [settings_of(runs[name]) for name in metrics["run"].unique()]
    found = sorted({float(one["temperature"]) for one in settings if "temperature" in one})
    values = f", T = {' and '.join(f'{one:g}' for one in found)}" if found else ""
    return f"KL at the rollouts' temperature{values}"


def compared_runs(study: StudyResults) -> dict[str, dict[str, list[StudyRun]]]:
    """Size -> value network -> PPO runs that differ in it alone: same reward model, beta and prompts."""
    groups: dict[tuple[str, str, Any, Any], dict[str, list[StudyRun]]] = {}
    rewards = runs_by_name(study.runs)
    for run in study.runs.finished("ppo"):
        settings, reward = settings_of(run), rewards.get(run.parents.get("reward", ""))
        variant = reward.variant if reward else ""
        key = (run.size, variant, settings.get("beta"), settings.get("limit"))
        network = str(settings.get("value_network", "separate"))
        groups.setdefault(key, {}).setdefault(network, []).append(run)
    return {size: networks for (size, *_), networks in groups.items() if len(networks) > 1}


@once
def value_network_table(study: StudyResults) -> pd.DataFrame:
    """Score of the last kept rollout of the policies compared in Fig. 11, over cells.

    Measures ``rm_score`` and ``gold_score``, means over the episodes.

    Returns:
        Result columns and ``value_network`` (``separate``, ``shared``), ``iteration``.
    """
    rows: list[FurtherResult] = []
    for size, networks in compared_runs(study).items():
        for network, runs in networks.items():
            kept = [run for run in runs if (run.folder / ROLLOUTS_FILE).is_file()]
            parts = [_last_rollout(run) for run in kept]
            if not parts:
                continue
            samples = pd.concat(parts, ignore_index=True)
            for name in [name for name in ("rm", "gold") if f"score.{name}" in samples]:
                column = f"score.{name}"
                estimate = cellwise(samples, partial(_mean_of, column), study.draws)[column]
                result = named(
                    f"{name}_score", "score", estimate, [run.run for run in kept], method="ppo", scorer=name,
                    size=size, params=kept[0].params, variant=kept[0].variant,
                    temperature=float(samples["temperature"].iloc[0]),
                )  # fmt: skip
                iteration = int(samples["tag.iteration"].max())
                rows.append((result, {"value_network": network, "iteration": iteration}))
    return further_table(rows, "value_network", "iteration")


def _last_rollout(run: StudyRun) -> pd.DataFrame:
    samples = load_samples(run.folder / ROLLOUTS_FILE)
    last: pd.DataFrame = samples[samples["tag.iteration"] == samples["tag.iteration"].max()]
    return last.assign(cell=run.cell, id=run.post_ids(last["id"]))


def _mean_of(column: str, samples: pd.DataFrame, draws: int) -> dict[str, Estimate]:
    return {column: bootstrap_means(samples[[column]], samples["id"], draws=draws)[0]}


def _add_value_networks(study: StudyResults, section: Section) -> None:
    panels = {}
    for size, networks in compared_runs(study).items():
        network = {run.run: name for name, runs in networks.items() for run in runs}
        metrics = training_metrics([run for runs in networks.values() for run in runs])
        if metrics is not None and "score" in metrics:
            panels[f"This study, size {size}"] = metrics.assign(value_network=metrics["run"].map(network))
    paper = published(study.paper, "fig11")
    if not panels and paper is None:
        return
    if panels:
        lines = _lines(pd.concat(panels.values()))
        said = f"{lines[0].upper()}{lines[1:]}: the mean score of an update's episodes, not smoothed. "
    else:
        said = "Not run here. "
    caption = said + "The paper's points were read by eye from its smoothed figure, which has no intervals."
    section.pictures.append(Picture("value_networks", value_networks(panels, paper), caption))
    table = value_network_table(study)
    if len(table):
        caption = f"Scores of the last kept rollout with either value network; {intervals(table)}."
        section.tables.append(results_table("value_networks", table, caption))


def _prompts_note(study: StudyResults) -> str:
    """A note where PPO ran on the SFT posts: the paper uses a larger, body-filtered set."""
    manifests = [run.json("manifest.json") or {} for run in study.runs.finished("data")]
    if not any(manifest.get("ppo_posts_are_sft_posts") for manifest in manifests):
        return ""
    return " The prompts are the supervised posts, as the paper's body-filtered posts were not given."
