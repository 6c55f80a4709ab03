"""Ratings of summaries on the paper's axes by simulated labelers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from tldr.stages.ratings.settings import RatingsSettings
from tldr.stages.shared.context import RunContext
from tldr.stages.shared.declaration import DATA, RATINGS, SAMPLES, Stage, reads, reads_each

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RatingsInputs(Generic[T]):
    """What the ratings stage reads."""

    data: T = reads(DATA, "Folder of posts and tokenizer, as the data stage makes it.")
    samples: Mapping[str, T] = reads_each(SAMPLES, "samples", "Samples of every policy, by name.")


RatingsRun: TypeAlias = RunContext[RatingsSettings, RatingsInputs[Path]]
"""What ``run`` is given."""

STAGE = Stage(
    "ratings",
    settings=RatingsSettings,
    inputs=RatingsInputs,
    makes=RATINGS,
    help="Have simulated labelers rate every policy's summaries.",
    weight=0.1,
    alone=False,
)
