"""Verdicts of a judge: which of a summary and the reference of its post is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from tldr.stages.judge.settings import JudgeSettings
from tldr.stages.shared.context import RunContext
from tldr.stages.shared.declaration import (
    DATA,
    JUDGEMENTS,
    REWARD_MODEL,
    SAMPLES,
    Stage,
    may_read,
    reads,
    reads_each,
)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class JudgeInputs(Generic[T]):
    """What the judge stage reads."""

    data: T = reads(DATA, "Folder of posts and tokenizer, as the data stage makes it.")
    samples: Mapping[str, T] = reads_each(SAMPLES, "samples", "Scored samples of every policy, by name.")
    pools: Mapping[str, T] = reads_each(SAMPLES, "pool", "Pools of best-of-N samples, by size.")
    reward: T | None = may_read(REWARD_MODEL, "The reward model that judges (kind reward).")
    trained: Mapping[str, T] = reads_each(
        REWARD_MODEL,
        "trained",
        "Reward models that policies were trained against, whose posts the judge may not have learned from.",
    )


JudgeRun: TypeAlias = RunContext[JudgeSettings, JudgeInputs[Path]]
"""What ``run`` is given."""

STAGE = Stage(
    "judge",
    settings=JudgeSettings,
    inputs=JudgeInputs,
    makes=JUDGEMENTS,
    help="Have a judge compare every policy's summaries with the references.",
    weight=0.2,
    spread=True,
    alone=False,
    modules={"openai": "tldr.stages.judge.endpoint", "people": "tldr.stages.judge.people"},
)
