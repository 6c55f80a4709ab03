"""What a run computes, as the plan sees it: a training step repeated many times (`TrainingJob`).

`tldr.plan.uses` has the other kind: models that a run samples from or scores with, without training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from tldr.plan.flops import Cost, PackedRow, plus, rollout_cost, step_cost, times
from tldr.plan.hardware import Assumed
from tldr.plan.memory import Memory, Options, TrainingStep, idle_memory, sampled_together, training_memory
from tldr.plan.uses import LoadedModel

MOST_GPUS = 64

_Change = Callable[[Options], Options]


class RunJob(Protocol):
    """What one run computes with its models."""

    @property
    def policy(self) -> int:
        """Parameters of the policy; the largest of several."""

    @property
    def trained(self) -> int:
        """Parameters that are trained."""

    @property
    def loaded(self) -> int:
        """Parameters of all models that it loads, together or in turn."""

    def peak(self, options: Options, assumed: Assumed) -> tuple[Memory, int]:
        """Peak memory of one process in bytes, and the queries of the forward pass at that peak."""

    def largest(self, options: Options, room: float, assumed: Assumed) -> int | None:
        """The most queries per forward pass that fit into `room` bytes; None if no setting determines it."""

    def cost(self, options: Options) -> Cost:
        """Cost of the whole run."""

    def remedies(self, options: Options, room: float, assumed: Assumed) -> Iterator[str]:
        """Changes that make the job fit; each is applied on top of the previous ones."""


@dataclass(frozen=True)
class TrainingJob:
    """A stage on the training loop.

    Attributes:
        step: the training step; `counted` is the micro-batch.
        row: mean lengths.
        examples: queries; each goes through `epochs` steps. PPO samples each once.
        judged: queries that the trained model scores at the end; the processes share them.
    """

    stage: str
    step: TrainingStep
    row: PackedRow
    examples: float
    epochs: float = 1
    judged: LoadedModel | None = None

    @property
    def policy(self) -> int:
        """See `RunJob`."""
        return self.step.shape.policy

    @property
    def trained(self) -> int:
        """See `RunJob`."""
        return self.step.trained

    @property
    def loaded(self) -> int:
        """See `RunJob`."""
        return self.step.loaded

    def peak(self, options: Options, assumed: Assumed) -> tuple[Memory, int]:
        """See `RunJob`; at the configured micro-batch."""
        micro = self.step.counted
        return self._peak(options, micro, assumed), micro

    def _peak(self, options: Options, rows: int, assumed: Assumed) -> Memory:
        peak = training_memory(self.step, options, rows, assumed)
        if self.judged is None:
            return peak
        scores, _ = self.judged.peak(options, assumed)
        return max(peak, idle_memory(self.step, options, scores, assumed), key=lambda memory: memory.total)

    def largest(self, options: Options, room: float, assumed: Assumed) -> int:
        """See `RunJob`."""
        return _largest(
            max(1, self.step.batch // options.processes),
            lambda rows: self._peak(options, rows, assumed).total <= room,
        )

    def cost(self, options: Options) -> Cost:
        """See `RunJob`."""
        cost = times(step_cost(self.step, options, self.row), self.epochs)
        if self.step.drawn:
            together = sampled_together(self.step, options, self.step.counted)
            cost = plus(cost, rollout_cost(self.step, self.row, together, options))
        cost = times(cost, self.examples)
        return cost if self.judged is None else plus(cost, self.judged.cost(options))

    def remedies(self, options: Options, room: float, assumed: Assumed) -> Iterator[str]:
        """See `RunJob`; settings first, the cheapest change first, then more devices."""
        if largest := self.largest(options, room, assumed):
            yield f"{self.stage}.micro_batch={largest}"
            return
        for text, changed in _changes(self.stage, bool(self.step.frozen), options):
            options = changed(options)
            yield text
            if largest := self.largest(options, room, assumed):
                yield f"{self.stage}.micro_batch={largest}"
                return
        gpus = options.processes
        while gpus < MOST_GPUS:
            gpus *= 2
            options = replace(options, processes=gpus, placement="fsdp2")
            if largest := self.largest(options, room, assumed):
                yield f"--gpus {gpus}, launched with FSDP2"
                yield f"{self.stage}.micro_batch={largest}"
                return
        yield f"a smaller model: {MOST_GPUS} such devices do not hold it"


def _largest(limit: int, fits: Callable[[int], bool]) -> int:
    """The most queries per forward pass that fit, at most `limit`; 0 if none do."""
    sizes = [2**power for power in range(limit.bit_length()) if 2**power < limit] + [limit]
    most = 0
    for rows in sizes:
        if not fits(rows):
            break
        most = rows
    return most


def _changes(stage: str, frozen: bool, options: Options) -> list[tuple[str, _Change]]:
    """Remedies that are not applied yet, the cheapest first.

    Args:
        frozen: whether the stage loads models that are not trained.
    """
    several = options.processes > 1
    place: Literal["shard", "cpu"] = "shard" if several else "cpu"
    found: list[tuple[bool, str, _Change]] = [
        (
            not options.checkpointing,
            f"{stage}.gradient_checkpointing=true",
            lambda o: replace(o, checkpointing=True),
        ),
        (
            frozen and not options.frozen_bf16,
            f"{stage}.frozen_dtype=bf16",
            lambda o: replace(o, frozen_bf16=True),
        ),
        (
            several and not options.sharded,
            "launched with FSDP2",
            lambda o: replace(o, placement="fsdp2"),
        ),
        (
            frozen and options.frozen_place == "device",
            f"{stage}.frozen_place={place}",
            lambda o: replace(o, frozen_place=place),
        ),
    ]
    return [(text, change) for wanted, text, change in found if wanted]
