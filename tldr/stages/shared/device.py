"""Where a stage computes, and in what precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from tldr.settings.base import Precision
from tldr.train.precision import ResolvedPrecision, prepare_cpu, resolve_precision


@dataclass(frozen=True)
class Device:
    """Where and in what precision a stage computes; resolved once a run."""

    device: torch.device
    precision: ResolvedPrecision

    @classmethod
    def open(cls, precision: Precision) -> Device:
        """The GPU when there is one, else the CPU with its fast and exact settings."""
        prepare_cpu()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return cls(device, resolve_precision(precision, device))

    def autocast(self) -> AbstractContextManager[object]:
        """bf16 compute over fp32 weights, or nothing in fp32."""
        if self.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()
