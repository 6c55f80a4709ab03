"""Settings of data, models and windows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from tldr.config.base import Settings


class ModelSpec(Settings):
    """One rung of the ladder: a random init from a config, or a folder or hub name to load."""

    path: str | None = None
    """Local folder or hub name; when set, the fields below are not used."""
    arch: Literal["gpt_neox", "gpt2", "opt", "llama"] = "gpt_neox"
    d_model: PositiveInt = 64
    layers: PositiveInt = 2
    heads: PositiveInt = 4
    context: PositiveInt = 256
    init: Literal["default", "mimetic"] = "default"
    """mimetic (Trockman & Kolter 2023): W_q = W_k and W_o ~ W_v^T, a copying prior for tiny models."""

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelSpec:
        if self.d_model % self.heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of heads {self.heads}")
        return self


class ToyData(Settings):
    """Sizes of the generated world; its rules are in `tldr.toy`."""

    kind: Literal["toy"] = "toy"
    seed: int = 1
    corpus: PositiveInt = 24000
    """Documents of the pretraining corpus."""
    sft_posts: PositiveInt = 6000
    """Posts with a reference for SFT; they are among the PPO posts, as in the paper."""
    ppo_posts: PositiveInt = 8000
    valid1_posts: PositiveInt = 600
    """Posts for selecting models."""
    valid2_posts: PositiveInt = 1000
    """Posts for reporting; nothing is ever chosen on them."""


class FileData(Settings):
    """Post and comparison files in the project's records.

    A set may also be `NAME@SPLIT`, of a known source (`tldr-lab data sources`), or `FOLDER@SPLIT`;
    `train+valid1` is both splits. The corpus and the articles are plain files.
    """

    kind: Literal["files"] = "files"
    sft: str
    """Posts with references."""
    ppo: str | None = None
    """Body-filtered posts; when absent the SFT posts stand in, and every report says so."""
    valid1: str
    """Posts to select on. Those that the comparisons mark valid2 are taken out: they only report."""
    valid2: str
    comparisons: str | None = None
    """Comparisons or rankings to train the RM on, instead of simulated labels."""
    corpus: str | None = None
    cnndm: str | None = None
    """Articles with references, on which the ladder's policies are tried too (P 4.2)."""
    on_error: Literal["stop", "skip"] = "stop"
    """At a line that holds no record: stop, or count it and set it aside (`bad_lines.txt`)."""


class TokenizerSpec(Settings):
    """A byte-level BPE trained on the corpus, or a tokenizer folder / hub name."""

    path: str | None = None
    vocab_size: PositiveInt = 768


class DataStage(Settings):
    """What the data stage makes: post files and a tokenizer in one folder."""

    data: Annotated[ToyData | FileData, Field(discriminator="kind")]
    tokenizer: TokenizerSpec = TokenizerSpec()


class Lengths(Settings):
    """Windows in tokens (P Table of formats): query 512, policy response 48, RM response 128."""

    query: PositiveInt = 512
    response: PositiveInt = 48
    """Response length of the policy, EOS included."""
    rm_response: PositiveInt = 128

    @model_validator(mode="after")
    def _rm_sees_all(self) -> Lengths:
        if self.rm_response < self.response:
            raise ValueError(
                "rm_response is shorter than response: the RM could not read what the policy writes"
            )
        return self
