"""Apply every check to every run and collect what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tldr.doctor import data, ppo, reward, samples, tokens, training, workers
from tldr.doctor.findings import CHECKS, SEVERITIES, Finding
from tldr.doctor.folders import open_examination
from tldr.errors import LabError

GROUPS = (training, data, workers, tokens, reward, ppo, samples)
"""The modules with checks; importing them registers the checks."""
KEPT = (data.rankings, data.references, reward.length_floor, ppo.rollouts, samples.sample_statistics)
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
    examination = open_examination(place)
    found: dict[tuple[str, str], Finding] = {}
    for check in CHECKS:
        for run in examination.runs:
            if run.stage not in check.stages or (check.models and not models):
                continue
            try:
                for observation in check.look(run):
                    finding = Finding(
                        observation.run.stage,
                        observation.run.name,
                        check.name,
                        observation.severity,
                        observation.seen,
                        observation.expected,
                        check.why,
                        check.remedy,
                    )
                    worse = found.get((finding.run, check.name))
                    if worse is None or _grade(finding) < _grade(worse):
                        found[finding.run, check.name] = finding
            except LabError as error:
                remedy = error.remedy or "delete the run's folder and run the study again"
                why = f"The check {check.name} could not be made."
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
    order = [run.name for run in examination.runs]
    findings = sorted(
        found.values(),
        key=lambda finding: (_grade(finding), order.index(finding.run) if finding.run in order else 0),
    )
    return order, findings


def _grade(finding: Finding) -> int:
    return SEVERITIES.index(finding.severity)


def worst(findings: Sequence[Finding]) -> dict[str, int]:
    """The number of findings of each severity."""
    return {severity: sum(finding.severity == severity for finding in findings) for severity in SEVERITIES}
