"""Settings of a labeling project: the file ``label.yaml`` in its folder."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt, model_validator

from tldr.settings.base import Positive, Settings, Unit


class LabelSettings(Settings):
    """How people label the items of a folder."""

    title: str = "Summaries"
    """The page's heading."""
    labelers_per_item: PositiveInt = 1
    """Labelers of each item outside the shared pool."""
    shared: Unit = 0.1
    """Share of the items that every labeler gets, so that agreement can be measured."""
    calibration: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of a labeler's items whose answer is known, while there are any left."""
    naive_first: bool = False
    """Comparisons: ask what each summary alone seems to say before the post is shown (P App. C.5)."""
    instructions: str | None = None
    """A text file beside ``label.yaml`` that replaces the instructions of all tasks."""
    lease_seconds: Positive = 1800.0
    """Time an item stays with a labeler who is not working on it; then others may get it."""
    min_tokens: PositiveInt = 24
    """Fewest tokens of a written summary (P 3.2)."""
    max_tokens: PositiveInt = 48
    """Most tokens of a written summary (P 3.2)."""
    tokenizer: str | None = None
    """A ``tokenizer.json``, or a folder with one, that counts these tokens; null counts words."""
    seed: int = 0
    """Of the shared pool, the order shown and where calibration items come."""

    @model_validator(mode="after")
    def _some_length(self) -> LabelSettings:
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens {self.min_tokens} is above max_tokens {self.max_tokens}")
        return self
