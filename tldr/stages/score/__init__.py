"""Scores of samples: reward model, log-probabilities, the planted truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from tldr.stages.shared.context import RunContext
from tldr.stages.shared.declaration import DATA, POLICY, REWARD_MODEL, SAMPLES, Stage, may_read, reads
from tldr.stages.shared.settings import EvaluationSettings

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ScoreInputs(Generic[T]):
    """What the score stage reads."""

    samples: T = reads(SAMPLES, "Samples: run folder or JSON-lines file.")
    sft: T | None = may_read(POLICY, "SFT policy, for log-probabilities under it.")
    reward: T | None = may_read(REWARD_MODEL, "Reward model: run folder or checkpoint.")
    policy: T | None = may_read(POLICY, "Policy: run folder, checkpoint or hub name.")
    ppo: T | None = may_read(POLICY, "PPO run, for the values and rewards of single tokens.")
    data: T = reads(DATA, "Folder of posts and tokenizer, as the data stage makes it.")


ScoreRun: TypeAlias = RunContext[EvaluationSettings, ScoreInputs[Path]]
"""What ``run`` is given."""

STAGE = Stage(
    "score",
    settings=EvaluationSettings,
    inputs=ScoreInputs,
    makes=SAMPLES,
    help="Score samples: reward model, log-probabilities, the planted truth.",
    weight=0.5,
    spread=True,
)
