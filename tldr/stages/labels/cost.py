"""What the comparison pool costs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import comb, factorial

from tldr.plan.costs import PlannedRun, StageCost
from tldr.plan.jobs import RunJob
from tldr.plan.uses import InferenceJob, LoadedModel
from tldr.stages.labels.algorithm import POSTS
from tldr.stages.labels.settings import LabelsSettings


def job(planned: PlannedRun) -> RunJob | None:
    """The policies that are sampled, and the reward models that choose among samples."""
    models = (*_models(planned), *_choosing(planned))
    return InferenceJob(models) if models else None


def _models(planned: PlannedRun) -> Iterator[LoadedModel]:
    settings, policies = planned.run.settings, planned.inputs("policy-")
    assert isinstance(settings, LabelsSettings)
    if not policies:  # the labels are given
        return
    if settings.kind == "people":
        yield from _for_people(planned, settings)
        return
    questions = settings.pairs * settings.made_of_one + settings.valid_pairs
    shares = slots_of_one(policy_slots(settings), len(policies))
    for name in policies:
        chooser = f"chooser-{name.removeprefix('policy-')}"
        n = settings.best_of if chooser in planned.run.parents else 1
        portions = [planned.portion(share * questions, n * slots) for slots, share in sorted(shares.items())]
        policy = planned.model("sample", name, *portions)
        yield policy
        if n > 1:
            yield planned.model("judge", chooser, *portions, beside=policy.parameters)


def _choosing(planned: PlannedRun) -> Iterator[LoadedModel]:
    """The reward models that score the summaries of every training question that is made."""
    settings = planned.run.settings
    assert isinstance(settings, LabelsSettings)
    asked = settings.items_made() if settings.kind == "people" else settings.items_wanted()
    questions = asked["train"] * settings.made_of_one
    portion = planned.portion(questions, settings.k[1], planned.lengths.rm_response)
    for name in planned.inputs("reward-"):
        yield planned.model("judge", name, portion)


def _for_people(planned: PlannedRun, settings: LabelsSettings) -> Iterator[LoadedModel]:
    """Every policy writes, at each temperature, about every post that people are asked about."""
    posts = sum(
        min(total, planned.counts.posts(POSTS[split])) for split, total in settings.posts_sampled().items()
    )
    policies = planned.inputs("policy-")
    for name in policies:
        chooser = f"chooser-{name.removeprefix('policy-')}"
        n = settings.best_of if chooser in planned.run.parents else 1
        options = n * settings.draws(len(policies))
        portion = planned.portion(posts * len(settings.temperatures), options)
        policy = planned.model("sample", name, portion)
        yield policy
        if n > 1:
            yield planned.model("judge", chooser, portion, beside=policy.parameters)


def slots_of_one(shares: dict[int, float], policies: int) -> dict[int, float]:
    """How many of a question's summaries one policy writes, if each slot draws one of them; 0 is left out.

    Args:
        shares: the same for all policies together, as `policy_slots` gives it.
    """
    found: dict[int, float] = {}
    for slots, share in shares.items():
        for own in range(1, slots + 1):
            chance = comb(slots, own) * (policies - 1) ** (slots - own) / policies**slots
            found[own] = found.get(own, 0.0) + share * chance
    return {own: share for own, share in found.items() if share}


def policy_slots(settings: LabelsSettings) -> dict[int, float]:
    """How many of a question's summaries the policies write -> share of the questions.

    A slot is the reference's, a writer's or a policy's by their shares; of several references all but one
    become a policy's.
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
