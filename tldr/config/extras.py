"""Optional packages: which setting needs which, and what to do where one is missing."""

from __future__ import annotations

from importlib.util import find_spec

from tldr.config.base import Settings
from tldr.config.stages import PPO, Finetuning, Training
from tldr.errors import UsageError

EXTRAS = {"peft": "lora", "bitsandbytes": "8bit"}
"""The extra of the project that installs a package. vLLM is in none: it decides on torch's version itself."""


def need(package: str, where: str) -> None:
    """Stop unless an optional package is installed.

    Args:
        where: the config key that asks for it.

    Raises:
        UsageError: it is not.
    """
    if find_spec(package) is None:
        extra = EXTRAS.get(package)
        remedy = f"pip install 'tldr-feedback[{extra}]'" if extra else f"pip install {package} tldr-feedback"
        raise UsageError(f"needs the package {package}, which is not installed", where=where, remedy=remedy)


def check_extras(settings: Settings, stage: str) -> None:
    """Stop where a stage's settings ask for a package that is not installed.

    Raises:
        UsageError: as `need`.
    """
    if isinstance(settings, Finetuning) and settings.lora is not None:
        need("peft", f"{stage}.lora")
    if isinstance(settings, Training) and settings.optimizer.kind == "adamw8bit":
        need("bitsandbytes", f"{stage}.optimizer.kind")
    if isinstance(settings, PPO) and settings.sampler == "vllm":
        need("vllm", f"{stage}.sampler")
