"""A study as jobs on this machine, by submitit's local executor: the same jobs as on a cluster."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from submitit import LocalExecutor, LocalJob

from tldr.errors import UsageError
from tldr.records import write_json
from tldr.study.folder import DONE, is_busy, last_error
from tldr.study.graph import Run
from tldr.study.runner import POLL, default_jobs, gpus, interruptions
from tldr.study.submit import Say, Submission, command_for, only_one, undone


def submit_local(submission: Submission, say: Say) -> int:
    """Run what is not done, each run a job, parents first; the exit code: 1 when a run failed.

    Raises:
        UsageError: more GPUs or machines are asked for than there are.
        Busy: another command is at it.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after the runs at work have saved and ended.
    """
    with only_one(submission.folder), interruptions() as interrupted:
        return _Local(submission, undone(submission, {}, say), say).run(interrupted)


@dataclass
class _Local:
    """Jobs at work, and those that wait."""

    submission: Submission
    waiting: list[Run]
    say: Say
    active: list[tuple[Run, LocalJob[Any], Sequence[int]]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._unfinished = {run.name for run in self.waiting}
        self._free = [int(name) for name in gpus() if name.isdigit()]
        for run in self.waiting:
            asked = self.submission.needs(run).gpus
            if asked > len(self._free) or self.submission.machines(run) > 1:
                raise UsageError(
                    f"{run.stage} asks for {asked} GPUs on {self.submission.machines(run)} machines",
                    where=f"this machine with {len(self._free)} GPUs",
                    remedy="give other resources or another launch file",
                )

    def run(self, interrupted: threading.Event) -> int:
        """Until nothing moves any more."""
        jobs = 1 if self.submission.launch else default_jobs()
        moved = True
        while moved or self.active:
            if interrupted.is_set():
                self._stop()
                raise KeyboardInterrupt
            moved = False
            for run in list(self.waiting):
                moved = (len(self.active) < jobs and self._start(run)) or moved
            moved = self._poll() or moved
            interrupted.wait(0 if moved else POLL)
        for run in self.waiting:
            self.say(f"not run  {run.name}: it needs a run that failed")
        return 1 if self.failed else 0

    def _start(self, run: Run) -> bool:
        """Start a run if its parents are done and its GPUs free; whether it was."""
        needs = self.submission.needs(run)
        if needs.gpus > len(self._free) or any(p.name in self._unfinished for p in run.parent_runs()):
            return False
        taken, self._free = self._free[: needs.gpus], self._free[needs.gpus :]
        file, path = self.submission.job([run], run.title)
        write_json(path, file.model_dump(mode="json"))
        executor = LocalExecutor(self.submission.folder)
        executor.update_parameters(
            timeout_min=needs.time,
            signal_delay_s=needs.grace,
            gpus_per_node=len(taken),
            visible_gpus=tuple(taken),
            setup=needs.setup,
        )
        job: LocalJob[Any] = executor._submit_command(command_for(path))
        self.waiting.remove(run)
        self.active.append((run, job, taken))
        self.say(f"started  {run.name}")
        return True

    def _poll(self) -> bool:
        """Look at the jobs at work; whether one has ended."""
        before = len(self.active)
        for one in list(self.active):
            run, job, taken = one
            if not job.done():
                continue
            self.active.remove(one)
            self._free += taken
            folder = self.submission.root / run.name
            if (folder / DONE).exists():
                self._unfinished.remove(run.name)
                self.say(f"done     {run.name}")
            else:
                self.failed.append(run.name)
                reason = last_error(folder) or "its job ended before it was done"
                self.say(f"failed   {run.name}: {reason}\n         log: {job.paths.stderr}")
        return len(self.active) < before

    def _stop(self) -> None:
        """Have the runs at work save and end, and wait for them."""
        self.say(f"stopping: {len(self.active)} runs are saving")
        for _, job, _ in self.active:
            assert job._process is not None
            job._process.terminate()
        for run, job, _ in self.active:
            while not job.done() or is_busy(self.submission.root / run.name):
                threading.Event().wait(POLL)
