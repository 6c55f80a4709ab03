"""The tokenizer of a run, and its two special tokens."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from tldr.errors import UsageError
from tldr.queries.tokenizer import load_tokenizer
from tldr.stages.shared.networks import checkpoint_folder


def open_tokenizer(place: Path) -> PreTrainedTokenizerBase:
    """The tokenizer saved beside a checkpoint, or in a data folder's ``tokenizer/``."""
    place = Path(place)
    return load_tokenizer(place / "tokenizer" if (place / "tokenizer").is_dir() else checkpoint_folder(place))


def check_reads_tokens_of(reward: Path, policy: Path, tokenizer: PreTrainedTokenizerBase, key: str) -> None:
    """Refuse a reward model that was trained with other tokens than those a policy writes.

    It is given the ids that the policy drew, which mean other texts in another vocabulary. Queries come in
    the policy's ids too.

    Args:
        tokenizer: the policy's. key: the setting or input that names the reward model.

    Raises:
        UsageError: the tokenizers differ in their tokens, or in what ends a summary.
    """
    other = open_tokenizer(reward)
    if other.get_vocab() != tokenizer.get_vocab():
        differs = f"{len(other.get_vocab()):,} tokens, not the policy's {len(tokenizer.get_vocab()):,}"
        if len(other.get_vocab()) == len(tokenizer.get_vocab()):
            differs = "as many tokens as the policy's tokenizer, but others"
    elif eos_id(other) != eos_id(tokenizer):
        differs = f"the EOS {other.eos_token!r}, not the policy's {tokenizer.eos_token!r}"
    else:
        return
    raise UsageError(
        f"the reward model in {reward} has a tokenizer with {differs}, so it cannot read what the policy in "
        f"{policy} writes",
        where=key,
        remedy="take a reward model that was trained from a policy with the same tokenizer (in a study: "
        "reward.size null, or a ladder of one model family)",
    )


def eos_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The tokenizer's EOS id; `load_tokenizer` ensures that it exists."""
    assert tokenizer.eos_token_id is not None
    return int(tokenizer.eos_token_id)


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The tokenizer's pad id, distinct from EOS."""
    assert tokenizer.pad_token_id is not None
    return int(tokenizer.pad_token_id)
