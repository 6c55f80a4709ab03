"""What runs ask of a SLURM cluster, their sbatch files, and the commands that submit and watch them.

A job's command names a JSON file (`tldr.study.submit.JobFile`), so the sbatch file is the whole job.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from tldr.errors import LabError, UsageError, nearest
from tldr.files import write_text
from tldr.settings.base import Settings
from tldr.strict_yaml import read_yaml
from tldr.study.load import Places, read_settings
from tldr.study.registry import STAGES

TIME_LIMIT = signal.SIGUSR2
"""Sent to a job's processes before its time limit. Not SIGUSR1: NCCL may catch that."""
ARRAY_LIMIT = 256
"""Tasks of one array that run at once."""
TIMEOUT = 60
"""Seconds that `scontrol` may take."""


class Needs(Settings):
    """What one job asks for.

    Attributes:
        time: the job's limit in minutes; a run that takes longer is queued again and resumes.
        grace: how many seconds before the limit the run is told to save.
        requeues: how often the job may be queued again, after time limits and pre-emptions together.
        gpus: on each machine.
        cpus: on each machine.
        mem: memory on each machine in sbatch's notation ("64G"); None is the cluster's default.
        partition: of the cluster; None is its default.
        account: that is charged; None is the cluster's default.
        options: further options of sbatch, such as ``{constraint: h100}``.
        setup: shell lines to run before the run.
    """

    time: PositiveInt = 1440
    grace: PositiveInt = 120
    requeues: NonNegativeInt = 20
    gpus: NonNegativeInt = 0
    cpus: PositiveInt = 4
    mem: Annotated[str, Field(pattern=r"^\d+[KMGT]$")] | None = None
    partition: str | None = None
    account: str | None = None
    options: dict[str, str | int] = Field(default_factory=dict)
    setup: list[str] = Field(default_factory=list)


class Resources(Needs):
    """What every job asks for, and in `stages` what differs for single stages."""

    stages: dict[str, Needs] = Field(default_factory=dict)

    @classmethod
    def read(cls, path: Path | None, overrides: Sequence[str] = ()) -> Resources:
        """Read a file such as ``configs/slurm/example.yaml`` and apply ``key=value`` overrides.

        Args:
            path: None for the defaults.

        Raises:
            UsageError: an unknown key or stage, a wrong value, or an option that has a key of its own.
        """
        where = Places((path,), {}) if path else "--set-slurm"
        found = read_settings(cls, read_yaml(path) if path else {}, overrides, where=where)
        place = str(path or "--set-slurm")
        for stage in found.stages:
            if stage not in STAGES:
                raise UsageError(
                    f"no stage '{stage}'{nearest(stage, STAGES)}",
                    where=f"{place}: stages",
                    remedy=f"choose from {', '.join(STAGES)}",
                )
        for stage in STAGES:
            _check(found.of(stage), f"{place}: {f'stages.{stage}' if stage in found.stages else ''}")
        return found

    def of(self, stage: str) -> Needs:
        """What a job of one stage asks for: the keys of every job, overridden by those of the stage."""
        over = self.stages.get(stage, Needs())
        given = {name: getattr(over, name) for name in over.model_fields_set}
        return Needs.model_validate({name: getattr(self, name) for name in Needs.model_fields} | given)


OWN = frozenset(
    "account array cpus-per-task dependency error gpus-per-node job-name kill-on-invalid-dep mem nodes "
    "ntasks-per-node open-mode output partition requeue signal time".split()
)
"""Options of sbatch that are derived from the study or have a key of their own."""


def _check(needs: Needs, where: str) -> None:
    where = where.removesuffix(": ")
    if needs.grace >= 60 * needs.time:
        what = f"told to save {needs.grace} s before the limit, which is {60 * needs.time} s"
        raise UsageError(what, where=where, remedy="change time (minutes) or grace (seconds)")
    if taken := sorted(OWN & set(needs.options)):
        raise UsageError(
            f"the option '{taken[0]}' of sbatch cannot be set here",
            where=f"{where}: options",
            remedy="it is derived from the study, or has a key of its own",
        )


