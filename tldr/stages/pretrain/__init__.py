"""Next-token training of the toy ladder from a random init."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from tldr.stages.pretrain.settings import PretrainSettings
from tldr.stages.shared.context import RunContext
from tldr.stages.shared.declaration import DATA, POLICY, Stage, reads

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class PretrainInputs(Generic[T]):
    """What the pretrain stage reads."""

    data: T = reads(DATA, "Folder of posts and tokenizer, as the data stage makes it.")


PretrainRun: TypeAlias = RunContext[PretrainSettings, PretrainInputs[Path]]
"""What ``run`` is given."""

STAGE = Stage(
    "pretrain",
    settings=PretrainSettings,
    inputs=PretrainInputs,
    makes=POLICY,
    help="Train a language model from a random init.",
    weight=4,
)
