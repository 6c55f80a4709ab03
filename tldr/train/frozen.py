"""Frozen models (the KL reference, the reward model) and where their weights are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn

from tldr.models.lora import lora_off
from tldr.train.processes import JointModules
from tldr.train.stepper import Stepper


class Frozen:
    """A frozen model, kept at the place given by `PPOSettings.frozen_place`.

    Args:
        model: the full model, on any device.
        device: the device it computes on.
    """

    def __init__(self, model: nn.Module, place: Literal["device", "cpu", "shard"], device: torch.device):
        self._model = model.requires_grad_(False).eval()
        self._device, self._away = device, place == "cpu" and device.type != "cpu"
        self._joint = JointModules({"model": self._model})
        if place == "shard" and dist.is_initialized():
            _shard(self._joint)
        nn.Module.to(self._model, "cpu" if self._away else device)

    @contextmanager
    def at_work(self) -> Iterator[Callable[..., Any]]:
        """Inside, the weights are on the device; ``call(function, *args)`` is ``function(model, *args)``.

        A sharded model gathers its layers in every call, so all processes must call.
        """
        host = {name: tensor.data for name, tensor in self._model.named_parameters()}
        if self._away:
            nn.Module.to(self._model, self._device)
        try:
            yield lambda function, *args: self._joint(
                lambda parts, *inner: function(parts["model"], *inner), *args
            )
        finally:
            if self._away:  # The weights have not changed, so nothing is copied back.
                for name, parameter in self._model.named_parameters():
                    parameter.data = host[name]


class LoraOff:
    """A trained model with its adapters disabled: it replaces a frozen copy of the model it started from.

    Args:
        name: name of the trained module.
    """

    def __init__(self, stepper: Stepper, name: str):
        self._stepper, self._name = stepper, name

    @contextmanager
    def at_work(self) -> Iterator[Callable[..., Any]]:
        """Like `Frozen.at_work`; between calls the adapters are enabled."""

        def call(function: Callable[..., Any], *args: Any) -> Any:
            with lora_off(self._stepper.modules[self._name]):
                return self._stepper.call(lambda parts, *inner: function(parts[self._name], *inner), *args)

        yield call


def _shard(joint: JointModules) -> None:
    """Shard the weights over all processes, layer by layer."""
    from torch.distributed.fsdp import fully_shard  # takes two seconds to import

    for module in list(joint.modules()):
        if type(module).__name__ in joint._no_split_modules:
            fully_shard(module)
    fully_shard(joint, reshard_after_forward=True)
