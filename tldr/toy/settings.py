"""Settings of the toy world."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from tldr.errors import UsageError
from tldr.settings.base import SeedOffset, Settings


class ToyData(Settings):
    """Sizes of the toy world; its rules are in `tldr.toy`."""

    newer: ClassVar[tuple[str, ...]] = ("corpus_held_out",)

    kind: Literal["toy"] = "toy"
    """Names this kind of data."""
    seeds: Annotated[list[SeedOffset], Field(min_length=1)] = [1]
    """Data seeds. Each makes a world of its own, with other posts, labels and corpus; a study runs everything
    once for each data seed with each training seed."""
    corpus: PositiveInt = 24000
    """Documents in the pretraining corpus."""
    corpus_held_out: NonNegativeInt = 0
    """Further documents that nothing trains on: the score stage measures every policy's loss on them, and so
    what RL costs (Ouyang et al. 2022, 4.2)."""
    sft_posts: PositiveInt = 6000
    """Posts with a reference for SFT; a subset of the PPO posts, as in the paper."""
    ppo_posts: PositiveInt = 8000
    """Posts that PPO samples summaries for."""
    valid1_posts: PositiveInt = 600
    """Posts for model selection."""
    valid2_posts: PositiveInt = 1000
    """Posts for reporting; never used for selection."""

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"{seeds}: a data seed is repeated")
        return seeds

    @property
    def seed(self) -> int:
        """The data seed of one world.

        Raises:
            UsageError: the settings name several.
        """
        if len(self.seeds) > 1:
            raise UsageError(
                f"{len(self.seeds)} data seeds, but one world is made at a time",
                where="seeds",
                remedy="give one, or run a study, which makes them all",
            )
        return self.seeds[0]

    def worlds(self) -> list[ToyData]:
        """The settings of each world: the same with one data seed."""
        return [self.model_copy(update={"seeds": [seed]}) for seed in self.seeds]
