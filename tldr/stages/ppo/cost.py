"""What PPO costs, and what it leaves for others."""

from __future__ import annotations

from dataclasses import replace

from tldr.plan.costs import PlannedRun, StageCost
from tldr.plan.jobs import RunJob
from tldr.plan.memory import Options, TrainingStep
from tldr.settings.base import scalar
from tldr.stages.ppo.settings import PPOSettings
from tldr.study.runs import Run


def job(planned: PlannedRun) -> RunJob:
    """Policy and value network trained on what the policy samples; reference and reward model are frozen."""
    settings, lengths, shape = settings_of(planned.run), planned.lengths, planned.shape
    judging = planned.shape_of("reward")
    batch, options = scalar(settings.batch), settings.samples_per_query
    separate = settings.algorithm == "ppo" and settings.value_network == "separate"
    step = TrainingStep(
        "ppo" if separate else "policy_only",
        shape,
        lengths.query,
        options,
        lengths.response,
        batch // options // settings.minibatches,
        frozen=(shape.policy if settings.lora is None else 0, judging.reward),
        drawn=batch // options,
        reward=None if judging is shape else judging,
    )
    return planned.training(
        step, settings, examples=scalar(settings.episodes) / options, epochs=settings.epochs
    )


def options(run: Run, planned: Options) -> Options:
    """The precision and place of the frozen models."""
    settings = settings_of(run)
    in_bf16 = settings.frozen_dtype == "bf16"
    return replace(planned, frozen_bf16=in_bf16, frozen_place=settings.frozen_place)


def keeps_value(run: Run) -> bool:
    """Whether there is a value network of its own, and it is kept."""
    settings = settings_of(run)
    return settings.algorithm == "ppo" and settings.value_network == "separate" and settings.save_value


def settings_of(run: Run) -> PPOSettings:
    """The run's settings."""
    assert isinstance(run.settings, PPOSettings)
    return run.settings


COST = StageCost(job, options=options, keeps_value=keeps_value)
