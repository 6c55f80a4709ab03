"""The rough size of a model before it is loaded, without torch: which runs take longest depends on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from tldr.pinned import split_name
from tldr.settings.models import ModelSpec
from tldr.study.folder import read_note

_LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
_WIDTHS = ("hidden_size", "n_embd", "d_model")
_BYTES = 12 * 4
"""Of 12 weights, each in 4 bytes: a transformer has about 12 per layer and squared width."""


def scale(model: ModelSpec) -> float:
    """Layers times squared width: with a path by the model's ``config.json``, or by the size of its weights.

    One that is neither in a folder nor in the hub's cache counts as the settings' defaults.
    """
    if model.path is not None:
        folder = Path(model.path)
        config = folder / "config.json" if folder.is_dir() else cached_file(model.path, "config.json")
        shape = read_note(config) if config else {}
        layers, width = _first(shape, _LAYERS), _first(shape, _WIDTHS)
        if layers and width:
            return float(layers * width**2)
        if held := sum(path.stat().st_size for path in folder.glob("*.safetensors")):
            return held / _BYTES
    return float(model.layers * model.d_model**2)


def cached_file(model: str, name: str) -> Path | None:
    """A file of a model in the hub's cache, if it is there."""
    model, revision = split_name(model)
    try:
        path = try_to_load_from_cache(model, name, revision=revision)
    except ValueError:  # not a name of the hub
        return None
    return Path(path) if isinstance(path, str) else None


def _first(shape: Mapping[str, Any], names: tuple[str, ...]) -> int:
    return next((shape[name] for name in names if isinstance(shape.get(name), int)), 0)
