"""Networks of finished runs and checkpoints, ready for inference."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tldr.models.ladder import load_policy
from tldr.models.reward import load_reward
from tldr.stages.shared.device import Device


def checkpoint_folder(place: Path) -> Path:
    """A run folder's ``checkpoint/``, or the folder itself when it is a checkpoint."""
    inner = Path(place) / "checkpoint"
    return inner if inner.is_dir() else Path(place)


def moved(model: PreTrainedModel, device: Device) -> PreTrainedModel:
    """The model on the device, in inference mode (dropout off)."""
    nn.Module.to(model, device.device)
    model.train(False)
    return model


def as_model(module: nn.Module) -> PreTrainedModel:
    """A stepper's module as what it is, a transformers model."""
    assert isinstance(module, PreTrainedModel)
    return module


def open_policy(
    place: Path,
    device: Device,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> PreTrainedModel:
    """A policy ready for inference; ids that its tokenizer cannot write are masked.

    Args:
        tokenizer: of the texts; None: the one saved beside the policy.
    """
    return moved(load_policy(checkpoint_folder(place), tokenizer, dtype=dtype), device)


def open_sampler(
    place: Path, device: Device, tokenizer: PreTrainedTokenizerBase | None = None
) -> PreTrainedModel:
    """A policy to sample from, in bf16 where it multiplies in it; arguments as of `open_policy`.

    Half the memory, and no cast of every weight at every token: autocast keeps none in inference mode.
    """
    dtype = torch.bfloat16 if device.precision == "bf16" else torch.float32
    return open_policy(place, device, tokenizer, dtype=dtype)


def open_reward(place: Path, device: Device) -> PreTrainedModel:
    """A reward model ready for inference; its reference-mean shift is applied."""
    return moved(load_reward(checkpoint_folder(place)), device)
