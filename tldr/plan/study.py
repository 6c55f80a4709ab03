"""A study's plan: parameters, memory, hours and price of every kind of run, and what makes it fit.

Runs that differ only in their seed share a plan.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast, get_args

from tldr.errors import UsageError, nearest
from tldr.plan.costs import cost_of, job_of
from tldr.plan.counts import Counts
from tldr.plan.flops import Cost
from tldr.plan.hardware import GIB, Assumed, DeviceSpec
from tldr.plan.jobs import RunJob, TrainingJob
from tldr.plan.memory import Memory, Options, Placement, TrainingStep
from tldr.settings.training import Training
from tldr.study.graph import expand
from tldr.study.hashes import FileHashes
from tldr.study.registry import STAGES
from tldr.study.runs import Run
from tldr.study.settings import Study


class UnreadFiles(FileHashes):
    """File names in place of file hashes: a plan does not need the files."""

    def data(self, name: str) -> str:
        """The name; nothing is fetched."""
        return name

    def place(self, name: str) -> str:
        """The name."""
        return name


@dataclass(frozen=True)
class Machine:
    """The machine that the study will run on; `rate` is the price of one device hour."""

    device: DeviceSpec
    name: str
    gpus: int = 1
    placement: Placement | None = None
    rate: float | None = None

    @property
    def cuda(self) -> bool:
        """Whether the devices are GPUs."""
        return self.name != "cpu"

    @property
    def room(self) -> float:
        """Memory of one device in bytes."""
        return self.device.memory * GIB


def placement_named(name: str) -> Placement | None:
    """A placement by its name; None for "".

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
    """The plan of runs that differ only in their seeds.

    Attributes:
        job: what each of them computes.
        micro_batch: queries per forward pass of one process, as configured or as batched at the peak.
            `largest` is the largest that fits with these options (0: none; None: no setting determines it).
        suggestion: what to change, in this order, to make it fit; () if it fits.
        hours: of one run, on all devices; sampling and scoring share them too.
        price: of that time on all devices, since all are reserved.
    """

    runs: tuple[Run, ...]
    job: RunJob
    options: Options
    micro_batch: int
    largest: int | None
    memory: Memory
    cost: Cost
    hours: float
    price: float | None
    suggestion: tuple[str, ...] = ()

    @property
    def stage(self) -> str:
        """Stage of the runs."""
        return self.runs[0].stage

    @property
    def size(self) -> str:
        """Size of the runs; "" for runs over all sizes."""
        return self.runs[0].size or ""

    @property
    def variant(self) -> str:
        """Variant of the runs; "" is the main one."""
        return self.runs[0].variant

    @property
    def title(self) -> str:
        """``ppo-1.3b``, ``score-1.3b-sft``, with a variant's name: the runs' without their seed."""
        return replace(self.runs[0], seed=None).title

    @property
    def work(self) -> TrainingStep:
        """The training step; only for stages that train."""
        assert isinstance(self.job, TrainingJob), f"{self.title} trains nothing"
        return self.job.step

    @property
    def fits(self) -> bool:
        """Whether the peak fits into the device's memory."""
        return not self.suggestion

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second of the training step, over the whole time of the run, rollouts included."""
        return self.cost.tokens / (3600 * self.hours) if self.hours else 0.0

    def row(self) -> dict[str, Any]:
        """The plan as JSON values; memory in bytes."""
        job = self.job
        return {
            "run": self.title,
            "runs": [run.name for run in self.runs],
            "parameters": {"policy": job.policy, "trained": job.trained, "loaded": job.loaded},
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

    @cached_property
    def counts(self) -> Counts:
        """Counts of the study's models and data."""
        return Counts(self.study, self.assumed)

    @cached_property
    def runs(self) -> list[Run]:
        """All runs of the study."""
        return expand(self.study, UnreadFiles())

    @cached_property
    def groups(self) -> list[tuple[tuple[Run, ...], RunJob]]:
        """Runs that train or use a model, grouped where only the seed differs, and what each run computes."""
        found: dict[str, list[Run]] = {}
        for run in self.runs:
            further = run.variant not in self.study.variants and re.fullmatch(r"rm\d+", run.variant)
            variant = "" if further else run.variant
            alike = [run.stage, run.size, run.method, variant, run.dataset]
            key = json.dumps([*alike, run.settings.model_dump(mode="json")])
            found.setdefault(key, []).append(run)
        jobs = ((tuple(runs), job_of(runs[0], self.counts, self.machine.gpus)) for runs in found.values())
        return [(runs, job) for runs, job in jobs if job is not None]

    def plan(self, only: str | None = None) -> list[RunPlan]:
        """The plan of every group, with one placement for all runs that train."""
        groups = [(runs, job) for runs, job in self.groups if only is None or runs[0].stage == only]
        placements: Sequence[Placement] = ("ddp", "fsdp2") if self.machine.gpus > 1 else ("single",)
        if self.machine.placement is not None:
            placements = (self.machine.placement,)
        plans: list[RunPlan] = []
        for placement in placements:
            plans = [self._plan(runs, job, placement) for runs, job in groups]
            # A run that trains nothing has a whole model on each device, whatever the placement.
            if all(plan.memory.total <= self.machine.room for plan in plans if plan.job.trained):
                break
        return plans

    def options(self, run: Run, placement: Placement) -> Options:
        """The options that follow from a run's settings and the machine."""
        has_bf16 = self.machine.device.bf16 is not None
        bf16 = self.study.precision == "bf16" or (self.study.precision == "auto" and has_bf16)
        options, settings = Options(bf16=bf16, cuda=self.machine.cuda), run.settings
        if isinstance(settings, Training):
            checkpointing = settings.gradient_checkpointing
            options = replace(
                options, processes=self.machine.gpus, placement=placement, checkpointing=checkpointing
            )
        return cost_of(run.stage).options(run, options)

    def _plan(self, runs: tuple[Run, ...], job: RunJob, placement: Placement) -> RunPlan:
        assumed, room = self.assumed, self.machine.room
        options = self.options(runs[0], placement)
        memory, micro = job.peak(options, assumed)
        suggestion = tuple(job.remedies(options, room, assumed)) if memory.total > room else ()
        cost = job.cost(options)
        spread = STAGES[runs[0].stage].spread and placement != "single"
        timed = replace(options, processes=self.machine.gpus) if spread else options
        hours = cost.seconds(self.machine.device, timed, assumed) / 3600
        price = None if self.machine.rate is None else hours * self.machine.gpus * self.machine.rate
        largest = job.largest(options, room, assumed)
        return RunPlan(runs, job, options, micro, largest, memory, cost, hours, price, suggestion)
