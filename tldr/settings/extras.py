"""Optional packages: check that the ones a setting needs are installed."""

from __future__ import annotations

from importlib.util import find_spec

from tldr.errors import UsageError
from tldr.settings.base import Settings

EXTRAS = {"peft": "lora", "bitsandbytes": "8bit", "starlette": "label", "uvicorn": "label", "ftfy": "cnndm"}
"""Package -> the project's extra that installs it. vLLM has none, because it pins its own torch version."""


def need(package: str, where: str) -> None:
    """Raise an error unless an optional package is installed.

    Args:
        where: the config key that needs it.

    Raises:
        UsageError: the package is not installed.
    """
    if find_spec(package) is None:
        extra = EXTRAS.get(package)
        remedy = f"pip install 'tldr-feedback[{extra}]'" if extra else f"pip install {package} tldr-feedback"
        raise UsageError(f"needs the package {package}, which is not installed", where=where, remedy=remedy)


def check_extras(settings: Settings, stage: str) -> None:
    """Raise an error if a stage's settings need a package that is not installed (`Settings.packages`).

    Raises:
        UsageError: see `need`.
    """
    for key, package in settings.packages().items():
        need(package, f"{stage}.{key}")
