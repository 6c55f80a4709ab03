"""A study as jobs on a SLURM cluster, each after those it needs.

Runs that differ in their seed alone are one job array. A job is given a JSON file of ``STUDY/jobs``; it
expands the study anew, so what was edited since is noticed, and runs its run as a process of its own.
Told to end (by SIGTERM before a pre-emption, by SIGUSR2 before the time limit), it lets the run save
and is queued again.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from tldr.errors import UsageError
from tldr.records import write_json
from tldr.study.folder import Busy, last_error, read_note
from tldr.study.graph import Run
from tldr.study.hashes import FileHashes, sha256
from tldr.study.launch import Launch
from tldr.study.registry import STAGES
from tldr.study.settings import Study
from tldr.study.slurm import Batch, Needs, Resources, need_slurm, queued
from tldr.study.status import status_of

JOBS, SUBMITTED = "jobs", "submitted.json"
"""The folder beside the runs for sbatch files and logs, and in it the number of each run's job."""
PROGRAM = (sys.executable, "-m", "tldr")

Say = Callable[[str], None]


class JobFile(BaseModel):
    """All that a job is given.

    Attributes:
        runs: names, by the array's task.
        launch: an accelerate config, or "".
        program: runs the run in a folder, which is added to it.
        requeues: how often the job may be queued again.
    """

    model_config = ConfigDict(extra="forbid")

    study: Study
    runs: list[str]
    launch: str = ""
    program: list[str]
    requeues: int

    @classmethod
    def read(cls, path: Path) -> JobFile:
        """Raises: UsageError: no such file, or not a job's."""
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"), strict=True)
        except (OSError, ValidationError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"not a job: {reason}", where=path, remedy="submit the study again") from None


class JobId(NamedTuple):
    """A job of the queue: its number (in a dry run its name), and its task if it is of an array."""

    number: str
    task: int | None = None

    @classmethod
    def parse(cls, text: str) -> JobId:
        """Of squeue's and our own spelling: ``12`` or ``12_0``."""
        number, _, task = text.partition("_")
        return cls(number, int(task) if task else None)

    def __str__(self) -> str:
        return self.number if self.task is None else f"{self.number}_{self.task}"


@dataclass(frozen=True)
class Submission:
    """What is submitted, and how.

    Attributes:
        runs: all of the study that are wanted, parents before children.
        launch: an accelerate config for the stages that train.
        program: as in `JobFile`.
    """

    study: Study
    runs: Sequence[Run]
    root: Path
    files: FileHashes
    resources: Resources
    launch: Launch | None = None
    program: Sequence[str] = (*PROGRAM, "_run")

    @property
    def folder(self) -> Path:
        """Where job files and logs go."""
        return self.root / JOBS

    def needs(self, run: Run) -> Needs:
        """What a run's job asks for.

        Raises:
            UsageError: GPUs that are not as many as the processes on a machine.
        """
        needs = self.resources.of(run.stage)
        here = self.launch.here if self.launch and STAGES[run.stage].trains else 1
        if here > 1 and needs.gpus not in (0, here):
            raise UsageError(
                f"{needs.gpus} GPUs for {here} processes on a machine",
                where=f"resources of {run.stage}, and {self.launch.config if self.launch else ''}",
                remedy=f"ask for {here} GPUs, or launch with another file",
            )
        return needs

    def machines(self, run: Run) -> int:
        """On how many machines a run's job is."""
        return self.launch.machines if self.launch and STAGES[run.stage].trains else 1

    def job(self, runs: Sequence[Run], name: str) -> tuple[JobFile, Path]:
        """One job or array, and the file for it: another one when anything is different."""
        job = JobFile(
            study=self.study,
            runs=[run.name for run in runs],
            launch=str(self.launch.config.absolute()) if self.launch else "",
            program=list(self.program),
            requeues=self.needs(runs[0]).requeues,
        )
        return job, (self.folder / f"{name}-{sha256(job.model_dump_json())[:10]}.json").absolute()


def command_for(job: Path) -> str:
    """What runs a job's file."""
    return shlex.join([*PROGRAM, "_job", str(job)])


def title(run: Run) -> str:
    """Of a run and those that differ from it in the seed alone."""
    return replace(run, seed=None).title


