"""Execute a study: several runs at once, the longest critical path first, each run in its own process.

A finished run is not executed again, and a killed run resumes from its last state. A failed run stops
only the runs that need it. Two runners on one study share the work.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tldr.errors import DiskFullError, LabError, Waiting
from tldr.files import disk_full, drop_abandoned, is_disk_full
from tldr.interrupts import event_set_by
from tldr.locks import Busy
from tldr.settings.extras import check_extras
from tldr.study.display import Display, clock, headline
from tldr.study.environment import cores, process_environment
from tldr.study.folder import LOG, last_error, last_wait, worker_on
from tldr.study.hashes import FileHashes
from tldr.study.launch import Launch
from tldr.study.model_size import scale
from tldr.study.nursery import Forked, Nursery
from tldr.study.people import progress_for, wait_of
from tldr.study.prepare import locked_or_new, write_run
from tldr.study.registry import STAGES
from tldr.study.runs import Run, needed_by
from tldr.study.settings import Study
from tldr.study.status import set_aside, status_of, study_status

POLL = 0.2
RETRY = 2.0
"""Seconds between checks of a run that another runner executes."""
ASK_AGAIN = 5.0
"""Seconds between checks of a run that waits for people."""
LAPTOP_CORES = 16


def default_jobs(threads: int) -> int:
    """One job per GPU; without GPUs one per `threads` cores, but at most two on a laptop-sized machine."""
    if devices := gpus():
        return len(devices)
    return _on_cores(2 if cores() <= LAPTOP_CORES else cores(), threads)


def fitting_jobs(wanted: int, threads: int) -> int:
    """As many of the wanted jobs as the cores have `threads` for, at least 1; all of them with GPUs, which do
    the work."""
    return wanted if gpus() else _on_cores(wanted, threads)


def _on_cores(wanted: int, threads: int) -> int:
    return max(1, min(wanted, cores() // threads))


def gpus() -> list[str]:
    """The usable CUDA devices, found without torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(index) for index, _ in enumerate(listed.stdout.splitlines())]


def costs(runs: Sequence[Run]) -> dict[str, float]:
    """A rough cost of each run: its stage's weight times the model's size (for labels: of all sizes), or the
    reward model's where that is larger."""
    models = {run.size: run.model for run in runs if run.size and run.model}
    scales = {size: scale(model) for size, model in models.items()}
    total = sum(scales.values())
    found = {}
    for run in runs:
        read = [
            source.runs[0].size for name, source in run.parents.items() if name == "reward" and source.runs
        ]
        sizes = [run.size, *read] if run.size else []
        largest = max((scales[size] for size in sizes if size in scales), default=total)
        found[run.name] = STAGES[run.stage].weight * largest
    return found


def critical_paths(runs: Sequence[Run]) -> dict[str, float]:
    """The cost of the longest path from each run's start to the study's end."""
    own = costs(runs)
    after = dict.fromkeys(own, 0.0)
    for run in reversed(runs):
        for parent in run.parent_runs():
            after[parent.name] = max(after[parent.name], own[run.name] + after[run.name])
    return {name: own[name] + after[name] for name in own}


@dataclass
class ActiveRun:
    """A run's process, its slot (GPU), and its start time."""

    run: Run
    process: subprocess.Popen[bytes] | Forked
    slot: int
    started: float


