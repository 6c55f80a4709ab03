"""Tiny random networks under the names of the presets' models, to run a preset where no weights are.

Each has the architecture, the position window, the tied or untied output and the padded vocabulary of the
model that it stands for, and a tokenizer of the same class with the same special tokens. Only layers, widths
and the words of the vocabulary are fewer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from tldr.plan.models import known_models
from tldr.queries.tokenizer import EOS, train_bpe

WORDS = 640
"""Tokens of the vocabulary."""
WIDTH = 64
"""A network is narrower than its model by this factor, in steps of 8."""
LEAST_WIDTH, HEADS = 16, 2
LAYERS = 16
"""It has fewer layers by this factor, and at least two."""


@dataclass(frozen=True)
class Family:
    """Models that share a tokenizer.

    Attributes:
        prefix: of their hub names.
        special: special tokens in the order of their ids, which are the first ones (last, with `at_end`).
        config: of the tokenizer, as in the family's ``tokenizer_config.json``.
        padding: rows of the models' vocabulary beyond the tokenizer's.
        whole: the tokenizer lies in one ``tokenizer.json``, not in ``vocab.json`` and ``merges.txt``.
        suffix: of the hub names as presets use them.
    """

    prefix: str
    special: tuple[str, ...]
    config: dict[str, Any]
    padding: int = 0
    at_end: bool = False
    whole: bool = False
    suffix: str = ""


OPT = Family(
    "facebook/opt-",
    ("<s>", "<pad>", "</s>", "<unk>"),
    {
        "tokenizer_class": "GPT2Tokenizer",
        "add_bos_token": True,
        "add_prefix_space": False,
        "errors": "replace",
    }
    | {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"},
    padding=7,
)
PYTHIA = Family(
    "EleutherAI/pythia-",
    (EOS, "<|padding|>"),
    {"tokenizer_class": "GPTNeoXTokenizer", "add_prefix_space": False}
    | {"bos_token": EOS, "eos_token": EOS, "unk_token": EOS},
    padding=27,
    whole=True,
    suffix="-deduped",
)
CEREBRAS = Family(
    "cerebras/Cerebras-GPT-",
    (EOS,),
    {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False, "model_max_length": 2048}
    | {"bos_token": EOS, "eos_token": EOS, "unk_token": EOS},
    at_end=True,
)
FAMILIES = (OPT, PYTHIA, CEREBRAS)


def fake_models(texts: Sequence[str], folder: Path, seed: int = 0) -> Iterator[tuple[str, Path]]:
    """Write the models of all families, one folder each, and yield their hub names and folders.

    Args:
        texts: what the tokenizers are trained on.
    """
    torch.manual_seed(seed)
    for family in FAMILIES:
        vocabulary, merges = _vocabulary(family, texts)
        for name, shape in known_models().items():
            if name.startswith(family.prefix):
                place = folder / name.rpartition("/")[2]
                place.mkdir(parents=True)
                _write_tokenizer(family, vocabulary, merges, place)
                _write_network(family, vocabulary, shape, place)
                yield name + family.suffix, place


def _vocabulary(family: Family, texts: Iterable[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Token -> id, and the merges, of a BPE trained on the texts; special tokens as in the family."""
    model = json.loads(train_bpe(texts, WORDS).backend_tokenizer.to_str())["model"]
    trained = sorted(model["vocab"], key=model["vocab"].__getitem__)
    words = [word for word in trained if not word.startswith("<|")]
    special = list(family.special)
    order = [*words, *special] if family.at_end else [*special, *words]
    pairs = [pair.split() if isinstance(pair, str) else pair for pair in model["merges"]]
    return {word: id for id, word in enumerate(order)}, [(first, second) for first, second in pairs]


def _write_tokenizer(
    family: Family, vocabulary: dict[str, int], merges: list[tuple[str, str]], folder: Path
) -> None:
    if family.whole:
        backend = Tokenizer(BPE(vocab=vocabulary, merges=merges))
        plain = train_bpe(["a"], 258).backend_tokenizer
        backend.pre_tokenizer, backend.decoder = plain.pre_tokenizer, plain.decoder
        backend.add_special_tokens(list(family.special))
        backend.save(str(folder / "tokenizer.json"))
    else:
        (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        lines = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)])
        (folder / "merges.txt").write_text(lines + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(family.config), encoding="utf-8")


def _write_network(family: Family, vocabulary: dict[str, int], shape: dict[str, Any], folder: Path) -> None:
    auto: Any = AutoModelForCausalLM
    auto.from_config(_narrow(family, vocabulary, shape), dtype=torch.float32).save_pretrained(folder)


def _narrow(family: Family, vocabulary: dict[str, int], shape: dict[str, Any]) -> PreTrainedConfig:
    """The config of a model with fewer layers, widths and words, and everything else as it is."""
    config = AutoConfig.for_model(**shape)
    width = _width(config.hidden_size)
    changes = {
        "hidden_size": width,
        "num_hidden_layers": max(2, config.num_hidden_layers // LAYERS),
        "num_attention_heads": HEADS,
        "vocab_size": len(vocabulary) + family.padding,
    }
    for inner in ("ffn_dim", "intermediate_size", "n_inner"):
        if shape.get(inner):
            changes[inner] = 4 * width
    if shape.get("word_embed_proj_dim"):
        same = shape["word_embed_proj_dim"] == shape["hidden_size"]
        changes["word_embed_proj_dim"] = width if same else width // 2
    for name, value in changes.items():
        setattr(config, name, value)
    for kind in ("bos", "eos", "pad"):
        token = family.config.get(f"{kind}_token")
        setattr(config, f"{kind}_token_id", None if token is None else vocabulary[token])
    return config


def _width(model: int) -> int:
    return max(LEAST_WIDTH, round(model / WIDTH / 8) * 8)
