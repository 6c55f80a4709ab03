"""Low-rank adapters (LoRA; Hu et al. 2021, arXiv 2106.09685): add, disable and merge them.

peft inserts them into the model itself, which keeps its class and module names: forward passes and
losses need no change. They are merged before a model is saved, so a checkpoint has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tldr.errors import UsageError
from tldr.settings.extras import need
from tldr.settings.training import Lora


def add_lora(model: PreTrainedModel, settings: Lora | None, seed: int) -> None:
    """Freeze a model and add zero-initialised adapters to linear layers of its body.

    A scalar head, if present, stays trainable. The global random state does not change.

    Args:
        settings: None: do nothing.
        seed: initialises the adapters.

    Raises:
        UsageError: peft is not installed, or a target is not a linear layer of the body.
    """
    if settings is None:
        return
    need("peft", "lora")
    from peft import LoraConfig, inject_adapter_in_model  # optional, and slow to import

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=[f"{model.base_model_prefix}.{name}" for name in _targets(model, settings)],
        fan_in_fan_out=model.config.model_type == "gpt2",  # its layers store transposed weights
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        inject_adapter_in_model(config, model)
    del model.peft_config  # the model must look like any other
    if isinstance(head := getattr(model, "score", None), nn.Module):
        head.requires_grad_(True)


def adapter_parameters(model: PreTrainedModel, settings: Lora) -> int:
    """Number of parameters that `add_lora` would add (does not need peft).

    Raises:
        UsageError: a target is not a linear layer of the body.
    """
    return sum(settings.rank * sum(layer.weight.shape) for layer in _targets(model, settings).values())


def _targets(model: PreTrainedModel, settings: Lora) -> dict[str, Any]:
    """The layers of the body that get an adapter, by name."""
    body = model.base_model.named_modules()
    linear = {name: part for name, part in body if isinstance(part, nn.Linear | Conv1D)}
    names = {name.rpartition(".")[2] for name in linear}
    targets = names if settings.targets is None else set(settings.targets)
    if unknown := sorted(targets - names):
        raise UsageError(
            f"{unknown[0]} is not a linear layer of {type(model).__name__}",
            where="lora.targets",
            remedy=f"choose from {', '.join(sorted(names))}; omit lora.targets to adapt all of them",
        )
    return {name: part for name, part in linear.items() if name.rpartition(".")[2] in targets}


@contextmanager
def lora_off(model: nn.Module) -> Iterator[None]:
    """Inside, the adapters are disabled; for forward passes without gradients."""
    layers = [layer for _, layer in _adapted(model)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


@torch.no_grad()
def merge_lora(model: nn.Module) -> None:
    """Merge every adapter into its layer's weights and remove it: a plain model with equal outputs."""
    for name, layer in _adapted(model):
        layer.merge()
        model.set_submodule(name, layer.get_base_layer())


def _adapted(model: nn.Module) -> list[tuple[str, Any]]:
    """Layers with an adapter, recognised by an attribute so that peft need not be imported."""
    return [(name, part) for name, part in model.named_modules() if hasattr(part, "lora_A")]
