"""Apply every check to every run and collect what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tldr.doctor import data, ppo, reward, samples, tokens, training
from tldr.doctor.findings import CHECKS, SEVERITIES, Finding
from tldr.doctor.folders import open_case
from tldr.errors import LabError

GROUPS = (training, data, tokens, reward, ppo, samples)
"""The modules with checks; importing them registers the checks."""
KEPT = (data.rankings, data.references, reward.length_floor, ppo.rollouts, samples.drawn)
"""Functions cached for several checks; their caches are cleared after an examination."""


def examine(place: Path, *, models: bool = False) -> tuple[list[str], list[Finding]]:
    """Examine a study's runs, or one run and all its ancestors.

    A file that cannot be read is a fault of its run and does not end the examination.

    Args:
        models: also run the checks that compute with the models.

    Returns:
        The names of the runs, and the findings, worst first, without repetitions.

    Raises:
        UsageError: `place` contains no run.
    """
    case = open_case(place)
    found: dict[tuple[str, str], Finding] = {}
    for one in CHECKS:
        for run in case.runs:
            if run.stage not in one.stages or (one.models and not models):
                continue
            try:
                for sight in one.look(run):
                    finding = Finding(
                        sight.run.stage,
                        sight.run.name,
                        one.name,
                        sight.severity,
                        sight.seen,
                        sight.expected,
                        one.why,
                        one.remedy,
                    )
                    worse = found.get((finding.run, one.name))
                    if worse is None or _grade(finding) < _grade(worse):
                        found[finding.run, one.name] = finding
            except LabError as error:
                remedy = error.remedy or "delete the run's folder and run the study again"
                why = f"The check {one.name} could not be made."
                found[run.name, "unreadable"] = Finding(
                    run.stage,
                    run.name,
                    "unreadable",
                    "fault",
                    f"{error.where}: {error.what}",
                    "a complete file",
                    why,
                    remedy,
                )
    for kept in KEPT:
        kept.cache_clear()
    order = [run.name for run in case.runs]
    findings = sorted(
        found.values(), key=lambda one: (_grade(one), order.index(one.run) if one.run in order else 0)
    )
    return order, findings


def _grade(finding: Finding) -> int:
    return SEVERITIES.index(finding.severity)


def worst(findings: Sequence[Finding]) -> dict[str, int]:
    """The number of findings of each severity."""
    return {severity: sum(one.severity == severity for one in findings) for severity in SEVERITIES}
