"""What a reward model costs."""

from __future__ import annotations

from tldr.plan.costs import PlannedRun, StageCost
from tldr.plan.jobs import RunJob
from tldr.plan.memory import TrainingStep
from tldr.plan.uses import LoadedModel
from tldr.settings.base import scalar
from tldr.stages.reward.settings import RewardSettings


def job(planned: PlannedRun) -> RunJob:
    """A model trained on rankings, which scores the references and the held-out pairs at the end."""
    settings, lengths, counts = planned.run.settings, planned.lengths, planned.counts
    assert isinstance(settings, RewardSettings)
    shape = planned.shape
    labelled, _ = counts.comparisons(planned.run)
    together = counts.rankings_per_post(planned.run) if settings.share_posts else 1
    options = together * (max(labels.k[1] for labels in counts.rounds(planned.run)) if counts.counted else 2)
    apart = settings.pairs == "apart"
    step = TrainingStep(
        "reward",
        shape,
        lengths.query,
        2 if apart else options,
        lengths.rm_response,
        max(1, round(scalar(settings.batch) / together)),
        frozen_layers=round(settings.frozen_layers * shape.layers),  # as `freeze_lowest`
    )
    pairs = counts.pairs_per_ranking(planned.run) if apart else 1
    return planned.training(
        step,
        settings,
        examples=min(settings.limit or labelled, labelled) / together * pairs,
        epochs=scalar(settings.epochs),
        judged=_judged(planned, settings, step, options),
    )


def _judged(planned: PlannedRun, settings: RewardSettings, step: TrainingStep, options: int) -> LoadedModel:
    """What the trained model scores: the references, and the rankings that were held out.

    Args:
        options: summaries of a held-out ranking, or of all of a post, encoded together.
    """
    references = planned.counts.posts("sft")
    if settings.shift_posts is not None:
        references = min(settings.shift_posts, references)
    _, held_out = planned.counts.comparisons(planned.run)
    rows = ((references, 1), (held_out, options))
    portions = (planned.portion(queries, each, step.response) for queries, each in rows)
    return LoadedModel("judge", step.shape, tuple(portions))


COST = StageCost(job)
