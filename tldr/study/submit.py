"""A study as jobs on a SLURM cluster, each after the jobs it depends on.

Runs that differ only in their seed form one job array. Each job reads a JSON file in ``STUDY/jobs``. It
expands the study again, so that it notices later edits, and starts its run as a separate process.
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

from pydantic import BaseModel, ConfigDict, ValidationError

from tldr.errors import UsageError
from tldr.locks import locked
from tldr.records import write_json
from tldr.study.folder import last_error, last_wait, read_note
from tldr.study.hashes import FileHashes, sha256
from tldr.study.launch import Launch
from tldr.study.people import asks_people, progress_for, wait_of
from tldr.study.registry import STAGES
from tldr.study.runs import Run
from tldr.study.settings import Study
from tldr.study.slurm import Batch, Needs, Resources, check_slurm, queued
from tldr.study.status import Status, status_of

JOBS, SUBMITTED = "jobs", "submitted.json"
"""The folder for job files, sbatch files and logs; in it the file with each run's job number."""
PROGRAM = (sys.executable, "-m", "tldr")

Say = Callable[[str], None]


class JobFile(BaseModel):
    """Everything that a job is given.

    Attributes:
        runs: names of runs, one for each task of the array.
        launch: path of an accelerate config, or "".
        program: the command that executes a run; the run's folder is appended to it.
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
        """Raises: UsageError: the file is missing, or is not a job file."""
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"), strict=True)
        except (OSError, ValidationError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(
                f"not a job file: {reason}", where=path, remedy="submit the study again"
            ) from None


class JobId(NamedTuple):
    """A job in the queue: its number (its name in a dry run), and its task if it belongs to an array."""

    number: str
    task: int | None = None

    @classmethod
    def parse(cls, text: str) -> JobId:
        """Read ``12`` or ``12_0``, as squeue and we write it."""
        number, _, task = text.partition("_")
        return cls(number, int(task) if task else None)

    def __str__(self) -> str:
        return self.number if self.task is None else f"{self.number}_{self.task}"


@dataclass(frozen=True)
class Submission:
    """What is submitted, and how.

    Attributes:
        runs: the runs of the study that are wanted, parents before children.
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
        """The folder for job files, sbatch files and logs."""
        return self.root / JOBS

    def needs(self, run: Run) -> Needs:
        """What a run's job asks for.

        Raises:
            UsageError: the number of GPUs differs from the number of processes on a machine.
        """
        needs, launch = self.resources.of(run.stage), self.launch_of(run)
        here = launch.per_machine if launch else 1
        if here > 1 and needs.gpus not in (0, here):
            raise UsageError(
                f"{needs.gpus} GPUs for {here} processes on a machine",
                where=f"resources of {run.stage}, and {launch.config if launch else ''}",
                remedy=f"ask for {here} GPUs, or launch with another file",
            )
        return needs

    def launch_of(self, run: Run) -> Launch | None:
        """How a run's processes are launched; None for one process.

        A stage that samples or scores is launched only if its resources are those of the launch file: one GPU
        for it is often enough.
        """
        stage = STAGES[run.stage]
        if self.launch is None or not stage.in_processes(run.settings):
            return None
        alone = not stage.trains and self.resources.of(run.stage).gpus not in (0, self.launch.per_machine)
        return None if alone else self.launch

    def machines(self, run: Run) -> int:
        """The number of machines of a run's job."""
        launch = self.launch_of(run)
        return launch.machines if launch else 1

    def job(self, runs: Sequence[Run], name: str) -> tuple[JobFile, Path]:
        """One job or array, and the path of its file, which depends on the content."""
        launch = self.launch_of(runs[0])
        job = JobFile(
            study=self.study,
            runs=[run.name for run in runs],
            launch=str(launch.config.absolute()) if launch else "",
            program=list(self.program),
            requeues=self.needs(runs[0]).requeues,
        )
        return job, (self.folder / f"{name}-{sha256(job.model_dump_json())[:10]}.json").absolute()


