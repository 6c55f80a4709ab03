"""Supervised training: one network on a fixed set of examples, one optimizer step an update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch import nn

from tldr.settings.training import Training
from tldr.stages.shared.batches import share
from tldr.train.batching import BatchPlan
from tldr.train.stepper import Loss, Stepper


class DeviceBatch(Protocol):
    """A batch that can be copied to a device."""

    def to(self, device: torch.device) -> Self:
        """The same batch on another device."""


ExampleT = TypeVar("ExampleT")
BatchT = TypeVar("BatchT", bound=DeviceBatch)


@dataclass(frozen=True)
class SupervisedTraining(Generic[ExampleT, BatchT]):
    """A network, its examples and its loss.

    Attributes:
        stepper: holds the network and makes the optimizer steps.
        plan: the examples of each update.
        collate: makes one batch of some examples.
        loss: of one batch.
    """

    stepper: Stepper
    plan: BatchPlan
    settings: Training
    examples: Sequence[ExampleT]
    collate: Callable[[list[ExampleT]], BatchT]
    loss: Callable[[nn.ModuleDict, BatchT], Loss]

    def update(self, index: int) -> dict[str, float]:
        """Make one optimizer step on this process's share of the update's examples."""
        accelerator = self.stepper.accelerator
        parts = share(self.plan.batch(index), self.settings, accelerator)
        batches = [self.collate([self.examples[i] for i in part]) for part in parts]
        return self.stepper.step(self.loss, [batch.to(accelerator.device) for batch in batches])
