"""Settings of best-of-N."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from tldr.settings.base import Positive, Settings


class BestOfNSettings(Settings):
    """Best of N SFT samples by a scorer (P 4.3: T = 0.7)."""

    n: PositiveInt = 16
    """Samples a post."""
    temperature: Positive = 0.7
    """At which they are drawn."""
    scorers: list[Literal["rm", "gold", "rouge"]] = ["rm"]
    """What chooses: the reward model, the toy world's planted truth, or ROUGE with the reference."""
    posts: PositiveInt | None = None
    """None: all of valid2."""
