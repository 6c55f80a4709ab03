"""What the graph of one seed hands from step to step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from tldr.stages.best_of_n.settings import BestOfNSettings
from tldr.stages.reward import RewardInputs
from tldr.stages.reward.settings import RewardSettings
from tldr.stages.sft.settings import SFTSettings
from tldr.study.runs import InputSource

TriedT = TypeVar("TriedT", SFTSettings, RewardSettings)


@dataclass(frozen=True)
class SeedRuns:
    """The products of one seed's main runs.

    Attributes:
        labels: labels of each round, the last one's at the end.
        trained: size -> the SFT policy as training left it, from which every reward model starts; those from
            which only reward models start are included.
        models: size of a policy -> method -> policy; that of SFT may be of an earlier epoch than `trained`.
        reward: size of a policy -> the reward model that it is trained against.
        rewards: size of a reward model -> it.
        samples: ``method-size`` -> samples.
        scored: ``method-size`` -> scored samples.
        further: ``method-size-variant`` -> those of variants and earlier rounds.
        pools: size -> the best-of-N pool with most samples a post, which Fig. 7 is drawn from.
    """

    seed: int
    data: InputSource
    labels: list[InputSource]
    trained: dict[str, InputSource]
    models: dict[str, dict[str, InputSource]]
    reward: dict[str, InputSource]
    rewards: dict[str, InputSource]
    samples: dict[str, InputSource] = field(default_factory=dict)
    scored: dict[str, InputSource] = field(default_factory=dict)
    further: dict[str, InputSource] = field(default_factory=dict)
    pools: dict[str, InputSource] = field(default_factory=dict)

    def offer_pool(self, size: str, pool: InputSource) -> None:
        """Keep a size's pool if it has more samples a post than the one before."""
        known = self.pools.get(size)
        if known is None or _samples_of(pool) > _samples_of(known):
            self.pools[size] = pool


@dataclass(frozen=True)
class Writers:
    """Who writes the summaries that labelers compare.

    Attributes:
        policies: name -> policy that is sampled.
        choosers: name -> reward model that chooses the best of several samples of that policy.
        rewards: name -> every reward model of the last round so far.
    """

    policies: dict[str, InputSource]
    choosers: dict[str, InputSource] = field(default_factory=dict)
    rewards: dict[str, InputSource] = field(default_factory=dict)

    def with_round(
        self, number: int, size: str, sft: InputSource, reward: InputSource, policy: InputSource
    ) -> Writers:
        """With a round's policy, the SFT policy that it started from, and that one's best-of-N by the round's
        reward model.

        Args:
            size: of the policy. A reward model of several sizes' policies is one in `rewards`.
        """
        best, of = f"best_of_n-{size}-r{number}", size_of(reward)
        rewards = {
            f"r{number}-{of}-{index}": InputSource(runs=(run,)) for index, run in enumerate(reward.runs)
        }
        same = {name: source for name, source in self.rewards.items() if name.startswith(f"r{number}-")}
        return Writers(
            self.policies | {f"sft-{size}": sft, f"ppo-{size}-r{number}": policy, best: sft},
            self.choosers | {best: reward},
            same | rewards,
        )


@dataclass(frozen=True)
class VariantSampling:
    """A variant's name, the reward model that scores its samples, and their temperatures (None: those of the
    study's main policies)."""

    name: str
    reward: InputSource
    temperatures: list[float] | None = None


def on_labels(policy: InputSource, labels: list[InputSource], data: InputSource) -> RewardInputs[InputSource]:
    """What a reward model reads: the labels of all rounds so far."""
    further = {str(number): source for number, source in enumerate(labels[1:], start=2)}
    return RewardInputs(policy=policy, labels=labels[0], further_labels=further, data=data)


def of_one_model(settings: TriedT) -> TriedT:
    """Without the numbers of seeds and learning rates, so that more of them leave the first ones' names, and
    without the size that other policies' reward model has, which is the run's own."""
    fields = type(settings).model_fields
    alone = {name: fields[name].get_default() for name in ("seeds", "lr_factors", "size") if name in fields}
    return settings.model_copy(update=alone)


def size_of(model: InputSource) -> str:
    """The size of a model that the study trains."""
    size = model.runs[0].size
    assert size is not None
    return size


def by_size(models: Iterable[InputSource]) -> dict[str, InputSource]:
    """Size -> model; a model that is there twice is one."""
    return {size_of(model): model for model in models}


def _samples_of(pool: InputSource) -> int:
    """A pool's samples a post."""
    settings = pool.runs[0].settings
    assert isinstance(settings, BestOfNSettings)
    return settings.n
