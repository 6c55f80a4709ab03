"""Policies trained at several KL coefficients against one reward model, with their common start."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from eval.common.rows import runs_by_name, settings_of
from eval.common.runs import StudyRun
from eval.common.study import StudyResults, once
from eval.common.tables import group_columns
from eval.reward.scored_pairs import scorer_name

FURTHER = ("sweep", "beta", "kl", "kl_low", "kl_high", "kl_cells")
"""Columns of the tables of sweeps besides those of a result."""
BETAS = 3
"""Different KL coefficients that make a sweep."""
PROXY = ("score.proxy", "score.proxy_reference")


@dataclass(frozen=True)
class KLSweep:
    """A KL sweep: PPO policies of one size, trained against one reward model, and their SFT start.

    Attributes:
        name: size and reward model, ``m, rm_m_n750``.
        samples: all drawn at T = 1 without top-p, as `eval.common.tables.group_columns` gives them, with
            ``kl`` (log-prob ratio to SFT, nats), ``beta`` (NaN: the start) and the scores of the
            reward model that was optimised as ``score.proxy`` and ``score.proxy_reference``; NaN
            where the start was not scored by it.
    """

    name: str
    samples: pd.DataFrame


@dataclass(frozen=True)
class _Member:
    """A score run of a sweep's policy, the PPO run that made the policy, and its reward model."""

    scored: StudyRun
    ppo: StudyRun
    reward: StudyRun
    beta: float


@once
def find_sweeps(study: StudyResults) -> list[KLSweep]:
    """The study's KL sweeps: at least `BETAS` coefficients with samples at T = 1; cells together.

    Policies with different value networks, or on another part of the prompts, are in different sweeps;
    adaptive coefficients are left out.
    """
    if study.samples is None:
        return []
    groups: dict[tuple[str, str, str, int | None], list[_Member]] = {}
    by_name = runs_by_name(study.runs)
    for run in study.runs.finished("score"):
        ppo = by_name.get(run.parents.get("policy", ""))
        reward = by_name.get(ppo.parents.get("reward", "")) if ppo is not None else None
        if ppo is None or ppo.stage != "ppo" or reward is None:
            continue
        settings = settings_of(ppo)
        if settings.get("beta") is None or settings.get("adaptive_kl"):
            continue
        optimised, network = (
            scorer_name(reward.size, reward.variant),
            settings.get("value_network", "separate"),
        )
        key = (ppo.size, optimised, network, settings.get("limit"))
        groups.setdefault(key, []).append(_Member(run, ppo, reward, float(settings["beta"])))
    found = []
    for (size, optimised, network, limit), members in groups.items():
        samples = _samples(study.samples, members, study.runs.finished("score"))
        if samples["beta"].nunique() >= BETAS:
            name = ", ".join(filter(None, (size, optimised)))
            name += "" if network == "separate" else f", {network} value network"
            name += "" if limit is None else f", {limit:,} posts"
            found.append(KLSweep(name, samples))
    return found


def _samples(samples: pd.DataFrame, members: list[_Member], scored: list[StudyRun]) -> pd.DataFrame:
    parts = [_of_run(samples, member.scored, member.reward, member.beta) for member in members]
    for start in dict.fromkeys(_start(member.ppo) for member in members):
        rewards = {member.reward.run: member.reward for member in members if _start(member.ppo) == start}
        runs = [run for run in scored if run.parents.get("policy") == start]
        for reward in rewards.values():
            # Several reward models may have scored the same samples: the sweep's own comes first.
            runs.sort(key=lambda run: run.parents.get("reward") != reward.run)
            parts += [_of_run(samples, run, reward, np.nan) for run in runs[:1]]
    return group_columns(pd.concat(parts, ignore_index=True))


def _start(ppo: StudyRun) -> str:
    return ppo.parents.get("reference") or ppo.parents.get("policy", "")


def _of_run(samples: pd.DataFrame, run: StudyRun, reward: StudyRun, beta: float) -> pd.DataFrame:
    """A score run's samples at T = 1: elsewhere the mean log-ratio is not the policy's KL."""
    drawn = samples[(samples["run"] == run.run) & (samples["temperature"] == 1) & (samples["top_p"] == 1)]
    scorer = "rm" if run.parents.get("reward") == reward.run else scorer_name(reward.size, reward.variant)
    columns = [f"score.{scorer}", f"score.{scorer}_reference"]
    values = [drawn.get(name, np.nan) for name in columns]
    return drawn.assign(
        beta=beta,
        kl=drawn["logprob"].astype(float) - drawn["logprob_sft"].astype(float),
        **dict(zip(PROXY, values, strict=True)),
    )


def actual_scorers(columns: Iterable[object]) -> list[str]:
    """The scorers with a probability of being preferred to the reference: X in ``score.X_preference``."""
    names = [str(name) for name in columns]
    return [
        name.removeprefix("score.").removesuffix("_preference")
        for name in names
        if name.startswith("score.") and name.endswith("_preference")
    ]
