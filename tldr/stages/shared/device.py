"""Where a stage computes, and in what precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch

from tldr.settings.base import Precision
from tldr.train.crew import Crew
from tldr.train.precision import ResolvedPrecision, prepare_cpu, resolve_precision


@dataclass(frozen=True)
class Device:
    """Where and in what precision a stage computes; resolved once a run."""

    device: torch.device
    precision: ResolvedPrecision
    crew: Crew = field(default_factory=Crew)
    """The processes that share what is computed here; by default this one alone."""

    @classmethod
    def open(cls, precision: Precision, *, shared: bool = False) -> Device:
        """The GPU when there is one, else the CPU with its fast and exact settings.

        Args:
            shared: all processes of the run sample and score here together (`Stage.spread`): each calls the
                same functions with the same arguments.
        """
        crew = Crew.of_run() if shared else Crew()  # sets this process's GPU
        prepare_cpu()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return cls(device, resolve_precision(precision, device), crew)

    def autocast(self) -> AbstractContextManager[object]:
        """bf16 compute over fp32 weights, or nothing in fp32."""
        if self.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()
