"""Checks, and the findings that they report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tldr.doctor.folders import Examined

Severity = Literal["fault", "warning", "note"]
"""See `tldr.doctor`."""
SEVERITIES: tuple[Severity, ...] = ("fault", "warning", "note")


@dataclass(frozen=True)
class Observation:
    """An observation of one check, and the run at fault."""

    run: Examined
    severity: Severity
    seen: str
    expected: str


CheckFunction = Callable[["Examined"], Iterator[Observation]]


@dataclass(frozen=True)
class Check:
    """One check of every run of some stages.

    Attributes:
        stages: stages of the runs that it examines; the run at fault may be an ancestor of these.
        why: how the problem affects the results.
        remedy: what to do.
        models: whether it computes with the models, and so runs only on request.
    """

    name: str
    stages: tuple[str, ...]
    why: str
    remedy: str
    look: CheckFunction
    models: bool = False


@dataclass(frozen=True)
class Finding:
    """One reported problem; `stage` and `run` are at fault."""

    stage: str
    run: str
    check: str
    severity: Severity
    seen: str
    expected: str
    why: str
    remedy: str

    def row(self) -> dict[str, Any]:
        """The finding as JSON data."""
        return asdict(self)


CHECKS: list[Check] = []
"""All checks, in order of execution."""


def check(
    *stages: str, why: str, remedy: str, models: bool = False
) -> Callable[[CheckFunction], CheckFunction]:
    """Decorator: register a function as a check under its name."""

    def registered(look: CheckFunction) -> CheckFunction:
        CHECKS.append(Check(getattr(look, "__name__", ""), stages, why, remedy, look, models))
        return look

    return registered
