"""What a job does: execute the run that its file names, and let it save before the job ends."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tldr.errors import LabError, UsageError, Waiting
from tldr.interrupts import TERMINATED, handling
from tldr.study.environment import process_environment
from tldr.study.folder import DONE, LOG, RUN, RunFile, last_error, last_wait
from tldr.study.graph import expand
from tldr.study.hashes import FileHashes
from tldr.study.launch import Launch
from tldr.study.prepare import describe, locked_or_new, write_run
from tldr.study.registry import STAGES
from tldr.study.runs import Run
from tldr.study.slurm import TIME_LIMIT, Allocation
from tldr.study.status import set_aside, status_of
from tldr.study.submit import JobFile

SHARED_DISK = 60
"""Seconds within which a file that one machine has written appears on the others."""


def run_job(path: Path) -> int:
    """Execute the run that a job file names for this job (or task of an array).

    Returns:
        The job's exit code.

    Raises:
        UsageError: not a job file, or the study's settings or data were changed after it was submitted.
        Waiting: people have to label first.
        LabError: the run failed (the message lists the runs that depend on it), or cannot be queued again.
    """
    job, here, root = JobFile.read(path), Allocation.read(), path.parent.parent
    name, files = job.runs[here.task], FileHashes(root / "hashes.json")
    runs = expand(job.study, files)
    run = next((run for run in runs if run.name == name), None)
    if run is None:
        what = f"{name}: its settings or its data were changed after it was submitted"
        raise UsageError(what, where=path, remedy="submit the study again")
    folder, status = root / name, status_of(run, root, files)
    if status.state == "done":
        return 0
    if here.machine == 0:
        if status.state == "stale":
            print(f"stale: {status.why}; set aside as {set_aside(folder, files)}")
        with locked_or_new(folder):
            write_run(run, job.study, root)
    else:
        _await(describe(run, job.study, root), folder)
    command, env = _command(job, run, here)
    with _supervised([*command, str(folder)], env, folder) as (code, told):
        if (folder / DONE).exists() or (here.machine and code == 0):
            return 0
        if told:
            return _again(told, job, here)
    stopped = ", ".join(dependants(name, runs)) or "nothing"
    if code == Waiting.exit_code:
        why = last_wait(folder) or "people have to label first"
        raise Waiting(
            f"{why}; not started before: {stopped}", where=name, remedy="then submit the study again"
        )
    reason = last_error(folder) or f"its process ended with code {code}"
    raise LabError(
        f"failed: {reason}; not started for it: {stopped}", where=name, remedy=f"see {folder / LOG}"
    )


def dependants(name: str, runs: Sequence[Run]) -> list[str]:
    """The runs that depend on a run, directly or through others."""
    found = {name}
    for run in runs:
        if any(parent.name in found for parent in run.parent_runs()):
            found.add(run.name)
    return [run.name for run in runs if run.name in found - {name}]


def _await(spec: RunFile, folder: Path) -> None:
    """Wait until the first machine has written this run's ``run.json``.

    Raises:
        LabError: it has not done so within `SHARED_DISK` seconds.
    """
    for _ in range(SHARED_DISK):
        # A finished run here is a stale one that is about to be set aside.
        if (folder / RUN).exists() and not (folder / DONE).exists() and RunFile.read(folder) == spec:
            return
        time.sleep(1)
    raise LabError("the first machine has not begun this run", where=folder, remedy="see its log")


def _command(job: JobFile, run: Run, here: Allocation) -> tuple[list[str], dict[str, str]]:
    """The command of a run, without its folder, and additions to its environment."""
    together = STAGES[run.stage].in_processes(run.settings)
    launch = Launch.read(Path(job.launch)) if job.launch and together else None
    env = process_environment()
    if launch is None or launch.processes == 1:
        return job.program, env
    # Jobs on one machine need different ports; the machines of one job need the same one.
    options = ["--main_process_port", str(20_000 + here.number % 20_000)]
    if launch.machines > 1:
        options += ["--machine_rank", str(here.machine), "--main_process_ip", here.first_host]
    return launch.command(*options), env


@contextmanager
def _supervised(
    command: Sequence[str], env: Mapping[str, str], folder: Path
) -> Iterator[tuple[int, set[int]]]:
    """Run a program to its end; its exit code, and the signals that told it to save and end.

    Further signals are ignored inside the block, so that the job can be queued again.
    """
    told: set[int] = set()
    # Some clusters signal every process of a job; the run inherits that this signal is ignored.
    with handling([TIME_LIMIT], signal.SIG_IGN), (folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | env,
            start_new_session=True,
        )

        def stop(signum: int, _: object) -> None:
            if not told:
                process.terminate()
            told.add(signum)

        with handling([TIME_LIMIT, signal.SIGTERM, signal.SIGINT], stop):
            yield process.wait(), told


def _again(told: set[int], job: JobFile, here: Allocation) -> int:
    """Queue the job again, unless it was cancelled or the cluster itself has queued it again.

    Raises:
        LabError: it was queued again as often as it may be, or cannot be.
    """
    if TIME_LIMIT not in told and not here.is_running():
        return TERMINATED
    if here.restarts >= job.requeues:
        what = f"queued again {here.restarts} times and still not done"
        raise LabError(what, where=here.name, remedy="give it more time, then submit the study again")
    if here.machine == 0:
        here.requeue()
    return TERMINATED
