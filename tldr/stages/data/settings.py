"""Settings of the data stage: where posts, labels and the tokenizer come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from tldr.settings.base import Settings
from tldr.toy.settings import ToyData


class FileData(Settings):
    """Post and comparison files in the project's records.

    A set may also be `NAME@SPLIT`, of a known source (`tldr-lab data sources`), or `FOLDER@SPLIT`;
    `train+valid1` is both splits. The corpus and the articles are plain files.
    """

    kind: Literal["files"] = "files"
    """Names this kind of data."""
    sft: str
    """Posts with references."""
    ppo: str | None = None
    """Body-filtered posts; when absent the SFT posts stand in, and every report says so."""
    valid1: str
    """Posts to select on. Those that the comparisons mark valid2 are taken out: they only report."""
    valid2: str
    """Posts to report on; nothing is ever chosen on them."""
    comparisons: str | None = None
    """Comparisons or rankings to train the RM on; null: people label (`labels.kind: people`)."""
    corpus: str | None = None
    """Documents for pretraining, PPO-ptx and a tokenizer trained here."""
    cnndm: str | None = None
    """Articles with references, on which the ladder's policies are tried too (P 4.2)."""
    on_error: Literal["stop", "skip"] = "stop"
    """At a line that holds no record: stop, or count it and set it aside (`bad_lines.txt`)."""


class TokenizerSpec(Settings):
    """A byte-level BPE trained on the corpus, or a tokenizer folder / hub name."""

    path: str | None = None
    """Tokenizer folder or hub name; None: one is trained on the corpus."""
    vocab_size: PositiveInt = 768
    """Of the tokenizer that is trained."""


class DataSettings(Settings):
    """What the data stage makes: post files and a tokenizer in one folder."""

    data: Annotated[ToyData | FileData, Field(discriminator="kind")]
    tokenizer: TokenizerSpec = TokenizerSpec()
