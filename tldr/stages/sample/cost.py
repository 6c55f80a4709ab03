"""What sampling a policy costs."""

from __future__ import annotations

from tldr.plan.costs import PlannedRun, Sampled, StageCost
from tldr.plan.jobs import RunJob
from tldr.plan.uses import InferenceJob
from tldr.stages.shared.reporting import ways_of_sampling
from tldr.stages.shared.settings import EvaluationSettings
from tldr.study.runs import Run


def job(planned: PlannedRun) -> RunJob:
    """The policy, sampled once in each way."""
    settings = planned.run.settings
    assert isinstance(settings, EvaluationSettings)
    portions = [planned.reported_portion(settings, 1)] * sampled(planned.run).summaries
    return InferenceJob((planned.model("sample", "policy", *portions),))


def sampled(run: Run) -> Sampled:
    """A summary in each way of sampling."""
    assert isinstance(run.settings, EvaluationSettings)
    return Sampled(run.settings.posts, len(ways_of_sampling(run.settings, run.method)))


COST = StageCost(job, sampled=sampled)
