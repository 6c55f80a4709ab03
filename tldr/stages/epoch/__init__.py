"""The epoch of SFT whose summaries a reward model scores highest (InstructGPT C.1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from tldr.stages.epoch.settings import EpochSettings
from tldr.stages.shared.context import RunContext
from tldr.stages.shared.declaration import DATA, POLICY, REWARD_MODEL, Stage, reads

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class EpochInputs(Generic[T]):
    """What the epoch stage reads."""

    policy: T = reads(POLICY, "Folder of an SFT run that kept its epochs (select: reward).")
    reward: T = reads(REWARD_MODEL, "Reward model: run folder or checkpoint.")
    data: T = reads(DATA, "Folder of posts and tokenizer, as the data stage makes it.")


EpochRun: TypeAlias = RunContext[EpochSettings, EpochInputs[Path]]
"""What ``run`` is given."""

STAGE = Stage(
    "epoch",
    settings=EpochSettings,
    inputs=EpochInputs,
    makes=POLICY,
    help="Choose the epoch of SFT whose summaries a reward model scores highest.",
    weight=1,
    spread=True,
)
