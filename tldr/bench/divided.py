"""A study made small for a trial: the same stages and settings, with every amount divided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tldr.study.load import study_tree

STAGES = ("pretrain", "sft", "labels", "reward", "ppo", "best_of_n", "evaluation", "pairs", "ratings")


@dataclass(frozen=True)
class Divisors:
    """What the amounts of a study are divided by; rounded up.

    Attributes:
        episodes: PPO's episodes.
        batches: examples an update (``batch``) and a forward pass (``micro_batch``).
        rows: rows of the labels (``limit``) and posts (``posts``).
        pools: samples of best-of-N (``n``).
    """

    episodes: int = 8_000
    batches: int = 16
    rows: int = 50
    pools: int = 16

    def of(self, key: str) -> int | None:
        """The divisor of a setting, or None where it is no amount."""
        keys = {"episodes": self.episodes, "batch": self.batches, "micro_batch": self.batches}
        return (keys | {"limit": self.rows, "posts": self.rows, "n": self.pools}).get(key)

    def told(self) -> str:
        """The divisors in words."""
        return ", ".join(f"{field.name} / {getattr(self, field.name):,}" for field in fields(self))


def divided(preset: Path, by: Divisors) -> dict[str, Any]:
    """A study file over the preset (``base``) in which the amounts are divided; nothing else is stated.

    Raises:
        UsageError: the preset cannot be read.
    """
    tree = study_tree(preset)
    changes = {name: _stage(tree[name], by) for name in STAGES if isinstance(tree.get(name), dict)}
    variants = tree.get("variants") or {}
    parts = {
        name: {part: _stage(variant[part], by) for part in ("set", "sweep") if part in variant}
        for name, variant in variants.items()
        if isinstance(variant, dict)
    }
    changes["variants"] = {
        name: {part: found for part, found in made.items() if found} for name, made in parts.items()
    }
    return {"base": str(preset.resolve())} | {name: made for name, made in changes.items() if made}


def _stage(settings: Mapping[str, Any], by: Divisors) -> dict[str, Any]:
    return {
        key: _divided(value, divisor)
        for key, value in settings.items()
        if (divisor := by.of(key)) is not None and value is not None
    }


def _divided(value: Any, divisor: int) -> Any:
    """A number, the numbers of a list, or those of each size, divided and at least 1."""
    if isinstance(value, Mapping):
        return {size: _divided(number, divisor) for size, number in value.items()}
    if isinstance(value, list):
        return [_divided(number, divisor) for number in value]
    return max(1, -int(-value // divisor))