@dataclass
class Runner:
    """Executes the runs of a study.

    Attributes:
        runs: the runs, parents before children.
        root: the study's folder.
        jobs: maximum number of concurrent processes.
        command: a program that executes the run in a folder, given as its last argument; by default runs
            are forked (`tldr.study.nursery`).
        launch: an accelerate config; training stages run in its processes, with `accelerate launch`.
        wait: stay until people have labeled enough, instead of ending with what can be done without them.
        failed: name of each failed run -> reason.
        asking: name of each run that waits for people -> what it waits for.
    """

    study: Study
    runs: Sequence[Run]
    root: Path
    files: FileHashes
    display: Display
    jobs: int = 1
    command: Sequence[str] = ()
    launch: Launch | None = None
    wait: bool = False
    failed: dict[str, str] = field(default_factory=dict)
    asking: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._urgency = critical_paths(self.runs)
        self._done: set[str] = set()
        self._waiting = sorted(self.runs, key=lambda run: -self._urgency[run.name])
        self._later: dict[str, float] = {}
        self._elsewhere: set[str] = set()
        self._active: list[ActiveRun] = []
        self._gpus = gpus()
        self._nursery = Nursery(self._environment(0))

    def run(self) -> int:
        """Execute all runs that are not done.

        Returns:
            The exit code: 0 if all runs are done, 1 if a run failed, else 77: a run waits for people.

        Raises:
            UsageError: a run needs a package that is not installed; no run is started.
            KeyboardInterrupt: on Ctrl-C or SIGTERM, after the active runs have saved and exited.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        drop_abandoned(self.root)
        interrupted = threading.Event()
        with event_set_by(signal.SIGINT, signal.SIGTERM, event=interrupted):
            try:
                self._execute(interrupted)
            except BaseException:
                self._stop(interrupted)
                raise
        for run in self._waiting:
            self.display.say(f"not run  {run.name}: it needs {self._lacking(run)}", "yellow")
        return 1 if self.failed else Waiting.exit_code if self.asking else 0

    def _lacking(self, run: Run) -> str:
        """What a run that was not started needs."""
        needed = {one.name for one in needed_by(run)}
        if needed & set(self.failed):
            return "a run that failed"
        return f"labels by people ({', '.join(sorted(needed & set(self.asking)))})"

    def _execute(self, interrupted: threading.Event) -> None:
        self._settle()
        for run in self._waiting:
            check_extras(run.settings, run.stage)
        moved = True
        # When nothing changes any more, the waiting runs need a run that failed, or people.
        while moved or self._active or self._later:
            if interrupted.is_set():
                raise KeyboardInterrupt
            moved = self._start_ready()
            moved = self._poll() or moved
            interrupted.wait(0 if moved else POLL)

    def _settle(self) -> None:
        """Remove runs that are already done."""
        for status in study_status(self.runs, self.root, self.files):
            if status.state == "done":
                self._found_done(status.run)
        if self._done:
            self.display.say(f"{len(self._done)} of {len(self.runs)} runs are already done")
        self.display.counted(len(self._done))

    def _found_done(self, name: str) -> None:
        self._done.add(name)
        self._waiting = [run for run in self._waiting if run.name != name]

    def _start_ready(self) -> bool:
        """Start runs that can start; returns whether any was started, or found done or failed."""
        before = len(self._waiting)
        for run in list(self._waiting):
            if len(self._active) >= self.jobs:
                break
            if self._later.get(run.name, 0.0) > time.monotonic():
                continue
            if all(parent.name in self._done for parent in run.parent_runs()):
                self._later.pop(run.name, None)
                self._start(run)
        return len(self._waiting) < before

    def _start(self, run: Run) -> None:
        if run.name in self.asking and self._still_asks(run):
            return
        status = status_of(run, self.root, self.files)  # its parents are done
        if status.state == "done":
            self._found_done(run.name)
            self.display.counted(len(self._done))
            return
        if status.state == "running":
            self._wait_for_other(run)
            return
        try:
            if status.state == "stale":
                place = set_aside(self.root / run.name, self.files)
                where = f"set aside as {place}" if place else "another runner has set it aside"
                self.display.say(f"stale    {run.name}: {status.why}; {where}", "yellow")
            with locked_or_new(self.root / run.name):
                folder = write_run(run, self.study, self.root)
            slot = min(set(range(self.jobs)) - {active.slot for active in self._active})
            process = self._spawn(run, folder, slot)
        except Busy:
            self._wait_for_other(run)
            return
        except (LabError, OSError) as error:
            self._waiting.remove(run)
            self._fail(run, str(_with_remedy(error, self.root)))
            return
        self._waiting.remove(run)
        self._active.append(ActiveRun(run, process, slot, time.monotonic()))
        self.display.started(run)

    def _spawn(self, run: Run, folder: Path, slot: int) -> subprocess.Popen[bytes] | Forked:
        """Start a process for a run: forked by default, otherwise with the given command."""
        env, command = self._environment(slot), self.command
        if self.launch is not None and STAGES[run.stage].in_processes(run.settings):
            command = self.launch.command()
        if not command:
            return self._nursery.start(folder, env)
        with (folder / LOG).open("ab") as log:
            return subprocess.Popen(
                [*command, str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | env,
                start_new_session=True,  # Ctrl-C must only reach the runner, which lets its runs save.
            )

    def _wait_for_other(self, run: Run) -> None:
        if run.name not in self._elsewhere:
            self._elsewhere.add(run.name)
            who = worker_on(self.root / run.name)
            named = f" ({who})" if who else ""
            self.display.say(f"waiting  {run.name}: another runner is executing it{named}")
        self._later[run.name] = time.monotonic() + RETRY

    def _asks(self, run: Run, why: str) -> None:
        """Show what a run waits for, once for each change; with `wait`, look again later."""
        if self.asking.get(run.name) != why:
            self.asking[run.name] = why
            self.display.say(f"waiting  {run.name}: {why}", "cyan")
        if self.wait:
            self._later[run.name] = time.monotonic() + ASK_AGAIN

    def _still_asks(self, run: Run) -> bool:
        """Whether a run that waits for people has too few labels still."""
        now = progress_for(run, self.root)
        if now is None or now.enough:
            return False
        self._asks(run, wait_of(run, self.root) or str(now))
        return True

    def _environment(self, slot: int) -> dict[str, str]:
        env = process_environment()
        if len(self._gpus) > 1 and self.jobs > 1:
            env["CUDA_VISIBLE_DEVICES"] = self._gpus[slot % len(self._gpus)]
        return env

    def _poll(self) -> bool:
        """Check the active runs; returns whether one has ended."""
        before = len(self._active)
        for active in list(self._active):
            folder = self.root / active.run.name
            if active.process.poll() is None:
                self.display.refresh(active.run.name, folder)
                continue
            self._active.remove(active)
            self.display.stopped(active.run)
            self._ended(active, folder)
        return len(self._active) < before

    def _ended(self, active: ActiveRun, folder: Path) -> None:
        code = active.process.returncode
        if code == Busy.exit_code:
            self._waiting.append(active.run)
            self._wait_for_other(active.run)
        elif code == Waiting.exit_code:
            why = last_wait(folder) or "people have to label first"
            if self.wait:
                self._waiting.append(active.run)
            self._asks(active.run, why)
        elif code != 0:
            reason = last_error(folder) or f"its process ended with code {code}{_last_line(folder / LOG)}"
            if code == DiskFullError.exit_code and "disk is full" not in reason:
                reason = "the disk is full: free space and run again"  # too full to note the failure
            self._fail(active.run, f"{reason}\n         log: {folder / LOG}")
        else:
            self._done.add(active.run.name)
            self.asking.pop(active.run.name, None)
            self.display.counted(len(self._done))
            took = clock(time.monotonic() - active.started)
            figures = headline(folder, active.run.stage)
            self.display.say("  ".join(filter(None, ("done    ", active.run.name, took, figures))))

    def _fail(self, run: Run, reason: str) -> None:
        self.failed[run.name] = reason
        self.display.say(f"failed   {run.name}: {reason}", "red")

    def _stop(self, interrupted: threading.Event) -> None:
        """Ask the active runs to save and exit, and wait; a second Ctrl-C kills them."""
        if self._active:
            self.display.say(f"stopping: {len(self._active)} runs are saving; Ctrl-C again kills them")
        interrupted.clear()
        for active in self._active:
            active.process.terminate()
        while any(active.process.poll() is None for active in self._active):
            if interrupted.wait(POLL):
                for active in self._active:
                    active.process.kill()


def _with_remedy(error: Exception, root: Path) -> Exception:
    """The error, or a clear one if the disk is full."""
    if not is_disk_full(error):
        return error
    return disk_full(error, where=root, remedy="free disk space and run again: finished runs are kept")


def _last_line(log: Path) -> str:
    if not log.exists():
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f": {lines[-1]}" if lines else ""
