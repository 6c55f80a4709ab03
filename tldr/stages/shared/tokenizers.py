"""The tokenizer of a run, and its two special tokens."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from tldr.queries.tokenizer import load_tokenizer
from tldr.stages.shared.networks import checkpoint_folder


def open_tokenizer(place: Path) -> PreTrainedTokenizerBase:
    """The tokenizer saved beside a checkpoint, or in a data folder's ``tokenizer/``."""
    place = Path(place)
    return load_tokenizer(place / "tokenizer" if (place / "tokenizer").is_dir() else checkpoint_folder(place))


def eos_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The tokenizer's EOS id; `load_tokenizer` ensures that it exists."""
    assert tokenizer.eos_token_id is not None
    return int(tokenizer.eos_token_id)


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The tokenizer's pad id, distinct from EOS."""
    assert tokenizer.pad_token_id is not None
    return int(tokenizer.pad_token_id)
