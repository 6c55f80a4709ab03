"""The stages by name: every folder of `tldr/stages` that declares one.

The module that runs a stage is imported when the stage runs, so that no command waits for torch without need.
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
    """The stage that reads such inputs (an instance of its inputs' class).

    Raises:
        KeyError: no stage does.
    """
    found = next((stage for stage in STAGES.values() if stage.inputs is type(inputs)), None)
    if found is None:
        raise KeyError(type(inputs).__name__)
    return found
