"""What a stage is given: its settings, its parents' folders, its own folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from tldr.settings.base import Precision, Settings
from tldr.settings.models import Lengths, ModelSpec

S = TypeVar("S", bound=Settings, covariant=True)
Read = TypeVar("Read", covariant=True)


@dataclass(frozen=True)
class RunContext(Generic[S, Read]):
    """One run of one stage.

    The runner and the stage commands build the same object, so a stage run by hand on files from
    elsewhere and a stage of a study are one code path.

    Attributes:
        settings: the stage's settings, per-size maps already resolved.
        folder: the run's own folder; everything the stage writes goes here.
        inputs: folders and files that the stage reads, as it declares them (`PPOInputs[Path]`).
        model: the rung of the ladder (pretrain builds it; the others load their parents).
        seed: the run's seed; every random draw derives from it (`tldr.train.rng`).
    """

    settings: S
    folder: Path
    inputs: Read
    seed: int = 0
    model: ModelSpec | None = None
    lengths: Lengths = field(default_factory=Lengths)
    precision: Precision = "auto"
    study: str = ""
    run: str = ""
    tags: dict[str, str | int | float | bool] = field(default_factory=dict)
