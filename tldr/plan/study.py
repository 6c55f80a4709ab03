"""A study's plan: for every kind of run its parameters, memory, hours and price, and what to change.

Runs that differ in their seed alone share a plan.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, cast, get_args

from tldr.config import PPO, SFT, FileData, Finetuning, ModelSpec, Pretrain, Reward, Study, ToyData, one
from tldr.config import Training as TrainingSettings
from tldr.errors import UsageError
from tldr.plan.flops import Cost, Row, plus, rollout_cost, step_cost, times
from tldr.plan.hardware import GIB, Assumed, Device
from tldr.plan.memory import (
    Memory,
    Options,
    Placement,
    Training,
    largest_micro_batch,
    sampled_together,
    training_memory,
)
from tldr.plan.models import model_config
from tldr.plan.steps import Kind, Shape
from tldr.study.graph import Run, expand
from tldr.study.hashes import FileHashes
from tldr.study.load import nearest

_Change = Callable[[Options], Options]

TRAINED = ("pretrain", "sft", "reward", "ppo")
"""The stages that are planned; the others are minutes beside them, best-of-N's sampling apart."""
MOST_GPUS = 64


class Names(FileHashes):
    """Files stand for themselves: a plan needs none of them to be there."""

    def data(self, name: str) -> str:
        """The name: nothing is fetched."""
        return name

    def place(self, name: str) -> str:
        """The name."""
        return name


@dataclass(frozen=True)
class Machine:
    """What the study is to run on; `rate` is the price of one device's hour."""

    device: Device
    name: str
    gpus: int = 1
    placement: Placement | None = None
    rate: float | None = None

    @property
    def cuda(self) -> bool:
        """Whether it is a GPU."""
        return self.name != "cpu"

    @property
    def room(self) -> float:
        """Bytes of one device."""
        return self.device.memory * GIB


def placement_named(name: str) -> Placement | None:
    """A placement by its name; "" is none in particular.

    Raises:
        UsageError: there is no such placement.
    """
    for placement in get_args(Placement):
        if placement == name:
            return cast(Placement, placement)
    if name:
        known = get_args(Placement)
        raise UsageError(
            f"no placement '{name}'{nearest(name, known)}",
            where="--placement",
            remedy=f"choose from {', '.join(known)}",
        )
    return None


@dataclass(frozen=True)
class RunPlan:
    """The plan of runs that differ in their seeds alone.

    Attributes:
        micro_batch: as set, for one process; `largest` that fits with these options (0: none).
        suggestion: settings to change, in this order, for it to fit; () if it does.
        rows: examples (queries, for PPO) over the run; `updates` optimizer steps.
        hours: of one run, on all devices.
    """

    stage: str
    size: str
    variant: str
    runs: tuple[Run, ...]
    work: Training
    options: Options
    micro_batch: int
    largest: int
    memory: Memory
    cost: Cost
    hours: float
    price: float | None
    suggestion: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """``ppo-1.3b``, with a variant's name."""
        return "-".join(filter(None, (self.stage, self.size, self.variant)))

    @property
    def fits(self) -> bool:
        """Whether the peak lies within the device's memory."""
        return not self.suggestion

    @property
    def tokens_per_s(self) -> float:
        """Tokens through the training step over all of the run's time, rollouts included."""
        return self.cost.tokens / (3600 * self.hours)

    def row(self) -> dict[str, Any]:
        """The plan as JSON holds it; memory in bytes."""
        return {
            "run": self.title,
            "runs": [run.name for run in self.runs],
            "parameters": {"policy": self.work.shape.policy, "trained": self.work.trained},
            "placement": self.options.placement,
            "processes": self.options.processes,
            "micro_batch": self.micro_batch,
            "largest_micro_batch": self.largest,
            "memory": self.memory.parts,
            "peak": self.memory.total,
            "phase": self.memory.phase,
            "fits": self.fits,
            "suggestion": list(self.suggestion),
            "flops": self.cost.flops,
            "tokens": self.cost.tokens,
            "tokens_per_s": self.tokens_per_s,
            "hours": self.hours,
            "price": self.price,
        }


