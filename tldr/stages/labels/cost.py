"""What the comparison pool costs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import factorial

from tldr.plan.costs import PlannedRun, StageCost
from tldr.plan.jobs import RunJob
from tldr.plan.uses import InferenceJob, LoadedModel
from tldr.stages.labels.settings import LabelsSettings


def job(planned: PlannedRun) -> RunJob | None:
    """The policies that are sampled; none where labels are given."""
    models = tuple(_models(planned))
    return InferenceJob(models) if models else None


def _models(planned: PlannedRun) -> Iterator[LoadedModel]:
    settings, policies = planned.run.settings, planned.inputs("policy-")
    assert isinstance(settings, LabelsSettings)
    questions = settings.pairs + settings.valid_pairs
    shares = policy_slots(settings)
    for name in policies:
        each = questions / len(policies)
        portions = (planned.portion(shares[slots] * each, slots) for slots in sorted(shares) if slots)
        yield planned.model("sample", name, *portions)


def policy_slots(settings: LabelsSettings) -> dict[int, float]:
    """How many of a question's summaries the policy writes -> share of the questions.

    A slot is the reference's, a writer's or the policy's by their shares; of several references all but one
    become the policy's.
    """
    low, high = settings.k
    reference, writer = settings.reference_share, settings.writer_share
    shares: dict[int, float] = {}
    for k in range(low, high + 1):
        for references, writers in product(range(k + 1), repeat=2):
            others = k - references - writers
            if others < 0:
                continue
            orders = factorial(k) // (factorial(references) * factorial(writers) * factorial(others))
            chance = reference**references * writer**writers * (1 - reference - writer) ** others
            slots = k - writers - min(references, 1)
            shares[slots] = shares.get(slots, 0.0) + orders * chance / (high - low + 1)
    return shares


COST = StageCost(job)
