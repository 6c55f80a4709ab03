"""Best of N: a pool of samples, and the best of each post (P 4.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from tldr.stages.best_of_n.settings import BestOfNSettings
from tldr.stages.shared.context import RunContext
from tldr.stages.shared.declaration import DATA, POLICY, REWARD_MODEL, SAMPLES, Stage, reads, reads_each

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class BestOfNInputs(Generic[T]):
    """What the best-of-N stage reads."""

    policy: T = reads(POLICY, "Policy: run folder, checkpoint or hub name.")
    reward: T = reads(REWARD_MODEL, "Reward model: run folder or checkpoint.")
    rewards: Mapping[str, T] = reads_each(REWARD_MODEL, "reward", "Further reward models, by name.")
    data: T = reads(DATA, "Folder of posts and tokenizer, as the data stage makes it.")


BestOfNRun: TypeAlias = RunContext[BestOfNSettings, BestOfNInputs[Path]]
"""What ``run`` is given."""

STAGE = Stage(
    "best_of_n",
    settings=BestOfNSettings,
    inputs=BestOfNInputs,
    makes=SAMPLES,
    help="Sample N summaries a post and keep the best.",
    weight=2,
    spread=True,
)
