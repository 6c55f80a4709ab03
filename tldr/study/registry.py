"""The stages by name: every folder of `tldr/stages` that declares a stage.

The module that executes a stage is imported only when the stage runs, so that no command imports torch
unnecessarily.
"""

from __future__ import annotations

import importlib
import pkgutil

import tldr.stages
from tldr.stages.shared.declaration import Stage


def _declared() -> dict[str, Stage]:
    stages: dict[str, Stage] = {}
    for folder in pkgutil.iter_modules(tldr.stages.__path__, "tldr.stages."):
        stage = getattr(importlib.import_module(folder.name), "STAGE", None)
        if stage is not None:
            stages[stage.name] = stage
    return stages


STAGES: dict[str, Stage] = _declared()
"""Name -> declaration."""


def stage_of(inputs: object) -> Stage:
    """The stage with this class of inputs.

    Args:
        inputs: an instance of the stage's inputs class.

    Raises:
        KeyError: there is no such stage.
    """
    found = next((stage for stage in STAGES.values() if stage.inputs is type(inputs)), None)
    if found is None:
        raise KeyError(type(inputs).__name__)
    return found
