"""Settings of the scored pairs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from tldr.settings.base import Positive, Settings


class PairsSettings(Settings):
    """Pairs that every reward model and SFT policy of the study scores: what agreement is measured on."""

    posts: PositiveInt = 300
    """Posts whose two samples of one policy are labelled (toy world only), and posts probed."""
    temperature: Positive = 0.7
    """At which the policies are sampled."""
    workers: Annotated[int, Field(ge=2, le=11)] = 5
    """Labelers of each same-policy pair."""
