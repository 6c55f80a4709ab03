"""Settings of the ratings."""

from __future__ import annotations

from pydantic import PositiveInt

from tldr.settings.base import Settings


class RatingsSettings(Settings):
    """Summaries rated 1-7 on the paper's four axes by simulated labelers (toy world only)."""

    posts: PositiveInt = 300
    """Posts whose summaries are rated."""
