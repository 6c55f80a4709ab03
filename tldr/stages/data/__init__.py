"""The data stage: post files and a tokenizer in one folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from tldr.stages.data.settings import DataSettings
from tldr.stages.shared.context import RunContext
from tldr.stages.shared.declaration import DATA, Stage

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class DataInputs(Generic[T]):
    """What the data stage reads: nothing that another stage makes."""


DataRun: TypeAlias = RunContext[DataSettings, DataInputs[Path]]
"""What ``run`` is given."""

STAGE = Stage(
    "data",
    settings=DataSettings,
    inputs=DataInputs,
    makes=DATA,
    help="Collect posts and make the tokenizer.",
    weight=1,
    alone=False,
)
