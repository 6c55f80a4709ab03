"""What pretraining costs."""

from __future__ import annotations

from tldr.plan.costs import PlannedRun, StageCost
from tldr.plan.jobs import RunJob
from tldr.plan.memory import TrainingStep
from tldr.settings.base import scalar
from tldr.stages.pretrain.settings import PretrainSettings


def job(planned: PlannedRun) -> RunJob:
    """Whole texts, which fill the model's context, for a number of updates."""
    settings, model = planned.run.settings, planned.run.model
    assert isinstance(settings, PretrainSettings) and model is not None
    batch = scalar(settings.batch)
    step = TrainingStep("text", planned.shape, model.context - 1, 1, 1, batch)
    return planned.training(step, settings, examples=scalar(settings.steps) * batch, full=True)


COST = StageCost(job)
