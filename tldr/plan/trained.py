"""The stages that train, as jobs: what their settings and the study's data come to."""

from __future__ import annotations

from dataclasses import replace

from tldr.plan.counts import Counts
from tldr.plan.flops import Row
from tldr.plan.jobs import Trained
from tldr.plan.memory import Training
from tldr.plan.steps import Kind, Shape
from tldr.plan.uses import Model, Portion
from tldr.settings.base import scalar
from tldr.settings.training import Finetuning
from tldr.settings.training import Training as TrainingSettings
from tldr.stages.data.settings import FileData
from tldr.stages.ppo.settings import PPOSettings
from tldr.stages.pretrain.settings import PretrainSettings
from tldr.stages.reward.settings import RewardSettings
from tldr.stages.sft.settings import SFTSettings
from tldr.study.graph import Run


def trained(run: Run, settings: TrainingSettings, counts: Counts, processes: int) -> Trained:
    """A run's training step and how often it is made."""
    step, examples, epochs = _step(run, settings, counts)
    per_process = max(1, step.batch // processes)
    asked = settings.micro_batch
    micro = per_process if asked is None else min(scalar(asked), per_process)
    step = replace(step, counted=micro, moments=8 if settings.optimizer.kind == "adamw" else 2)
    lora = settings.lora if isinstance(settings, Finetuning) else None
    below = step.frozen_layers
    if lora is not None:
        adapters = step.shape.adapters(lora)
        held = adapters - step.shape.adapters(lora, below) if below else 0
        step = replace(step, adapters=step.networks * adapters, held=held)
    elif below:
        step = replace(step, held=step.shape.reward - step.shape.reward_above(below))
    window = Row(step.query, step.options, step.response)
    row = window if isinstance(settings, PretrainSettings) else counts.typical(window)
    judged = _judged(settings, step, counts) if isinstance(settings, RewardSettings) else None
    return Trained(run.stage, step, row, examples, epochs, judged)


def _judged(settings: RewardSettings, step: Training, counts: Counts) -> Model:
    """What a reward model scores when it is trained: the references, and the pairs that were held out."""
    references = counts.posts("sft")
    if settings.shift_posts is not None:
        references = min(settings.shift_posts, references)
    rows = ((references, 1), (counts.comparisons()[1], step.options))
    windows = [(queries, Row(step.query, options, step.response)) for queries, options in rows]
    portions = (Portion(queries, window, counts.typical(window)) for queries, window in windows)
    return Model("judge", step.shape, tuple(portions))


def _step(run: Run, settings: TrainingSettings, counts: Counts) -> tuple[Training, float, float]:
    """The step, the examples (queries) that it goes through, and how often through each."""
    assert run.model is not None
    study, shape, batch = counts.study, counts.shape(run.model), scalar(settings.batch)
    lengths = study.lengths
    windows = (lengths.query, 1, lengths.response)
    if isinstance(settings, SFTSettings):
        kind: Kind = "text" if settings.query_loss else "response"
        step = Training(kind, shape, *windows, batch, keeps_best=settings.select == "valid_loss")
        return step, counts.posts("sft"), scalar(settings.epochs)
    if isinstance(settings, RewardSettings):
        options = 2 if isinstance(study.data, FileData) else study.labels.k[1]
        windows = (lengths.query, options, lengths.rm_response)
        every, _ = counts.comparisons()
        labels = min(settings.limit or every, every)
        below = round(settings.frozen_layers * shape.layers)  # as `freeze_lowest`
        return (
            Training("reward", shape, *windows, batch, frozen_layers=below),
            labels,
            scalar(settings.epochs),
        )
    if isinstance(settings, PPOSettings):
        queries = scalar(settings.episodes) / settings.samples_per_query
        return _ppo(settings, shape, batch, windows), queries, settings.epochs
    assert isinstance(settings, PretrainSettings)
    step = Training("text", shape, run.model.context - 1, 1, 1, batch)
    return step, scalar(settings.steps) * batch, 1


def _ppo(settings: PPOSettings, shape: Shape, batch: int, windows: tuple[int, int, int]) -> Training:
    options = settings.samples_per_query
    separate = settings.algorithm == "ppo" and settings.value_network == "separate"
    query, _, response = windows
    return Training(
        "ppo" if separate else "policy_only",
        shape,
        query,
        options,
        response,
        batch // options // settings.minibatches,
        frozen=(shape.policy if settings.lora is None or settings.rounds > 1 else 0, shape.reward),
        drawn=batch // options,
    )
