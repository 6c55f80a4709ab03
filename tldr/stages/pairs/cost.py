"""What scoring pairs costs."""

from __future__ import annotations

from collections.abc import Iterator

from tldr.plan.costs import PlannedRun, StageCost
from tldr.plan.jobs import RunJob
from tldr.plan.steps import Use
from tldr.plan.uses import InferenceJob, LoadedModel
from tldr.stages.pairs.settings import PairsSettings
from tldr.toy.edits import EDITS

PROBED = 13
"""Different texts of a post's ten probes (`tldr.stages.pairs.probes`), where the post allows them all."""


def job(planned: PlannedRun) -> RunJob:
    """The policies that are sampled (toy world only), then the models that score."""
    return InferenceJob(tuple(_models(planned)))


def _models(planned: PlannedRun) -> Iterator[LoadedModel]:
    settings, study, toy = planned.run.settings, planned.counts.study, planned.counts.toy
    assert isinstance(settings, PairsSettings)
    every, policies = planned.counts.posts("valid2"), planned.inputs("policy-")
    probed = min(settings.posts, every)
    drawn = 2 * len(policies) if toy else 0
    texts = PROBED + (2 * len(EDITS) if toy else 0) + drawn
    if toy:
        for name in policies:
            yield planned.model("sample", name, planned.portion(probed, 2))
    # Questions go round the posts. The number of given labels is not known: one a post.
    asked = toy or study.labels.kind == "people"
    questions = study.labels.items_wanted()["valid2"] if asked else every
    labelled = min(questions, every)
    shown = round(questions / max(labelled, 1) * sum(study.labels.k) / 2)
    window = study.lengths.rm_response
    portions = (
        planned.portion(labelled - min(probed, labelled), shown, window),
        planned.portion(min(probed, labelled), shown + texts, window),
        planned.portion(probed - min(probed, labelled), texts, window),
    )
    for name in planned.inputs("reward-", "sft-"):
        kind: Use = "judge" if name.startswith("reward-") else "score"
        yield planned.model(kind, name, *(portion for portion in portions if portion.queries))


COST = StageCost(job)
