"""What a check is, and what it says when something is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tldr.doctor.folders import Examined

Severity = Literal["fault", "warning", "note"]
"""As `tldr.doctor` says."""
SEVERITIES: tuple[Severity, ...] = ("fault", "warning", "note")


@dataclass(frozen=True)
class Sight:
    """What a check saw of the run that is to blame."""

    run: Examined
    severity: Severity
    seen: str
    expected: str


Look = Callable[["Examined"], Iterator[Sight]]


@dataclass(frozen=True)
class Check:
    """One question put to every run of some stages.

    Attributes:
        stages: of the runs that it looks at; the one it blames may be one that they were made from.
        why: what the matter does to the results.
        remedy: what to do.
        models: it computes with the models, and so is made when asked for alone.
    """

    name: str
    stages: tuple[str, ...]
    why: str
    remedy: str
    look: Look
    models: bool = False


@dataclass(frozen=True)
class Finding:
    """Something wrong: `stage` and `run` are those at fault."""

    stage: str
    run: str
    check: str
    severity: Severity
    seen: str
    expected: str
    why: str
    remedy: str

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


CHECKS: list[Check] = []
"""All of them, in the order in which they are made."""


def check(*stages: str, why: str, remedy: str, models: bool = False) -> Callable[[Look], Look]:
    """Make a check of a function, under the function's name."""

    def registered(look: Look) -> Look:
        CHECKS.append(Check(getattr(look, "__name__", ""), stages, why, remedy, look, models))
        return look

    return registered
