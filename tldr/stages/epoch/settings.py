"""Settings of the choice of an epoch."""

from __future__ import annotations

from pydantic import PositiveInt

from tldr.settings.base import NonNegative, Settings


class EpochSettings(Settings):
    """The epoch of SFT whose summaries a reward model scores highest, where `sft.select` is `reward`
    (InstructGPT C.1, which states neither setting)."""

    temperature: NonNegative = 0.7
    """At which every epoch writes a summary of each post, with the same random numbers; 0 is greedy. The
    default is that of best-of-N (P 4.3)."""
    posts: PositiveInt | None = None
    """Posts of valid1; None: all."""
