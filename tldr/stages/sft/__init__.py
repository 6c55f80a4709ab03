"""Supervised fine-tuning on the authors' references (P App. B.1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from tldr.stages.sft.settings import SFTSettings
from tldr.stages.shared.context import RunContext
from tldr.stages.shared.declaration import DATA, POLICY, Stage, reads

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class SFTInputs(Generic[T]):
    """What the SFT stage reads."""

    policy: T = reads(POLICY, "Policy: run folder, checkpoint or hub name.")
    data: T = reads(DATA, "Folder of posts and tokenizer, as the data stage makes it.")


SFTRun: TypeAlias = RunContext[SFTSettings, SFTInputs[Path]]
"""What ``run`` is given."""

STAGE = Stage(
    "sft",
    settings=SFTSettings,
    inputs=SFTInputs,
    makes=POLICY,
    help="Fine-tune a policy on reference summaries.",
    weight=1,
)
