"""What judging costs on the devices; what a language model at an endpoint costs is in `tldr.plan.judging`."""

from __future__ import annotations

from tldr.plan.costs import PlannedRun, StageCost
from tldr.plan.jobs import RunJob
from tldr.plan.judging import judged_pools, judged_summaries
from tldr.plan.uses import InferenceJob
from tldr.stages.judge.settings import JudgeSettings


def job(planned: PlannedRun) -> RunJob | None:
    """The reward model that scores every summary of the posts, and the reference; None at an endpoint."""
    settings = planned.run.settings
    assert isinstance(settings, JudgeSettings)
    if settings.kind != "reward":
        return None
    posts, texts = planned.reported(settings.posts), judged_summaries(planned.run) + 1
    asked = [
        (posts, texts),
        *((some, each + 1) for some, each in judged_pools(planned.run, planned.reported)),
    ]
    portions = (planned.portion(some, each, planned.lengths.rm_response) for some, each in asked)
    return InferenceJob((planned.model("judge", "reward", *portions),))


COST = StageCost(job)
