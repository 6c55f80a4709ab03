"""What supervised fine-tuning costs."""

from __future__ import annotations

from tldr.plan.costs import PlannedRun, StageCost
from tldr.plan.jobs import RunJob
from tldr.plan.memory import TrainingStep
from tldr.settings.base import scalar
from tldr.stages.sft.settings import SFTSettings
from tldr.study.runs import Run


def job(planned: PlannedRun) -> RunJob:
    """A policy trained on the references; `select: valid_loss` keeps a second copy of its weights."""
    settings, lengths = planned.run.settings, planned.lengths
    assert isinstance(settings, SFTSettings)
    step = TrainingStep(
        "text" if settings.query_loss else "response",
        planned.shape,
        lengths.query,
        1,
        lengths.response,
        scalar(settings.batch),
        keeps_best=settings.select == "valid_loss",
    )
    posts = planned.counts.posts("sft")
    examples = min(settings.limit or posts, posts)
    return planned.training(step, settings, examples=examples, epochs=scalar(settings.epochs))


def checkpoints(run: Run) -> int:
    """Those of the kept epochs and the final one."""
    assert isinstance(run.settings, SFTSettings)
    return len(run.settings.kept_epochs()) + 1


COST = StageCost(job, checkpoints=checkpoints)
