"""What runs ask of a SLURM cluster, and jobs for it: sbatch files and their submission by submitit.

Of submitit its sbatch files, submission and requeueing are used, and not its pickled functions: a job's
command names a JSON file (`tldr.study.submit.JobFile`), so that no pickle is loaded and the printed
sbatch file is the whole job.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveInt
from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.slurm.slurm import _make_sbatch_string

from tldr.errors import LabError, UsageError
from tldr.settings.base import Settings
from tldr.study.load import Places, nearest, read_settings
from tldr.study.registry import STAGES
from tldr.study.strict_yaml import read_yaml


class Needs(Settings):
    """What one job asks for.

    Attributes:
        time: its limit in minutes; a run that takes longer is queued again and goes on.
        grace: seconds before the limit at which it is told to save.
        requeues: how often it may be queued again, after time limits and pre-emptions together.
        gpus: on each machine.
        cpus: on each machine.
        mem: memory on each machine, as sbatch reads it ("64G"); None leaves it to the cluster.
        options: further options of sbatch, as in ``{constraint: h100}``.
        setup: shell lines before the run.
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
    """What every job asks for; `stages` holds what is different for some stages."""

    stages: dict[str, Needs] = Field(default_factory=dict)

    @classmethod
    def read(cls, path: Path | None, overrides: Sequence[str] = ()) -> Resources:
        """Read a file as ``configs/slurm/example.yaml``, with ``key=value`` over it; defaults without one.

        Raises:
            UsageError: an unknown key or stage, a wrong value, or an option that is set here otherwise.
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
        """What a job of one stage asks for: its own keys over those of every job."""
        over = self.stages.get(stage, Needs())
        given = {name: getattr(over, name) for name in over.model_fields_set}
        return Needs.model_validate({name: getattr(self, name) for name in Needs.model_fields} | given)


OWN = frozenset(
    "account array cpus-per-task dependency error gpus-per-node job-name kill-on-invalid-dep mem nodes "
    "ntasks-per-node open-mode output partition requeue signal time".split()
)
"""Options of sbatch that follow from the study or have a key of their own."""


def _check(needs: Needs, where: str) -> None:
    where = where.removesuffix(": ")
    if needs.grace >= 60 * needs.time:
        what = f"told to save {needs.grace} s before the limit, which is {60 * needs.time} s"
        raise UsageError(what, where=where, remedy="change time (minutes) or grace (seconds)")
    if taken := sorted(OWN & set(needs.options)):
        raise UsageError(
            f"the option '{taken[0]}' of sbatch is not free",
            where=f"{where}: options",
            remedy="it follows from the study or has a key of its own",
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

    def parameters(self) -> dict[str, Any]:
        """For submitit."""
        needs = self.needs
        return {
            "job_name": self.name,
            "time": needs.time,
            "nodes": self.machines,
            "ntasks_per_node": 1,
            "cpus_per_task": needs.cpus,
            "gpus_per_node": needs.gpus or None,
            "mem": needs.mem,
            "partition": needs.partition,
            "account": needs.account,
            "dependency": self.dependency or None,
            "signal_delay_s": needs.grace,
            "setup": needs.setup or None,
            "wckey": None,
            # Since SLURM 22.05 srun does not take it over from sbatch.
            "srun_args": [f"--cpus-per-task={needs.cpus}"],
            # A job whose dependency failed would else stay in the queue for ever.
            "additional_parameters": needs.options | {"requeue": True, "kill-on-invalid-dep": "yes"},
        }

    @property
    def _map(self) -> dict[str, int]:
        return {"map_count": self.tasks} if self.tasks > 1 else {}

    def text(self, folder: Path) -> str:
        """The sbatch file, whose output goes to `folder`; it needs no SLURM."""
        parameters = self.parameters() | self._map
        return _make_sbatch_string(self.command, folder.absolute(), **parameters)

    def submit(self, folder: Path) -> str:
        """Hand it to sbatch; the job's number.

        Raises:
            LabError: sbatch refuses it.
        """
        executor = SlurmExecutor(folder)
        executor.update_parameters(**self.parameters())
        executor.parameters |= self._map
        try:
            return str(executor._submit_command(self.command).job_id)
        except (FailedJobError, FailedSubmissionError) as error:
            reason = str(error) or repr(error.__cause__)
            raise LabError(f"sbatch refuses it: {reason}", where=self.name) from None


def need_slurm() -> None:
    """Raises: UsageError: this machine submits to no SLURM cluster."""
    if missing := [name for name in ("sbatch", "srun", "squeue") if shutil.which(name) is None]:
        raise UsageError(
            f"{', '.join(missing)} not found: no SLURM here",
            remedy="submit on the cluster's login node, or see --dry-run; to run here: tldr-lab study run",
        )


def queued() -> set[str]:
    """This user's jobs that wait or run: "12", or "12_0" in an array.

    Raises:
        LabError: squeue fails; without it nothing is submitted, as it might be there already.
    """
    return set(_squeue("--me", "--array", "--format=%i"))


def runs_still(job: str) -> bool:
    """Whether SLURM holds a job to be running: not when it was cancelled, or is queued again already."""
    return _squeue(f"--jobs={job}", "--format=%T") == ["RUNNING"]


def _squeue(*options: str) -> list[str]:
    command = ["squeue", "--noheader", *options]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    except subprocess.CalledProcessError as error:
        raise LabError(f"squeue fails: {error.stderr.strip()}", remedy="submit again when it works") from None
