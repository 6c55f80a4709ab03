"""The runs in which a study's judges compare the samples of one seed with the references."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tldr.stages.judge import JudgeInputs
from tldr.stages.judge.settings import JudgeSettings
from tldr.study.hashes import FileHashes
from tldr.study.runs import InputSource, Run, run_of
from tldr.study.seed_runs import SeedRuns
from tldr.study.settings import Study
from tldr.study.variant_settings import PPOVariant

Rewards = Mapping[tuple[str, str], InputSource]
"""Reward models of variants and earlier rounds: (variant or round, size) -> run."""


def judge_runs(study: Study, files: FileHashes, seed_runs: SeedRuns, rewards: Rewards) -> Iterator[Run]:
    """A run for every judge: of the main samples and, if asked for, of those of variants and rounds, and of
    the best of pools."""
    for name, judge in study.judges.items():
        reward = _judging(judge, files, rewards)
        pools = seed_runs.pools if judge.pool_share else {}
        trained = _trained_against(study, seed_runs, rewards) | _choosers(pools)
        inputs = JudgeInputs(
            data=seed_runs.data,
            samples=seed_runs.scored | (seed_runs.further if judge.further else {}),
            pools=pools,
            reward=reward,
            trained=trained if reward else {},
        )
        model = list(study.ladder.values())[-1]
        yield run_of(inputs, judge, seed=seed_runs.seed, variant=name, model=model)


def _judging(judge: JudgeSettings, files: FileHashes, rewards: Rewards) -> InputSource | None:
    """The reward model that judges, if one does; of a variant that of the ladder's last size."""
    if judge.path is not None:
        return InputSource.outside(judge.path, files)
    of_variant = [source for (variant, _), source in rewards.items() if variant == judge.variant]
    return of_variant[-1] if of_variant else None


def _trained_against(study: Study, seed_runs: SeedRuns, rewards: Rewards) -> dict[str, InputSource]:
    """Every reward model that a policy of the seed was trained against, by name."""
    used = {variant.reward for variant in study.variants.values() if isinstance(variant, PPOVariant)}
    used |= {f"r{number}" for number in range(1, len(study.rounds) + 1)}
    others = {f"{size}_{name}": source for (name, size), source in rewards.items() if name in used}
    return seed_runs.rewards | others


def _choosers(pools: Mapping[str, InputSource]) -> dict[str, InputSource]:
    """Every further reward model that chooses in a pool, by name: best-of-N is optimised against it."""
    return {
        name.removeprefix("reward-"): source
        for pool in pools.values()
        for name, source in pool.runs[0].parents.items()
        if name.startswith("reward-")
    }
