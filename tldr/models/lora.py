"""Low-rank adapters (LoRA; Hu et al. 2021, arXiv 2106.09685): into a model, out of use, merged away.

peft puts them into the model itself, which keeps its class and its parts' places: no forward pass
and no loss needs to know. Before a model is saved they are merged, so a checkpoint has none.
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
    """Freeze a model and set adapters, which start as nothing, beside linear layers of its body.

    A scalar head that it has stays trained. The global random state is left as it was.

    Args:
        settings: None leaves the model as it is.
        seed: of the adapters.

    Raises:
        UsageError: peft is missing, or a target is no linear layer of the body.
    """
    if settings is None:
        return
    need("peft", "lora")
    from peft import LoraConfig, inject_adapter_in_model  # optional, and seconds to import

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=[f"{model.base_model_prefix}.{name}" for name in _targets(model, settings)],
        fan_in_fan_out=model.config.model_type == "gpt2",  # whose layers keep their weights transposed
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        inject_adapter_in_model(config, model)
    del model.peft_config  # the model is to look like any other
    if isinstance(head := getattr(model, "score", None), nn.Module):
        head.requires_grad_(True)


def adapter_parameters(model: PreTrainedModel, settings: Lora) -> int:
    """Parameters that `add_lora` would add (peft is not needed for it).

    Raises:
        UsageError: a target is no linear layer of the body.
    """
    return sum(settings.rank * sum(layer.weight.shape) for layer in _targets(model, settings).values())


def _targets(model: PreTrainedModel, settings: Lora) -> dict[str, Any]:
    """The layers of the body that get an adapter, by their names in it."""
    body = model.base_model.named_modules()
    linear = {name: part for name, part in body if isinstance(part, nn.Linear | Conv1D)}
    names = {name.rpartition(".")[2] for name in linear}
    targets = names if settings.targets is None else set(settings.targets)
    if unknown := sorted(targets - names):
        raise UsageError(
            f"{unknown[0]} is no linear layer of {type(model).__name__}",
            where="lora.targets",
            remedy=f"there are {', '.join(sorted(names))}; leave it out to take them all",
        )
    return {name: part for name, part in linear.items() if name.rpartition(".")[2] in targets}


@contextmanager
def lora_off(model: nn.Module) -> Iterator[None]:
    """Inside, the model is what it was before `add_lora`; for forward passes without gradients."""
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
    """Add every adapter to the weights beside it and take it away: a plain model, with equal outputs."""
    for name, layer in _adapted(model):
        layer.merge()
        model.set_submodule(name, layer.get_base_layer())


def _adapted(model: nn.Module) -> list[tuple[str, Any]]:
    """Layers with an adapter; told by what they hold, so that peft is not imported for nothing."""
    return [(name, part) for name, part in model.named_modules() if hasattr(part, "lora_A")]
