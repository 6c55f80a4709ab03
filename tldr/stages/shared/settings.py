"""Settings of evaluation: which policies are sampled how, and scored."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt, field_validator

from tldr.settings.base import NonNegative, Settings, Unit, different

NEWS = "cnndm"
"""Tag ``dataset`` of runs whose policy summarizes news articles."""


class ZeroShot(Settings):
    """In-context examples for the pretrained policies (P 3.2; OAI experiment_helpers.py)."""

    examples: PositiveInt = 13
    """SFT posts with their references, drawn by a hash of their ids; the released code has 13. What does
    not fit into the window is cut from the left."""
    query_tokens: PositiveInt = 1999
    """The whole window, examples and post; `lengths.response` comes on top."""


class EvaluationSettings(Settings):
    """Which policies are sampled how, on valid2."""

    temperatures: Annotated[list[NonNegative], Field(min_length=1)] = [0.0]
    """0 is greedy; the first one is the headline."""
    sft_temperatures: list[NonNegative] = []
    """Further ones for the SFT policies alone (Fig. 8)."""
    sft_top_ps: list[Unit] = []
    """Nucleus sampling of the SFT policies at temperature 1 (Fig. 8)."""
    zero_shot: ZeroShot | None = None
    """How pretrained policies are asked; None: in the TL;DR format, without examples."""
    posts: PositiveInt | None = None
    """None: all of valid2."""
    batch: PositiveInt = 64
    """Posts sampled or scored together."""
    bootstrap: PositiveInt = 2000
    """Draws for the report's intervals."""

    _different = field_validator("temperatures", "sft_temperatures", "sft_top_ps")(different)
