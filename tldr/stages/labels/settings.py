"""Settings of the comparison pool."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt, model_validator

from tldr.settings.base import Positive, Settings, Unit


class LabelsSettings(Settings):
    """The shared comparison pool: samples of the SFT policies, references and writers, labelled."""

    pairs: PositiveInt = 8000
    """Comparisons or rankings to train on (toy world)."""
    valid_pairs: PositiveInt = 2000
    """Comparisons or rankings to select on and to report on, half each (toy world)."""
    k: tuple[PositiveInt, PositiveInt] = (2, 2)
    """Smallest and largest number of summaries ranked at once; (4, 9) is InstructGPT's."""
    temperature: Positive = 0.85
    """At which the policies are sampled."""
    best_of: Annotated[int, Field(ge=2)] = 8
    """From the second round of feedback on: N of the best-of-N samples that are compared, too."""
    reference_share: Unit = 0.25
    """Share of shown summaries that are the author's reference."""
    writer_share: Unit = 0.25
    """Share that comes from the toy world's scripted writers (planted errors)."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """Cross-validation of given labels: all are pooled, whatever their split, and each post is held
    out once; for labels too few to hold a part out. A reward model names its `fold`."""

    @model_validator(mode="after")
    def _at_least_two(self) -> LabelsSettings:
        if self.k[0] < 2 or self.k[1] < self.k[0]:
            raise ValueError(f"k {self.k}: a ranking needs at least 2 summaries, smallest first")
        return self
