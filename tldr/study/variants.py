"""The runs of a study's variants: stages of one seed that run again with other settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from tldr.stages.ppo import PPOInputs
from tldr.study.runs import InputSource
from tldr.study.seed_runs import SeedRuns, VariantSampling, Writers, of_one_model, on_labels
from tldr.study.variant_settings import (
    BestOfNVariant,
    LabelsVariant,
    PPOVariant,
    RewardVariant,
    SFTVariant,
)

if TYPE_CHECKING:
    from tldr.study.graph import Graph

VariantT = TypeVar("VariantT", SFTVariant, LabelsVariant, RewardVariant, PPOVariant, BestOfNVariant)


class Variants:
    """Adds them to a graph, kind by kind, beside the main runs of a seed."""

    def __init__(self, graph: Graph, main: SeedRuns):
        self._graph, self._study, self._main = graph, graph.study, main

    def _each(self, kind: type[VariantT]) -> Iterator[tuple[str, VariantT, str]]:
        """Name, settings and size of every variant of a kind."""
        for name, variant in self._study.variants.items():
            if isinstance(variant, kind):
                yield from ((name, variant, size) for size in self._study.sizes_of(variant))

    def add_supervised(self, start: Mapping[str, InputSource]) -> None:
        """Add the variants' supervised policies, their samples, and scores by the main reward models.

        Args:
            start: size -> the policy that SFT starts from.
        """
        for name, variant, size in self._each(SFTVariant):
            run = self._graph.sft_run(variant.set, size, self._main.seed, start[size], self._main.data)
            reward = self._main.reward[size]
            policy = self._graph.add(replace(run, variant=name))
            policy = self._graph.chosen_epoch(variant.set, policy, reward, self._main.data, name)
            sampling = VariantSampling(name, reward, self._study.evaluation.temperatures)
            self._graph.sample_and_score(self._main, size, "sft", policy, sampling)

    def add_labels(self, writers: Writers) -> None:
        """Add the last round's labels in the variants' ways, and reward models on them and on the labels of
        the earlier rounds, which report on the main labels."""
        asked: dict[str, InputSource] = {}
        for name, variant, size in self._each(LabelsVariant):
            if name not in asked:
                # its own held-out labels are not read, so as few are asked for as there may be
                settings = variant.set.model_copy(update={"valid_pairs": 2})
                asked[name] = self._graph.labels(
                    settings, self._main.seed, writers, self._main.data, variant=name
                )
            labels = [*self._main.labels[:-1], asked[name]]
            inputs = on_labels(self._main.trained[size], labels, self._main.data)
            inputs = replace(inputs, held_out=self._main.labels[-1])
            run = self._graph.run(inputs, of_one_model(self._study.reward), size, self._main.seed)
            self._graph.add(replace(run, variant=name))

    def add_rewards(self) -> dict[tuple[str, str], InputSource]:
        """Reward models of the variants, on the labels of all rounds: (variant, size) -> run."""
        rewards: dict[tuple[str, str], InputSource] = {}
        for name, variant, size in self._each(RewardVariant):
            inputs = on_labels(self._main.trained[size], self._main.labels, self._main.data)
            run = self._graph.run(inputs, of_one_model(variant.set), size, self._main.seed)
            rewards[name, size] = self._graph.add(replace(run, variant=name))
        return rewards

    def add_policies(self, rewards: dict[tuple[str, str], InputSource]) -> None:
        """Add the variants' policies, trained from SFT, their samples, and scores by their reward models."""
        for name, variant, size in self._each(PPOVariant):
            sft = self._main.models[size]["sft"]
            own = self._study.reward.of_policy(size)
            reward = rewards[variant.reward, own] if variant.reward else self._main.reward[size]
            inputs = PPOInputs(policy=sft, reference=sft, reward=reward, data=self._main.data)
            policy = self._graph.add(
                replace(self._graph.run(inputs, variant.set, size, self._main.seed), variant=name)
            )
            sampling = VariantSampling(name, reward, variant.temperatures)
            self._graph.sample_and_score(self._main, size, "ppo", policy, sampling)
            if variant.reward:  # also score the initial policy with that reward model
                initial = VariantSampling(variant.reward, reward)
                self._graph.score(self._main, size, "sft", self._main.samples[f"sft-{size}"], sft, initial)

    def add_pools(self, rewards: dict[tuple[str, str], InputSource]) -> None:
        """Add larger pools, scored by the reward models of all sizes and the variants of the size that the
        policy's own reward model has."""
        for name, variant, size in self._each(BestOfNVariant):
            own = self._study.reward.of_policy(size)
            others = dict(self._main.rewards)
            others |= {f"{own}_{other}": source for (other, at), source in rewards.items() if at == own}
            run = self._graph.best_of_n(self._main, size, variant.set, others)
            self._main.offer_pool(size, self._graph.add(replace(run, variant=name)))
