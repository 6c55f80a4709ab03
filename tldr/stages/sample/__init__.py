"""Samples of a policy on the reporting posts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from tldr.stages.shared.context import RunContext
from tldr.stages.shared.declaration import DATA, POLICY, SAMPLES, Stage, reads
from tldr.stages.shared.settings import EvaluationSettings

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class SampleInputs(Generic[T]):
    """What the sample stage reads."""

    policy: T = reads(POLICY, "Policy: run folder, checkpoint or hub name.")
    data: T = reads(DATA, "Folder of posts and tokenizer, as the data stage makes it.")


SampleRun: TypeAlias = RunContext[EvaluationSettings, SampleInputs[Path]]
"""What ``run`` is given."""

STAGE = Stage(
    "sample",
    settings=EvaluationSettings,
    inputs=SampleInputs,
    makes=SAMPLES,
    help="Sample a policy on the reporting posts.",
    weight=0.5,
    spread=True,
)
