"""Reward models (P 3.4, App. B.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from tldr.stages.reward.settings import RewardSettings
from tldr.stages.shared.context import RunContext
from tldr.stages.shared.declaration import (
    DATA,
    LABELS,
    POLICY,
    REWARD_MODEL,
    Stage,
    may_read,
    reads,
    reads_each,
)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RewardInputs(Generic[T]):
    """What the reward stage reads."""

    policy: T = reads(POLICY, "Policy that the model starts from (SFT): run folder, checkpoint or hub name.")
    labels: T = reads(LABELS, "Folder of rankings: train, valid1 and valid2.")
    further_labels: Mapping[str, T] = reads_each(LABELS, "labels", "Labels of further rounds, by round.")
    held_out: T | None = may_read(
        LABELS, "Labels whose valid1 and valid2 are taken instead, so that several models report on the same."
    )
    data: T = reads(DATA, "Folder of posts and tokenizer, as the data stage makes it.")


RewardRun: TypeAlias = RunContext[RewardSettings, RewardInputs[Path]]
"""What ``run`` is given."""

STAGE = Stage(
    "reward",
    settings=RewardSettings,
    inputs=RewardInputs,
    makes=REWARD_MODEL,
    help="Train a reward model on ranked summaries.",
    weight=2,
)
