"""Tokenizers: a byte-level BPE trained on the study's corpus, or any folder or hub name.

The pad token always differs from EOS. If a pretrained tokenizer has no pad, ``<|pad|>`` is added past the end
of the tokenizer; the model's embedding is **not** resized. Pads are masked everywhere and replaced by another
id before each forward pass, so the extra id is never looked up. A model whose vocabulary is padded beyond the
tokenizer has a logit for it all the same; `tldr.models.vocabulary` masks it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tldr.errors import UsageError
from tldr.pinned import fetch, is_hub_name

EOS = "<|endoftext|>"
PAD = "<|pad|>"


def train_bpe(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE with GPT-2's pre-tokenization; the same texts give the same tokenizer.

    Args:
        vocab_size: at least 258: 256 bytes, EOS and pad. Small corpora may yield fewer tokens.

    Returns:
        a tokenizer whose `save_pretrained` folder loads with plain ``AutoTokenizer``; it pads on the left.

    Raises:
        UsageError: no texts, or a vocabulary too small for the bytes.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    least = len(alphabet) + 2
    if vocab_size < least:
        raise UsageError(
            f"a vocabulary of {vocab_size} cannot hold 256 bytes, EOS and pad",
            where="tokenizer.vocab_size",
            remedy=f"use at least {least}",
        )
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    seen = 0

    def counted() -> Iterable[str]:
        nonlocal seen
        for text in texts:
            seen += bool(text)
            yield text

    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOS, PAD],
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    backend.train_from_iterator(counted(), trainer)
    if not seen:
        raise UsageError(
            "no text to train the tokenizer on", where="corpus", remedy="give it a non-empty corpus"
        )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        eos_token=EOS,
        pad_token=PAD,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(path_or_name: str | Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a local folder (checkpoint, or vocab.json + merges.txt) or by hub name.

    Returns:
        a tokenizer with an EOS and a pad that is not it; it pads on the left.

    Raises:
        UsageError: nothing found, not readable as a tokenizer, or no EOS.
    """
    place = str(path_or_name)
    tokenizer = _load(place)
    if tokenizer.eos_token_id is None:
        raise UsageError(
            "the tokenizer has no EOS token, so no response could ever end",
            where=place,
            remedy='set "eos_token" in its tokenizer_config.json',
        )
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"pad_token": PAD})
    tokenizer.padding_side = "left"
    if "local_files_only" in tokenizer.init_kwargs:
        # transformers would save it: a checkpoint made offline would differ from one made online.
        tokenizer.init_kwargs["local_files_only"] = False
    return tokenizer


def text_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The ids that a text can contain: those with a token, without pad. There may be holes between them."""
    return _text_ids(tokenizer, len(tokenizer), tokenizer.pad_token_id)


@lru_cache(maxsize=8)
def _text_ids(tokenizer: PreTrainedTokenizerBase, _size: int, pad: int | None) -> frozenset[int]:
    return frozenset(tokenizer.get_vocab().values()) - {pad}


def _load(place: str) -> PreTrainedTokenizerBase:
    folder = Path(place)
    if not folder.is_dir() and (folder.is_absolute() or place.startswith(".") or place.count("/") > 1):
        raise UsageError("no such tokenizer folder", where=place, remedy="check the path")
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    try:
        if {"vocab.json", "merges.txt"} <= names and not names & {"tokenizer.json", "tokenizer_config.json"}:
            tokenizer: PreTrainedTokenizerBase = GPT2Tokenizer.from_pretrained(place)
        else:
            hub = not folder.is_dir() and is_hub_name(place)
            tokenizer = AutoTokenizer.from_pretrained(fetch(place, weights=False) if hub else place)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        if folder.is_dir():
            raise UsageError(
                f"this folder holds no tokenizer that transformers can load: {reason}",
                where=place,
                remedy="it needs tokenizer.json, or vocab.json and merges.txt",
            ) from error
        raise UsageError(
            f"no such local folder, and it cannot be loaded from the model hub: {reason}",
            where=place,
            remedy="pass a local folder; if HF_HUB_OFFLINE is set, unset it to download, "
            "or set it to 1 to use only what is cached",
        ) from error
    return tokenizer
