"""What best-of-N costs."""

from __future__ import annotations

from tldr.plan.costs import PlannedRun, Sampled, StageCost
from tldr.plan.jobs import RunJob
from tldr.plan.uses import InferenceJob
from tldr.stages.best_of_n.settings import BestOfNSettings
from tldr.study.runs import Run


def job(planned: PlannedRun) -> RunJob:
    """A policy that is sampled N times a post; it stays on the device while the reward models score."""
    settings = settings_of(planned.run)
    portion = planned.portion(planned.reported(settings.posts), settings.n)
    policy = planned.model("sample", "policy", portion)
    rewards = (
        planned.model("judge", name, portion, beside=policy.parameters) for name in planned.inputs("reward")
    )
    return InferenceJob((policy, *rewards))


def sampled(run: Run) -> Sampled:
    """The best summary by each scorer."""
    settings = settings_of(run)
    return Sampled(settings.posts, len(settings.scorers))


def settings_of(run: Run) -> BestOfNSettings:
    """The run's settings."""
    assert isinstance(run.settings, BestOfNSettings)
    return run.settings


COST = StageCost(job, sampled=sampled)