def command_for(job: Path) -> str:
    """The shell command that runs a job file."""
    return shlex.join([*PROGRAM, "_job", str(job)])


def array_title(run: Run) -> str:
    """The title that a run shares with the runs that differ from it only in their seed."""
    return replace(run, seed=None).title


def dependency(parents: Sequence[Collection[JobId]]) -> str:
    """The ``--dependency`` of an array's tasks for sbatch; "" if they depend on nothing.

    If each task depends on the task with the same index in another array, each waits only for that task
    (``aftercorr``). Otherwise the whole array waits for all parents (``afterok``).

    Args:
        parents: for each task, the jobs of its parents.
    """
    tasks: dict[str, set[tuple[int, int | None]]] = {}
    for own, jobs in enumerate(parents):
        for job in jobs:
            tasks.setdefault(job.number, set()).add((own, job.task))
    same_index = {(own, own) for own in range(len(parents))}
    corresponding = {number for number, pairs in tasks.items() if len(parents) > 1 and pairs == same_index}
    others = sorted({str(job) for jobs in parents for job in jobs if job.number not in corresponding})
    kinds = {"afterok": others, "aftercorr": sorted(corresponding)}
    return ",".join(":".join([kind, *numbers]) for kind, numbers in kinds.items() if numbers)


def unfinished(submission: Submission, there: Mapping[str, object], say: Say) -> list[Run]:
    """The runs to submit: neither done nor in the queue, and not waiting for one that runs elsewhere or for
    people.

    A stale run is among them: its job sets the old folder aside. A run that asks people is submitted to ask
    them, and again when they have labeled enough; only then the runs that need it are.

    Args:
        there: names of the runs that have a job already.
        say: is told of stale runs, of runs that another process works on or that wait for people, and of
            those that need them.
    """
    found: list[Run] = []
    held: set[str] = set()
    states: dict[str, Status] = {}
    for run in submission.runs:  # parents before children
        status = status_of(run, submission.root, submission.files, states)
        states[run.name] = status
        waits = [parent.name for parent in run.parent_runs() if parent.name in held]
        if status.state == "done":
            continue
        labels = progress_for(run, submission.root)
        if asks_people(run) and not (labels and labels.enough):
            held.add(run.name)
        if run.name in there:
            continue
        asking = status.state == "waiting" and last_wait(submission.root / run.name)
        if asking and labels and not labels.enough:
            say(f"not submitted  {run.name}: {wait_of(run, submission.root)}")
            continue
        if status.state == "running" or waits:
            held.add(run.name)
            why = f"it needs {waits[0]}" if waits else "another process is at work on it"
            say(f"not submitted  {run.name}: {why}")
            continue
        if status.state == "stale":
            say(f"stale, made again  {run.name}: {status.why}")
        found.append(run)
    return found


def submit_slurm(submission: Submission, say: Say, *, dry: bool = False) -> int:
    """Submit the runs that are neither done nor in the queue.

    Args:
        dry: only print the sbatch files; jobs are then named by their titles.

    Returns:
        The number of runs submitted.

    Raises:
        UsageError: this machine has no SLURM.
        LabError: sbatch or squeue fails; the note of the jobs submitted so far is kept.
    """
    if dry:
        return _submit_batches(submission, {}, say, dry=True)
    check_slurm()
    with submission_lock(submission.folder):
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
    todo = {run.name for run in unfinished(submission, there, say)}
    groups: dict[str, list[Run]] = {}
    for run in submission.runs:  # including those that are done, so that parents stay before children
        groups.setdefault(array_title(run), []).extend([run] if run.name in todo else [])
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
def submission_lock(folder: Path) -> Iterator[None]:
    """Lock the folder of jobs, so that two commands do not submit the same runs.

    Raises:
        Busy: another command is submitting.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock", "submitting this study", where=folder):
        yield