def dependency(parents: Sequence[Collection[JobId]]) -> str:
    """What sbatch is told that the tasks of an array wait for; "" for nothing.

    A parent that is the same task of another array holds up its own task alone (``aftercorr``); any
    other holds up the whole array (``afterok``).

    Args:
        parents: for each task, the jobs of its parents.
    """
    tasks: dict[str, set[tuple[int, int | None]]] = {}
    for own, jobs in enumerate(parents):
        for job in jobs:
            tasks.setdefault(job.number, set()).add((own, job.task))
    straight = {(own, own) for own in range(len(parents))}
    corresponding = {number for number, pairs in tasks.items() if len(parents) > 1 and pairs == straight}
    others = sorted({str(job) for jobs in parents for job in jobs if job.number not in corresponding})
    kinds = {"afterok": others, "aftercorr": sorted(corresponding)}
    return ",".join(":".join([kind, *numbers]) for kind, numbers in kinds.items() if numbers)


def undone(submission: Submission, there: Mapping[str, object], say: Say) -> list[Run]:
    """The runs that are to be submitted: not done, not in the queue, and not held up for now.

    Args:
        there: names of the runs that have a job already.
        say: is told of those that are at work without a job or changed since they were done, and of
            those that wait for them.
    """
    found: list[Run] = []
    held: set[str] = set()
    for run in submission.runs:
        status = status_of(run, submission.root, submission.files)
        waits = [parent.name for parent in run.parent_runs() if parent.name in held]
        if run.name in there or status.state == "done":
            continue
        if status.state in ("running", "stale") or waits:
            held.add(run.name)
            why = status.why if status.state == "stale" else "another process is at work on it"
            say(f"not submitted  {run.name}: {f'it needs {waits[0]}' if waits else why}")
            continue
        found.append(run)
    return found


def submit_slurm(submission: Submission, say: Say, *, dry: bool = False) -> int:
    """Submit what is not done and not in the queue; how many runs that were.

    Args:
        dry: only tell the sbatch files; jobs are then named by their titles.

    Raises:
        UsageError: no SLURM here.
        LabError: sbatch or squeue fails; what was submitted before stays noted.
    """
    if dry:
        return _submit_batches(submission, {}, say, dry=True)
    need_slurm()
    with only_one(submission.folder):
        noted = read_note(submission.folder / SUBMITTED)
        waiting = queued()
        there = {name: JobId.parse(job) for name, job in noted.items() if job in waiting}
        if there:
            say(f"{len(there)} runs have a job already")
        for run in submission.runs:
            ended = run.name in noted and run.name not in there
            if ended and (why := last_error(submission.root / run.name)):
                say(f"failed before  {run.name}: {why}")
        return _submit_batches(submission, there, say, dry=False)


def _submit_batches(submission: Submission, there: dict[str, JobId], say: Say, *, dry: bool) -> int:
    todo = {run.name for run in undone(submission, there, say)}
    groups: dict[str, list[Run]] = {}
    for run in submission.runs:  # with those that are done, so that parents stay before children
        groups.setdefault(title(run), []).extend([run] if run.name in todo else [])
    ids = dict(there)
    for name, runs in groups.items():
        if not runs:
            continue
        parents = [{ids[parent.name] for parent in run.parent_runs() if parent.name in ids} for run in runs]
        job, path = submission.job(runs, name)
        batch = Batch(
            name=f"{submission.study.name}-{name}",
            command=command_for(path),
            needs=submission.needs(runs[0]),
            machines=submission.machines(runs[0]),
            dependency=dependency(parents),
            tasks=len(runs),
        )
        if dry:
            say(f"# {name}: {', '.join(run.name for run in runs)}\n{batch.text(submission.folder)}")
            number = name
        else:
            write_json(path, job.model_dump(mode="json"))
            number = batch.submit(path.with_suffix(".sbatch"))
        new = {run.name: JobId(number, task if batch.tasks > 1 else None) for task, run in enumerate(runs)}
        ids |= new
        if not dry:
            note = read_note(submission.folder / SUBMITTED)
            write_json(
                submission.folder / SUBMITTED, note | {run: str(job_id) for run, job_id in new.items()}
            )
            after = f", after {batch.dependency}" if batch.dependency else ""
            say(f"submitted  {number}  {name}: {len(runs)} runs{after}")
    return len(todo)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder of jobs, so that two commands do not submit the same runs.

    Raises:
        Busy: another command is submitting.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", blocking=False):
            yield
    except Timeout:
        raise Busy("the study is being submitted by another command", where=folder) from None
