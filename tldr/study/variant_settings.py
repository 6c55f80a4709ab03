"""Settings of a study's variants: stages that run again with other settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from tldr.settings.base import Name, NonNegative, Settings, different
from tldr.stages.best_of_n.settings import BestOfNSettings
from tldr.stages.labels.settings import LabelsSettings
from tldr.stages.ppo.settings import PPOSettings
from tldr.stages.reward.settings import RewardSettings
from tldr.stages.sft.settings import SFTSettings


class RewardVariant(Settings):
    """Reward models with other settings, for example on fewer labels (Fig. 6).

    Their sizes are the variant's `sizes`, whatever `reward.size` is. Where `reward.size` leaves one main
    reward model, a variant with an empty `set` and the other sizes adds theirs: accuracy against size. A
    policy that is trained against a variant takes its model of `reward.size`, else of its own size.
    """

    kind: Literal["reward"] = "reward"
    """Which stage runs again."""
    sizes: list[Name] | None = None
    """None: the whole ladder, `reward.size` included."""
    set: RewardSettings
    """Settings that differ from the study's `reward`, whose `size` is not among them."""


class LabelsVariant(Settings):
    """The last round's labels asked for in another way (`labels.choose_by`), and reward models on them. These
    select and report on the study's own labels, so that all accuracies are of the same pairs. No policy is
    trained against them."""

    kind: Literal["labels"] = "labels"
    """Which stage runs again."""
    sizes: list[Name] | None = None
    """Sizes of the reward models; None: the whole ladder, or `reward.size` where it is set."""
    set: LabelsSettings
    """Settings that differ from the study's `labels`."""


class SFTVariant(Settings):
    """Supervised policies with other settings, for example on fewer posts. They are sampled at the study's
    `evaluation.temperatures` and scored as the main ones are. Labels, reward models and PPO do not see
    them."""

    kind: Literal["sft"] = "sft"
    """Which stage runs again."""
    sizes: list[Name] | None = None
    """None: the whole ladder."""
    set: SFTSettings
    """Settings that differ from the study's `sft`."""


class PPOVariant(Settings):
    """Policies with other settings: another KL coefficient (Fig. 5), a shared value network (Fig. 11)."""

    kind: Literal["ppo"] = "ppo"
    """Which stage runs again."""
    sizes: list[Name] | None = None
    """None: the whole ladder."""
    set: PPOSettings
    reward: Name | None = None
    """The reward variant to train against; None: the study's main reward model."""
    temperatures: Annotated[list[NonNegative], Field(min_length=1)] = [1.0]
    """Sampling temperatures for evaluation; KL needs temperature 1."""

    _different = field_validator("temperatures")(different)


class BestOfNVariant(Settings):
    """A larger pool of samples, scored by every reward model of the study, for best-of-N (Fig. 7)."""

    kind: Literal["best_of_n"] = "best_of_n"
    """Which stage runs again."""
    sizes: list[Name] | None = None
    """None: the whole ladder."""
    set: BestOfNSettings


Variant = Annotated[
    SFTVariant | LabelsVariant | RewardVariant | PPOVariant | BestOfNVariant, Field(discriminator="kind")
]
