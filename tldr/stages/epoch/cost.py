"""What choosing an epoch costs."""

from __future__ import annotations

from tldr.plan.costs import PlannedRun, StageCost, cost_of
from tldr.plan.jobs import RunJob
from tldr.plan.uses import InferenceJob
from tldr.stages.epoch.settings import EpochSettings


def job(planned: PlannedRun) -> RunJob:
    """Every epoch's policy, sampled one after the other, and then the reward model on all summaries."""
    settings, trained = planned.run.settings, planned.run.parents["policy"].runs[0]
    assert isinstance(settings, EpochSettings)
    every = planned.counts.posts("valid1")
    posts = every if settings.posts is None else min(settings.posts, every)
    epochs = cost_of(trained.stage).checkpoints(trained)
    policy = planned.model("sample", "policy", *[planned.portion(posts, 1)] * epochs)
    return InferenceJob((policy, planned.model("judge", "reward", planned.portion(posts, epochs))))


COST = StageCost(job)
