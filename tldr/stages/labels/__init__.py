"""The shared comparison pool: what the policies write, ranked by labelers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from tldr.stages.labels.settings import LabelsSettings
from tldr.stages.shared.context import RunContext
from tldr.stages.shared.declaration import DATA, LABELS, POLICY, REWARD_MODEL, Stage, reads, reads_each

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class LabelsInputs(Generic[T]):
    """What the labels stage reads."""

    data: T = reads(DATA, "Folder of posts and tokenizer, as the data stage makes it.")
    policies: Mapping[str, T] = reads_each(POLICY, "policy", "Policies to sample, by name.")
    choosers: Mapping[str, T] = reads_each(
        REWARD_MODEL,
        "chooser",
        "Reward models that choose the best of several samples of a policy, by its name.",
    )
    rewards: Mapping[str, T] = reads_each(
        REWARD_MODEL, "reward", "Reward models that choose the training questions (choose_by), by name."
    )


LabelsRun: TypeAlias = RunContext[LabelsSettings, LabelsInputs[Path]]
"""What ``run`` is given."""

STAGE = Stage(
    "labels",
    settings=LabelsSettings,
    inputs=LabelsInputs,
    makes=LABELS,
    help="Sample summaries and have simulated labelers, or people, rank them.",
    weight=2,
    spread=True,
    alone=False,
    modules={"people": "tldr.stages.labels.people"},
)
