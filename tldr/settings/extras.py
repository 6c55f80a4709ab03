"""Optional packages: which setting needs which, and what to do where one is missing."""

from __future__ import annotations

from importlib.util import find_spec

from tldr.errors import UsageError
from tldr.settings.base import Settings

EXTRAS = {"peft": "lora", "bitsandbytes": "8bit"}
"""The extra of the project that installs a package. vLLM has none: it pins a torch version of its own."""


def need(package: str, where: str) -> None:
    """Stop unless an optional package is installed.

    Args:
        where: the config key that asks for it.

    Raises:
        UsageError: the package is not installed.
    """
    if find_spec(package) is None:
        extra = EXTRAS.get(package)
        remedy = f"pip install 'tldr-feedback[{extra}]'" if extra else f"pip install {package} tldr-feedback"
        raise UsageError(f"needs the package {package}, which is not installed", where=where, remedy=remedy)


def check_extras(settings: Settings, stage: str) -> None:
    """Stop where a stage's settings ask for a package that is not installed (`Settings.packages`).

    Raises:
        UsageError: as `need`.
    """
    for key, package in settings.packages().items():
        need(package, f"{stage}.{key}")
