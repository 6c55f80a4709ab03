"""The one training loop: pretraining, SFT, reward model and PPO are its `update` functions.

A stage with one model is its batches and its loss::

    stepper = Stepper(make_accelerator(ctx.precision), {"policy": model}, settings, seed)
    plan = BatchPlan(lengths, settings.batch, seed, epochs=settings.epochs)
    loop = TrainLoop("sft", ctx.folder, stepper, plan.total_updates, settings)
    loop.run(lambda i: stepper.step(loss, [collate(ids) for ids in micro_batches(plan.batch(i), size)]))

PPO's `update` samples episodes and calls `stepper.step` several times. An update may depend on
nothing but its index, the modules, and `extra` and `tensors`, which are saved with them: then a
run that is killed and started again ends with the same bits as one that was not. A long update may
offer places inside it (`TrainLoop.pause`) where its state can be saved too.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tldr.errors import CheckpointError, NonFiniteError
from tldr.interrupts import TERMINATED, event_set_by
from tldr.settings.training import Training
from tldr.train.checkpoint import State, load_state, save_state
from tldr.train.metrics import MetricsLog, Progress, Row
from tldr.train.precision import peak_flops
from tldr.train.stepper import Stepper


@dataclass
class TrainLoop:
    """Runs a stage's updates: schedule, log, progress, resumable state.

    Attributes:
        stage: its name, for messages.
        folder: the run's folder; ``metrics.jsonl``, ``progress.json`` and ``state/`` go there.
        total: updates of the run.
        settings: when states are saved (one at the end in any case), and how many are kept.
        extra: JSON the stage keeps between updates (a KL coefficient); filled on resumption.
        tensors: tensors it keeps between updates; likewise.
        on_update: called with the updates done and the row before it is logged, in every process;
            it may add figures to the row.
        part: how far the update has come that a resumed run begins with; see `pause`.
    """

    stage: str
    folder: Path
    stepper: Stepper
    total: int
    settings: Training
    extra: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    on_update: Callable[[int, Row], None] | None = None
    part: int = 0
    _done: int = 0
    _saved: tuple[int, int] | None = None
    _terminated: threading.Event = field(default_factory=threading.Event)

    def run(self, update: Callable[[int], Row]) -> None:
        """Call ``update(i)`` for every update i (from 0) that is not done yet.

        Args:
            update: makes one update and returns its figures; `tokens` among them is turned into
                `tokens_per_s` and `mfu`, the share of the device's measured matrix-product speed.

        Raises:
            NonFiniteError: a figure is NaN or infinite; the last saved state is left as it is.
            SystemExit: with 143 on SIGTERM, after the update at work is finished, or has come to a
                `pause`, and is saved.
        """
        first = self._resume()
        main = self.stepper.accelerator.is_main_process
        with event_set_by(signal.SIGTERM, event=self._terminated), closing(self._log(first)) as log:
            before = log.kept[-1]["seconds"] if log.kept else 0.0
            progress = Progress(self.folder, self.total, first, before)
            for i in range(first, self.total):
                self._done = i
                row = self._one(update, i)
                self.part, self._done = 0, i + 1
                if main:
                    row["seconds"] = progress.seconds
                    log.append(row)
                    progress.update(i + 1, row.get("loss"))
                due = (i + 1) % self.settings.save_every == 0 or i + 1 == self.total
                self._save_if(due, log.sync)

    def pause(self, part: int = 0, due: bool = False) -> None:
        """A place inside an update, the same in every process, where its state may be saved.

        Args:
            part: how far the update has come; a run resumed from here finds it in `self.part`. 0:
                nothing has changed since the update before.
            due: save in any case, not only when the run was told to end.

        Raises:
            SystemExit: as `run`.
        """
        self.part = part
        self._save_if(due)

    def _save_if(self, due: bool, before: Callable[[], None] = lambda: None) -> None:
        """Save when it is due or the run was told to end, which it then does."""
        stop = self._anywhere(self._terminated.is_set())
        if due or stop:
            before()
            self._save()
        if stop:
            raise SystemExit(TERMINATED)

    def _one(self, update: Callable[[int], Row], i: int) -> Row:
        """One update, timed and checked."""
        start = time.perf_counter()
        self.stepper.set_lr(i, self.total)
        try:
            row = {"update": i + 1, **update(i)}
            self._speed(row, time.perf_counter() - start)
            _check_finite(row)
            if self.on_update:
                self.on_update(i + 1, row)
                _check_finite(row)
        except NonFiniteError as error:
            raise self._explained(error, i + 1) from None
        return row

    def _speed(self, row: Row, seconds: float) -> None:
        accelerator = self.stepper.accelerator
        row["tokens_per_s"] = row.get("tokens", 0) / seconds
        peak = accelerator.num_processes * peak_flops(accelerator.device, self.stepper.precision)
        row["mfu"] = row["tokens_per_s"] * self.stepper.flops_per_token / peak

    def _explained(self, error: NonFiniteError, update: int) -> NonFiniteError:
        states = sorted(p for p in (self.folder / "state").glob("step-*") if p.suffix != ".partial")
        last = f"the last good state is {states[-1]}" if states else "no state was saved yet"
        return NonFiniteError(
            error.what,
            where=f"{self.stage}, update {update} of {self.total} ({self.folder})",
            remedy=f"{last}; lower optimizer.lr, lengthen optimizer.warmup, or use precision fp32",
        )

    def _log(self, first: int) -> MetricsLog:
        """The run's log in the first process; the others write to nowhere."""
        main = self.stepper.accelerator.is_main_process
        return MetricsLog(self.folder / "metrics.jsonl" if main else None, first)

    def _resume(self) -> int:
        """Load the newest state, if any; the number of updates done."""
        state = load_state(self.folder, self.stepper.modules, self.stepper.optimizers)
        if state is None:
            return 0
        if state.step > self.total:
            raise CheckpointError(
                f"the state is of update {state.step}, past this run's {self.total}",
                where=self.folder / "state",
                remedy="resume with the settings it was made with, or remove the run's state folder",
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
        state = State(self._done, self.part, extra, self.tensors)
        save_state(self.folder, state, stepper.modules, stepper.optimizers, self.settings.keep_states)

    def _anywhere(self, flag: bool) -> bool:
        """Whether any process has the flag up: a signal may reach them at different updates."""
        accelerator = self.stepper.accelerator
        if accelerator.num_processes == 1:
            return flag
        return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum") > 0)


def _check_finite(row: Row) -> None:
    bad = [f"{name} is {value}" for name, value in row.items() if not math.isfinite(value)]
    if bad:
        raise NonFiniteError(", ".join(bad))