@dataclass(frozen=True)
class Planner:
    """Plans a study's runs on a machine."""

    study: Study
    machine: Machine
    assumed: Assumed
    _shapes: dict[str, Shape] = field(default_factory=dict)

    @cached_property
    def groups(self) -> list[tuple[Run, ...]]:
        """Runs of the trained stages, those that differ in seeds together."""
        found: dict[str, list[Run]] = {}
        for run in expand(self.study, Names()):
            if run.stage in TRAINED:
                variant = "" if run.variant.startswith("rm") and run.variant[2:].isdigit() else run.variant
                key = json.dumps([run.stage, run.size, variant, run.settings.model_dump(mode="json")])
                found.setdefault(key, []).append(run)
        return [tuple(runs) for runs in found.values()]

    def plan(self, only: str | None = None) -> list[RunPlan]:
        """Every group's plan, under one placement for the whole study."""
        groups = [runs for runs in self.groups if only is None or runs[0].stage == only]
        placements: Sequence[Placement] = ("ddp", "fsdp2") if self.machine.gpus > 1 else ("single",)
        if self.machine.placement is not None:
            placements = (self.machine.placement,)
        plans: list[RunPlan] = []
        for placement in placements:
            plans = [self._plan(runs, placement) for runs in groups]
            if all(plan.memory.total <= self.machine.room for plan in plans):
                break
        return plans

    def shape(self, spec: ModelSpec) -> Shape:
        """A rung's shape; its vocabulary, where it is built, is what the tokenizer is asked to have."""
        key = spec.model_dump_json()
        if key not in self._shapes:
            self._shapes[key] = Shape(model_config(spec, self.study.tokenizer.vocab_size))
        return self._shapes[key]

    def options(self, settings: TrainingSettings, placement: Placement) -> Options:
        """The options that a stage's settings and the machine come to."""
        has_bf16 = self.machine.device.bf16 is not None
        options = Options(
            processes=self.machine.gpus,
            placement=placement,
            bf16=self.study.precision == "bf16" or (self.study.precision == "auto" and has_bf16),
            cuda=self.machine.cuda,
            checkpointing=settings.gradient_checkpointing,
        )
        if not isinstance(settings, PPO):
            return options
        in_bf16 = settings.frozen_dtype == "bf16"
        return replace(options, frozen_bf16=in_bf16, frozen_place=settings.frozen_place)

    def _plan(self, runs: tuple[Run, ...], placement: Placement) -> RunPlan:
        run, assumed, room = runs[0], self.assumed, self.machine.room
        settings = run.settings
        assert isinstance(settings, TrainingSettings) and run.model is not None
        work, rows = self.work(run, settings)
        options = self.options(settings, placement)
        per_process = max(1, work.batch // options.processes)
        asked = settings.micro_batch
        micro = per_process if asked is None else min(one(asked), per_process)
        work = replace(work, counted=micro, moments=8 if settings.optimizer.kind == "adamw" else 2)
        if isinstance(settings, Finetuning) and settings.lora is not None:
            work = replace(work, adapters=work.networks * work.shape.adapters(settings.lora))
        memory = training_memory(work, options, micro, assumed)
        suggestion: tuple[str, ...] = ()
        largest = largest_micro_batch(work, options, room, assumed)
        if memory.total > room:
            suggestion = tuple(self._suggest(run.stage, work, options, largest))
        cost = self.cost(settings, work, rows, micro, options)
        hours = cost.seconds(self.machine.device, options, assumed) / 3600
        price = None if self.machine.rate is None else hours * self.machine.gpus * self.machine.rate
        return RunPlan(
            run.stage,
            run.size or "",
            run.variant,
            runs,
            work,
            options,
            micro,
            largest,
            memory,
            cost,
            hours,
            price,
            suggestion,
        )

    def work(self, run: Run, settings: TrainingSettings) -> tuple[Training, float]:
        """A run's training step, and the examples (queries) it goes through."""
        assert run.model is not None
        shape, lengths, batch = self.shape(run.model), self.study.lengths, one(settings.batch)
        windows = (lengths.query, 1, lengths.response)
        if isinstance(settings, SFT):
            kind: Kind = "text" if settings.query_loss else "response"
            keeps = settings.select == "valid_loss"
            rows = one(settings.epochs) * self.posts("sft")
            return Training(kind, shape, *windows, batch, keeps_best=keeps), rows
        if isinstance(settings, Reward):
            options = 2 if isinstance(self.study.data, FileData) else self.study.labels.k[1]
            windows = (lengths.query, options, lengths.rm_response)
            labels = min(settings.limit or self.posts("comparisons"), self.posts("comparisons"))
            return Training("reward", shape, *windows, batch), one(settings.epochs) * labels
        if isinstance(settings, PPO):
            return self._ppo(settings, shape, batch)
        assert isinstance(settings, Pretrain)
        windows = (run.model.context - 1, 1, 1)
        return Training("text", shape, *windows, batch), one(settings.steps) * batch

    def _ppo(self, settings: PPO, shape: Shape, batch: int) -> tuple[Training, float]:
        lengths, options = self.study.lengths, settings.samples_per_query
        separate = settings.algorithm == "ppo" and settings.value_network == "separate"
        work = Training(
            "ppo" if separate else "policy_only",
            shape,
            lengths.query,
            options,
            lengths.response,
            batch // options // settings.minibatches,
            frozen=(shape.policy if settings.lora is None or settings.rounds > 1 else 0, shape.reward),
            drawn=batch // options,
        )
        return work, one(settings.episodes) / options

    def posts(self, name: str) -> int:
        """Examples in the study's data: counted where the file is there, else the paper's number."""
        data = self.study.data
        if isinstance(data, ToyData):
            toy = {"sft": data.sft_posts, "ppo": data.ppo_posts, "comparisons": self.study.labels.pairs}
            return toy[name]
        path = getattr(data, name) or data.sft
        return _lines(Path(path)) or int(getattr(self.assumed.posts, name))

    def cost(
        self, settings: TrainingSettings, work: Training, rows: float, micro: int, options: Options
    ) -> Cost:
        """A whole run's cost, at mean lengths."""
        row = Row(
            min(self.assumed.query, work.query), work.options, min(self.assumed.response, work.response)
        )
        if isinstance(settings, Pretrain):
            row = Row(work.query, 1, 1)
        cost = times(step_cost(work, options, row), rows)
        if isinstance(settings, PPO):
            drawn = times(rollout_cost(work, row, sampled_together(work, options, micro), options), rows)
            cost = plus(times(cost, settings.epochs), drawn)
        return cost

    def _suggest(self, stage: str, work: Training, options: Options, largest: int) -> Iterator[str]:
        """What to change, one thing on top of the other, until a micro-batch fits."""
        if largest:
            yield f"{stage}.micro_batch={largest}"
            return
        for text, changed in _changes(stage, options):
            options = changed(options)
            yield text
            largest = largest_micro_batch(work, options, self.machine.room, self.assumed)
            if largest:
                yield f"{stage}.micro_batch={largest}"
                return
        gpus = options.processes
        while gpus < MOST_GPUS:
            gpus *= 2
            options = replace(options, processes=gpus, placement="fsdp2")
            if largest := largest_micro_batch(work, options, self.machine.room, self.assumed):
                yield f"--gpus {gpus}, launched with FSDP2"
                yield f"{stage}.micro_batch={largest}"
                return
        yield f"a smaller model: {MOST_GPUS} such devices do not hold it"


def _changes(stage: str, options: Options) -> list[tuple[str, _Change]]:
    """Remedies that are not in use yet, the cheapest first."""
    several = options.processes > 1
    place: Literal["shard", "cpu"] = "shard" if several else "cpu"
    found: list[tuple[bool, str, _Change]] = [
        (
            not options.checkpointing,
            f"{stage}.gradient_checkpointing=true",
            lambda o: replace(o, checkpointing=True),
        ),
        (
            stage == "ppo" and not options.frozen_bf16,
            "ppo.frozen_dtype=bf16",
            lambda o: replace(o, frozen_bf16=True),
        ),
        (
            several and not options.sharded,
            "launched with FSDP2",
            lambda o: replace(o, placement="fsdp2"),
        ),
        (
            stage == "ppo" and options.frozen_place == "device",
            f"ppo.frozen_place={place}",
            lambda o: replace(o, frozen_place=place),
        ),
    ]
    return [(text, change) for wanted, text, change in found if wanted]


@cache
def _lines(path: Path) -> int:
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())
