"""The processes of a run that trains nothing: they share whole batches; the bytes are those of one process.

A batch is computed by one process, with the same threads and from random numbers of its own, whichever
process that is. Every process then has all results, and only the first one writes them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState

from tldr.train.processes import leave_group_at_exit

T = TypeVar("T")
LONGEST = timedelta(days=7)
"""A process may wait so long for the others: a pool of samples takes hours."""


@dataclass(frozen=True)
class Crew:
    """This process and the others of its run.

    Attributes:
        index: of this process, from 0. count: of processes.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def of_run(cls) -> Crew:
        """The processes that a launcher started for this run; this one alone without a launcher."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        state = PartialState(cpu=not torch.cuda.is_available(), timeout=LONGEST)
        leave_group_at_exit()
        return cls(int(state.process_index), int(state.num_processes))

    def own(self, batches: Sequence[T]) -> Sequence[T]:
        """This process's batches: every `count`-th, so that long and short ones are divided evenly."""
        return batches[self.index :: self.count]

    def all_of(self, own: Mapping[int, T]) -> dict[int, T]:
        """What all processes have found, by item; every process must call, with its own part."""
        if self.count == 1:
            return dict(own)
        parts: list[dict[int, T]] = [{} for _ in range(self.count)]
        dist.all_gather_object(parts, dict(own))
        return {item: value for part in parts for item, value in part.items()}