@dataclass(frozen=True)
class Batch:
    """One submission: a job, or an array of them.

    Attributes:
        name: what the queue shows.
        command: what each job runs, once on each of its machines.
        dependency: as sbatch reads it; "" for none.
        tasks: length of the array; 1 is no array.
    """

    name: str
    command: str
    needs: Needs
    machines: int = 1
    dependency: str = ""
    tasks: int = 1

    def options(self, folder: Path) -> dict[str, str | int | None]:
        """The options of sbatch; None for one that is left out, "" for one without a value."""
        needs, log = self.needs, self._log(folder, "0")
        own: dict[str, str | int | None] = {
            "account": needs.account,
            "array": f"0-{self.tasks - 1}%{min(self.tasks, ARRAY_LIMIT)}" if self.tasks > 1 else None,
            "cpus-per-task": needs.cpus,
            "dependency": self.dependency or None,
            "error": f"{log}.err",
            "gpus-per-node": needs.gpus or None,
            "job-name": self.name,
            "kill-on-invalid-dep": "yes",  # Otherwise a job whose dependency failed waits for ever.
            "mem": needs.mem,
            "nodes": self.machines,
            "ntasks-per-node": 1,
            "open-mode": "append",
            "output": f"{log}.out",
            "partition": needs.partition,
            "requeue": "",
            "signal": f"{TIME_LIMIT.name.removeprefix('SIG')}@{needs.grace}",
            "time": needs.time,
        }
        return own | needs.options

    def _log(self, folder: Path, machine: str) -> str:
        """A log's path without its suffix, with sbatch's patterns for the job's number."""
        number = "%A_%a" if self.tasks > 1 else "%j"
        return str(folder.absolute() / f"{number}_{machine}_log")

    def text(self, folder: Path) -> str:
        """The sbatch file, whose output goes to `folder`; making it needs no SLURM."""
        flags = [
            f"#SBATCH --{name}" + (f"={shlex.quote(str(value))}" if value != "" else "")
            for name, value in sorted(self.options(folder).items())
            if value is not None
        ]
        setup = ["", "# setup", *self.needs.setup] if self.needs.setup else []
        log = self._log(folder, "%t")
        # Since SLURM 22.05 srun does not take cpus-per-task over from sbatch.
        srun = ["srun", "--unbuffered", "--output", f"{log}.out", "--error", f"{log}.err"]
        command = f"{shlex.join([*srun, f'--cpus-per-task={self.needs.cpus}'])} {self.command}"
        return "\n".join(["#!/bin/bash", "", "# Parameters", *flags, *setup, "", "# command", command, ""])

    def submit(self, file: Path) -> str:
        """Write the sbatch file and hand it to sbatch; the job's number. Logs go beside the file.

        Raises:
            LabError: sbatch refuses it.
        """
        write_text(file, self.text(file.parent))
        sbatch = subprocess.run(["sbatch", str(file)], capture_output=True, text=True)
        number = re.search(r"job (\d+)", sbatch.stdout)
        if sbatch.returncode or number is None:
            reason = sbatch.stderr.strip() or sbatch.stdout.strip() or f"exit code {sbatch.returncode}"
            raise LabError(f"sbatch refuses it: {reason}", where=self.name)
        return number[1]


@dataclass(frozen=True)
class Allocation:
    """The job that this process belongs to, as SLURM describes it in the environment.

    Attributes:
        number: the job's own number; every task of an array has one.
        name: as the queue shows it: "12", or "12_0" for the first task of the array 12.
        task: index in the array; 0 without one.
        machine: index of this machine among the job's.
        first_host: name of the job's first machine.
        restarts: how often the job was queued again.
    """

    number: int
    name: str
    task: int
    machine: int
    first_host: str
    restarts: int

    @classmethod
    def read(cls) -> Allocation:
        """Raises: UsageError: this process belongs to no SLURM job."""
        given = os.environ
        if "SLURM_JOB_ID" not in given:
            what = "SLURM_JOB_ID is not set: this is not a SLURM job"
            raise UsageError(what, remedy="submit the study: tldr-lab study submit")
        array, task = given.get("SLURM_ARRAY_JOB_ID"), given.get("SLURM_ARRAY_TASK_ID")
        return cls(
            number=int(given["SLURM_JOB_ID"]),
            name=f"{array}_{task}" if array and task else given["SLURM_JOB_ID"],
            task=int(task or 0),
            machine=int(given.get("SLURM_NODEID", 0)),
            first_host=first_host(given.get("SLURM_JOB_NODELIST", "")) or socket.gethostname(),
            restarts=int(given.get("SLURM_RESTART_COUNT", 0)),
        )

    def is_running(self) -> bool:
        """Whether SLURM reports the job as running: not after a cancellation, nor once it is queued again."""
        return _squeue(f"--jobs={self.name}", "--format=%T") == ["RUNNING"]

    def requeue(self) -> None:
        """Queue the job again.

        Raises:
            LabError: scontrol fails.
        """
        command = ["scontrol", "requeue", self.name]
        try:
            subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            reason = (getattr(error, "stderr", None) or str(error)).strip()
            remedy = "submit the study again: it goes on from what it saved"
            raise LabError(f"cannot be queued again: {reason}", where=self.name, remedy=remedy) from None


def first_host(nodes: str) -> str:
    """The first machine of SLURM's list: ``n03`` of ``n[03-05,7],m1``."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", first[0] if first else "")


def check_slurm(here: str = "tldr-lab study run") -> None:
    """Check that SLURM is installed.

    Args:
        here: the command that runs the study on this machine instead.

    Raises:
        UsageError: SLURM's commands are not installed on this machine.
    """
    if missing := [name for name in ("sbatch", "srun", "squeue") if shutil.which(name) is None]:
        raise UsageError(
            f"{', '.join(missing)} not found: no SLURM here",
            remedy=f"submit on the cluster's login node, or see --dry-run; to run here: {here}",
        )


def queued() -> set[str]:
    """This user's pending and running jobs: "12", or "12_0" in an array.

    Raises:
        LabError: squeue fails; nothing is submitted then, since the jobs might be in the queue already.
    """
    return set(_squeue("--me", "--array", "--format=%i"))


def _squeue(*options: str) -> list[str]:
    command = ["squeue", "--noheader", *options]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    except subprocess.CalledProcessError as error:
        raise LabError(f"squeue fails: {error.stderr.strip()}", remedy="submit again when it works") from None
