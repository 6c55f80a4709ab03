"""Settings of models and of token windows."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt, model_validator

from tldr.settings.base import Settings


class ModelSpec(Settings):
    """One model of the ladder: randomly initialised, or loaded from a folder or the hub."""

    path: str | None = None
    """Local folder, or hub name (`owner/name`, or `owner/name@revision`), which a study pins to a commit; if
    set, the fields below are ignored."""
    arch: Literal["gpt_neox", "gpt2", "opt", "llama"] = "gpt_neox"
    """Architecture of the random init."""
    d_model: PositiveInt = 64
    """Width of the hidden states."""
    layers: PositiveInt = 2
    """Number of transformer layers."""
    heads: PositiveInt = 4
    """Attention heads in a layer."""
    context: PositiveInt = 256
    """Longest sequence, in tokens."""
    init: Literal["default", "mimetic"] = "default"
    """mimetic (Trockman & Kolter 2023): W_q = W_k and W_o ~ W_v^T, a copying prior for tiny models."""

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelSpec:
        if self.d_model % self.heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of heads {self.heads}")
        return self


class Lengths(Settings):
    """Window lengths in tokens (P Table of formats): query 512, policy response 48, RM response 128."""

    query: PositiveInt = 512
    """Longest query; a longer post is cut at its end."""
    response: PositiveInt = 48
    """Maximum response length of the policy, EOS included."""
    rm_response: PositiveInt = 128
    """Longest summary that the reward model reads, EOS included."""

    @model_validator(mode="after")
    def _rm_sees_all(self) -> Lengths:
        if self.rm_response < self.response:
            raise ValueError(
                "rm_response is shorter than response: the RM could not read all of the policy's response"
            )
        return self
