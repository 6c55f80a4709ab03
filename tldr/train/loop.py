"""The training loop; pretraining, SFT, reward model and PPO are its `update` functions.

A stage with one model needs only batches and a loss::

    stepper = Stepper(make_accelerator(ctx.precision), {"policy": model}, settings, seed)
    plan = BatchPlan(lengths, settings.batch, seed, epochs=settings.epochs)
    loop = TrainLoop("sft", ctx.folder, stepper, plan.total_updates, settings)
    loop.run(lambda i: stepper.step(loss, [collate(ids) for ids in micro_batches(plan.batch(i), size)]))

PPO's `update` samples episodes and calls `stepper.step` several times. An update may depend only on
its index, the modules, and `extra` and `tensors`, which are saved with the modules. A run that is
killed and resumed then ends with the same bits as an uninterrupted one. A long update can also save
its state between its parts (`TrainLoop.pause`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tldr.errors import CheckpointError, NonFiniteError
from tldr.interrupts import EndRequest
from tldr.settings.training import Training
from tldr.train.checkpoint import TrainingState, load_state, save_state
from tldr.train.metrics import MetricsLog, MetricsRow, Progress
from tldr.train.precision import peak_flops
from tldr.train.stepper import Stepper


@dataclass
class TrainLoop:
    """Runs a stage's updates: schedule, log, progress, resumable state.

    Attributes:
        stage: the stage's name, for messages.
        folder: the run's folder; ``metrics.jsonl``, ``progress.json`` and ``state/`` are written there.
        total: number of updates in the run.
        settings: how often states are saved (always at the end), and how many are kept.
        extra: JSON data that the stage keeps between updates (a KL coefficient); restored when resuming.
        tensors: tensors that the stage keeps between updates; restored when resuming.
        on_update: called in every process before a row is logged, with the number of updates done and
            the row; it may add figures to the row.
        part: progress within the first update of a resumed run; see `pause`.
    """

    stage: str
    folder: Path
    stepper: Stepper
    total: int
    settings: Training
    extra: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    on_update: Callable[[int, MetricsRow], None] | None = None
    part: int = 0
    _done: int = 0
    _saved: tuple[int, int] | None = None
    _asked_to_end: EndRequest = field(default_factory=EndRequest)

    def run(self, update: Callable[[int], MetricsRow]) -> None:
        """Call ``update(i)`` for every update i (from 0) that is not done yet.

        Args:
            update: makes one update and returns its figures; from `tokens` the loop computes
                `tokens_per_s` and `mfu`, the fraction of the device's measured matrix-product speed.

        Raises:
            NonFiniteError: a figure is NaN or infinite; the last saved state is unchanged.
            SystemExit, KeyboardInterrupt: on SIGTERM (with 143) or Ctrl-C, after the current update has
                finished or reached a `pause` and the state is saved.
        """
        first = self._resume()
        main = self.stepper.accelerator.is_main_process
        with self._asked_to_end.heard(), closing(self._log(first)) as log:
            before = log.kept[-1]["seconds"] if log.kept else 0.0
            progress = Progress(self.folder, self.total, first, before)
            for i in range(first, self.total):
                self._done = i
                row = self._timed_update(update, i)
                self.part, self._done = 0, i + 1
                if main:
                    row["seconds"] = progress.seconds
                    log.append(row)
                    progress.update(i + 1, row.get("loss"))
                due = (i + 1) % self.settings.save_every == 0 or i + 1 == self.total
                self._save_if(due, log.sync)

    def pause(self, part: int = 0, due: bool = False) -> None:
        """Allow the state to be saved at this point of an update, the same point in every process.

        Args:
            part: progress within the update; a run resumed from here finds it in `self.part`. 0:
                nothing has changed since the previous update.
            due: save even if no termination was requested.

        Raises:
            SystemExit, KeyboardInterrupt: as `run`.
        """
        self.part = part
        self._save_if(due)

    def _save_if(self, due: bool, before: Callable[[], None] = lambda: None) -> None:
        """Save if due; if termination was requested, save and exit."""
        stop = self._in_any_process(bool(self._asked_to_end))
        if due or stop:
            before()
            self._save()
        if stop:
            self._asked_to_end.end()

    def _timed_update(self, update: Callable[[int], MetricsRow], i: int) -> MetricsRow:
        """One update, timed and checked."""
        start = time.perf_counter()
        self.stepper.set_lr(i, self.total)
        try:
            row = {"update": i + 1, **update(i)}
            self._add_speed(row, time.perf_counter() - start)
            _check_finite(row)
            if self.on_update:
                self.on_update(i + 1, row)
                _check_finite(row)
        except NonFiniteError as error:
            raise self._with_place(error, i + 1) from None
        return row

    def _add_speed(self, row: MetricsRow, seconds: float) -> None:
        accelerator = self.stepper.accelerator
        row["tokens_per_s"] = row.get("tokens", 0) / seconds
        peak = accelerator.num_processes * peak_flops(accelerator.device, self.stepper.precision)
        row["mfu"] = row["tokens_per_s"] * self.stepper.flops_per_token / peak

    def _with_place(self, error: NonFiniteError, update: int) -> NonFiniteError:
        states = sorted(p for p in (self.folder / "state").glob("step-*") if p.suffix != ".partial")
        last = f"the last good state is {states[-1]}" if states else "no state was saved yet"
        return NonFiniteError(
            error.what,
            where=f"{self.stage}, update {update} of {self.total} ({self.folder})",
            remedy=f"{last}; lower optimizer.lr, lengthen optimizer.warmup, or use precision fp32",
        )

    def _log(self, first: int) -> MetricsLog:
        """The run's log in the first process; the others write nothing."""
        main = self.stepper.accelerator.is_main_process
        return MetricsLog(self.folder / "metrics.jsonl" if main else None, first)

    def _resume(self) -> int:
        """Load the newest state, if any; returns the number of finished updates."""
        state = load_state(self.folder, self.stepper.modules, self.stepper.optimizers)
        if state is None:
            return 0
        if state.step > self.total:
            raise CheckpointError(
                f"the state is from update {state.step}, but the run has only {self.total} updates",
                where=self.folder / "state",
                remedy="resume with the original settings, or delete the run's state folder",
            )
        self.stepper.steps = state.extra["steps"]
        self.extra.update(state.extra["stage"])
        self.tensors.update(state.tensors)
        self.part = state.part
        self._saved = state.step, state.part
        return state.step

    def _save(self) -> None:
        if self._saved == (self._done, self.part):
            return
        self._saved = self._done, self.part
        stepper = self.stepper
        extra = {"steps": stepper.steps, "stage": self.extra}
        state = TrainingState(self._done, self.part, extra, self.tensors)
        save_state(self.folder, state, stepper.modules, stepper.optimizers, self.settings.keep_states)

    def _in_any_process(self, flag: bool) -> bool:
        """Whether the flag is set in any process: a signal may reach them at different updates."""
        accelerator = self.stepper.accelerator
        if accelerator.num_processes == 1:
            return flag
        return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum") > 0)


def _check_finite(row: MetricsRow) -> None:
    bad = [f"{name} is {value}" for name, value in row.items() if not math.isfinite(value)]
    if bad:
        raise NonFiniteError(", ".join(bad))
