"""Labelled pairs and probes, scored by every model of a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from tldr.stages.pairs.settings import PairsSettings
from tldr.stages.shared.context import RunContext
from tldr.stages.shared.declaration import DATA, LABELS, PAIRS, POLICY, REWARD_MODEL, Stage, reads, reads_each

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class PairsInputs(Generic[T]):
    """What the pairs stage reads."""

    data: T = reads(DATA, "Folder of posts and tokenizer, as the data stage makes it.")
    labels: T = reads(LABELS, "Folder of rankings, of which valid2 is scored.")
    policies: Mapping[str, T] = reads_each(POLICY, "policy", "Policies to sample twice a post.")
    rewards: Mapping[str, T] = reads_each(REWARD_MODEL, "reward", "Reward models that score, by name.")
    sft: Mapping[str, T] = reads_each(POLICY, "sft", "SFT policies that score, by size.")


PairsRun: TypeAlias = RunContext[PairsSettings, PairsInputs[Path]]
"""What ``run`` is given."""

STAGE = Stage(
    "pairs",
    settings=PairsSettings,
    inputs=PairsInputs,
    makes=PAIRS,
    help="Score labelled pairs and probes by every model.",
    weight=2,
    spread=True,
    alone=False,
)
