"""Shapes of the models that a study names. No weights are loaded, and known models need no hub."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, PreTrainedConfig

from tldr.errors import CheckpointError
from tldr.models.ladder import ARCHITECTURES, build_policy
from tldr.pinned import MAIN, is_hub_name, split_name
from tldr.settings.models import ModelSpec
from tldr.strict_yaml import parse_yaml

_DROPOUTS = "dropout attention_dropout hidden_dropout resid_pdrop embd_pdrop attn_pdrop layerdrop".split()


def model_config(spec: ModelSpec, vocab_size: int) -> PreTrainedConfig:
    """The transformers config of a model of the ladder: known, read from its folder or the hub, or built.

    Args:
        vocab_size: of a model that is built, not loaded.

    Raises:
        CheckpointError: an unknown name that neither a folder nor the hub answers to, or an
            architecture without a packed forward.
    """
    if spec.path is None:
        plain = spec.model_copy(update={"init": "default"})
        with FakeTensorMode():
            config = build_policy(plain, vocab_size=vocab_size, eos_id=0, pad_id=1, seed=0).config
    elif (shape := known_models().get(split_name(spec.path)[0].removesuffix("-deduped"))) is not None:
        config = AutoConfig.for_model(**shape)
    else:
        try:
            named = is_hub_name(spec.path)
            place, revision = split_name(spec.path) if named else (spec.path, MAIN)
            config = AutoConfig.from_pretrained(place, revision=revision)
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"its shape is not known here and cannot be read: {str(error).splitlines()[0]}",
                where=spec.path,
                remedy="give a local folder with config.json, or a name from tldr/plan/models.yaml",
            ) from None
    if config.model_type not in ARCHITECTURES:
        raise CheckpointError(
            f"architecture {config.model_type} is not among {', '.join(ARCHITECTURES)}", where=str(spec.path)
        )
    for name in _DROPOUTS:
        if hasattr(config, name):
            setattr(config, name, 0.0)
    config.pad_token_id = None  # as a padding index it may lie outside the embedding
    return config


@cache
def known_models() -> dict[str, dict[str, Any]]:
    """Hub name -> arguments of its config class (``models.yaml``)."""
    path = Path(__file__).with_name("models.yaml")
    families = parse_yaml(path.read_text(encoding="utf-8"), path)
    return {name: family["common"] | shape for family in families for name, shape in family["models"].items()}
