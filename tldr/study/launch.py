"""A run in several processes: ``accelerate launch`` with a config of ``configs/accelerate``.

The config says how many processes on how many machines, and whether weights are shared out (FSDP2);
what is trained, and in what precision, the study says.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from tldr.errors import UsageError
from tldr.study.strict_yaml import read_yaml


@dataclass(frozen=True)
class Launch:
    """How `accelerate launch` starts the processes of a run.

    Attributes:
        config: its config file.
        processes: of all machines together.
        machines: the same command is started on each.
    """

    config: Path
    processes: int
    machines: int

    @classmethod
    def read(cls, config: Path) -> Launch:
        """Read an accelerate config.

        Raises:
            UsageError: no such file, or it does not say how many processes on how many machines.
        """
        given = read_yaml(config)
        counts = []
        for key in ("num_processes", "num_machines"):
            count = given.get(key)
            if not isinstance(count, int) or count < 1:
                raise UsageError(
                    f"found {count!r}, expected a number from 1", where=f"{config}: {key}", remedy="set it"
                )
            counts.append(count)
        if counts[0] % counts[1]:
            what = f"{counts[0]} processes do not spread over {counts[1]} machines"
            raise UsageError(what, where=f"{config}: num_processes")
        return cls(config, *counts)

    @property
    def here(self) -> int:
        """Processes on each machine."""
        return self.processes // self.machines

    def command(self, *options: str) -> list[str]:
        """The program that runs the run in a folder, which is added to it.

        Args:
            options: of `accelerate launch`, over the config (``--machine_rank``, ``--main_process_ip``).
        """
        launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(self.config)]
        return [*launcher, *options, "-m", "tldr", "_run"]
