"""What a stage tells the plan about a run: `COST` in the stage's ``cost.py``.

A stage without that file has no cost worth planning.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec

from tldr.plan.counts import Counts
from tldr.plan.flops import PackedRow
from tldr.plan.jobs import RunJob, TrainingJob
from tldr.plan.memory import Options, TrainingStep
from tldr.plan.steps import Shape, Use
from tldr.plan.uses import LoadedModel, Portion
from tldr.settings.base import scalar
from tldr.settings.models import Lengths
from tldr.settings.training import Finetuning, Training
from tldr.stages.shared.settings import NEWS, EvaluationSettings
from tldr.study.runs import Run


@dataclass(frozen=True)
class PlannedRun:
    """A run, its study, and the number of processes that train together."""

    run: Run
    counts: Counts
    processes: int = 1

    @property
    def lengths(self) -> Lengths:
        """The study's windows."""
        return self.counts.study.lengths

    @property
    def shape(self) -> Shape:
        """Shape of the run's own model."""
        assert self.run.model is not None
        return self.counts.shape(self.run.model)

    def shape_of(self, name: str) -> Shape:
        """Shape of an input's model; an external model is taken to be the run's own."""
        runs = self.run.parents[name].runs
        spec = runs[0].model if runs else self.run.model
        assert spec is not None
        return self.counts.shape(spec)

    def inputs(self, *prefixes: str) -> list[str]:
        """Names of the inputs with these prefixes, in the order in which their models are loaded."""
        return sorted(name for name in self.run.parents if name.startswith(prefixes))

    def value_of(self, name: str, *portions: Portion) -> LoadedModel:
        """The value network that an input, a PPO run, kept: it has the shape of that run's reward model."""
        (trained,) = self.run.parents[name].runs
        return LoadedModel("judge", replace(self, run=trained).shape_of("reward"), portions)

    def model(self, kind: Use, name: str, *portions: Portion, beside: int = 0) -> LoadedModel:
        """An input's model and the queries that it processes."""
        return LoadedModel(kind, self.shape_of(name), portions, beside)

    def portion(self, queries: float, options: int, response: int | None = None) -> Portion:
        """Posts in the study's format; responses have at most `response` tokens (None: the policy's)."""
        window = PackedRow(self.lengths.query, options, response or self.lengths.response)
        return Portion(queries, window, self.counts.typical(window))

    def reported(self, posts: int | None) -> int:
        """Number of posts or articles that are reported on, at most `posts`."""
        every = self.counts.posts(self.run.dataset or "valid2")
        return every if posts is None else min(posts, every)

    def reported_portion(self, settings: EvaluationSettings, options: int) -> Portion:
        """The posts as the run's own policy reads them; zero-shot, in-context examples come first."""
        portion = self.portion(self.reported(settings.posts), options)
        if self.run.dataset == NEWS:
            return _filled(portion, self.lengths.query)  # articles fill the query window
        zero_shot = settings.zero_shot if self.run.method == "pretrained" else None
        if zero_shot is None:
            return portion
        shown = (zero_shot.examples + 1) * self.counts.assumed.query
        return _filled(portion, zero_shot.query_tokens, shown)

    def training(
        self,
        step: TrainingStep,
        settings: Training,
        *,
        examples: float,
        epochs: float = 1,
        full: bool = False,
        judged: LoadedModel | None = None,
    ) -> TrainingJob:
        """A stage on the training loop.

        Args:
            step: without micro-batch, optimizer state and adapters, which come from `settings`.
            full: whether the examples fill their windows.
            examples, epochs, judged: see `TrainingJob`.
        """
        per_process = max(1, step.batch // self.processes)
        asked = settings.micro_batch
        micro = per_process if asked is None else min(scalar(asked), per_process)
        step = replace(step, counted=micro, moments=8 if settings.optimizer.kind == "adamw" else 2)
        lora = settings.lora if isinstance(settings, Finetuning) else None
        below = step.frozen_layers
        if lora is not None:
            adapters = [network.adapters(lora) for network in step.networks]
            held = adapters[0] - step.shape.adapters(lora, below) if below else 0
            step = replace(step, adapters=sum(adapters), held=held)
        elif below:
            step = replace(step, held=step.shape.reward - step.shape.reward_above(below))
        window = PackedRow(step.query, step.options, step.response)
        row = window if full else self.counts.typical(window)
        return TrainingJob(self.run.stage, step, row, examples, epochs, judged)


def _filled(portion: Portion, query: int, tokens: float = float("inf")) -> Portion:
    window, mean = portion.window, portion.mean
    return Portion(
        portion.queries,
        PackedRow(query, window.options, window.response),
        PackedRow(min(tokens, query), mean.options, mean.response),
    )


def _unchanged(run: Run, options: Options) -> Options:
    return options


def _no_samples(run: Run) -> Sampled:
    return Sampled(0, 0)


def _one(run: Run) -> int:
    return 1


def _no_value(run: Run) -> bool:
    return False


@dataclass(frozen=True)
class Sampled:
    """Summaries that a run leaves to be scored: posts (None: all reporting posts), and summaries per post."""

    posts: int | None
    summaries: int


@dataclass(frozen=True)
class StageCost:
    """What a stage tells the plan.

    Attributes:
        job: what a run computes with models; None if it loads none.
        options: changes the options of a plan as the run's settings require.
        sampled: the summaries that a run leaves to be scored.
        keeps_value: whether a run saves a value network beside its policy.
        checkpoints: how many policies a run leaves to be chosen from.
    """

    job: Callable[[PlannedRun], RunJob | None]
    options: Callable[[Run, Options], Options] = _unchanged
    sampled: Callable[[Run], Sampled] = _no_samples
    keeps_value: Callable[[Run], bool] = _no_value
    checkpoints: Callable[[Run], int] = _one


def _no_job(planned: PlannedRun) -> None:
    return None


NO_COST = StageCost(_no_job)


def cost_of(stage: str) -> StageCost:
    """What a stage tells the plan: `COST` of its ``cost.py``, or `NO_COST`."""
    module = f"tldr.stages.{stage}.cost"
    if find_spec(module) is None:
        return NO_COST
    cost: StageCost = importlib.import_module(module).COST
    return cost


def job_of(run: Run, counts: Counts, processes: int = 1) -> RunJob | None:
    """What a run computes with models; None if it loads none."""
    return cost_of(run.stage).job(PlannedRun(run, counts, processes))
