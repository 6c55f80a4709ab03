"""A run in several processes: ``accelerate launch`` with a config of ``configs/accelerate``.

The config sets the number of processes and machines, and whether weights are sharded (FSDP2). The study
sets what is trained, and in which precision.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from tldr.errors import UsageError
from tldr.strict_yaml import read_yaml


@dataclass(frozen=True)
class Launch:
    """How `accelerate launch` starts the processes of a run.

    Attributes:
        config: its config file.
        processes: on all machines together.
        machines: their number; the same command is started on each.
    """

    config: Path
    processes: int
    machines: int

    @classmethod
    def read(cls, config: Path) -> Launch:
        """Read an accelerate config.

        Raises:
            UsageError: the file is missing, or does not set the number of processes and machines.
        """
        given = read_yaml(config)
        counts = []
        for key in ("num_processes", "num_machines"):
            count = given.get(key)
            if not isinstance(count, int) or count < 1:
                raise UsageError(
                    f"found {count!r}, expected an integer from 1", where=f"{config}: {key}", remedy="set it"
                )
            counts.append(count)
        if counts[0] % counts[1]:
            what = f"{counts[0]} processes cannot be divided among {counts[1]} machines"
            raise UsageError(what, where=f"{config}: num_processes")
        return cls(config, *counts)

    @property
    def per_machine(self) -> int:
        """Processes on each machine."""
        return self.processes // self.machines

    def command(self, *options: str) -> list[str]:
        """The command that executes a run; the run's folder is to be appended to it.

        Args:
            options: of `accelerate launch`, such as ``--machine_rank``; they override the config.
        """
        launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(self.config)]
        return [*launcher, *options, "-m", "tldr", "_run"]
