"""What scoring samples costs."""

from __future__ import annotations

from collections.abc import Iterator

from tldr.plan.costs import PlannedRun, StageCost, cost_of
from tldr.plan.jobs import RunJob
from tldr.plan.uses import InferenceJob, LoadedModel
from tldr.stages.shared.settings import EvaluationSettings


def job(planned: PlannedRun) -> RunJob:
    """The models that score, one after the other."""
    return InferenceJob(tuple(_models(planned)))


def _models(planned: PlannedRun) -> Iterator[LoadedModel]:
    settings, parents = planned.run.settings, planned.run.parents
    assert isinstance(settings, EvaluationSettings)
    drawn = parents["samples"].runs[0]
    sampled = cost_of(drawn.stage).sampled(drawn)
    settings = settings.model_copy(update={"posts": sampled.posts})
    plain = planned.reported_portion(settings.model_copy(update={"zero_shot": None}), sampled.summaries)
    yield planned.model("score", "policy", planned.reported_portion(settings, sampled.summaries))
    yield planned.model("score", "sft", plain)
    # The reference is scored beside the samples.
    judged = planned.portion(plain.queries, sampled.summaries + 1, planned.lengths.rm_response)
    yield planned.model("judge", "reward", judged)
    if "ppo" in parents:
        trained = parents["ppo"].runs[0]
        if cost_of(trained.stage).keeps_value(trained):
            yield planned.value_of("ppo", plain)


COST = StageCost(job)
