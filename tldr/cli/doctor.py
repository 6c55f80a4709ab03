"""``doctor``: find the stage of a study that is at fault, from the files of its runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tldr.cli.study import RUNS, RunsDir
from tldr.errors import UsageError
from tldr.study.load import load_study

COLOURS = {"fault": typer.colors.RED, "warning": typer.colors.YELLOW, "note": typer.colors.CYAN}


def doctor(
    place: Annotated[
        Path | None,
        typer.Argument(help="A run's folder, a study's folder, or a study file.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False,
    models: Annotated[
        bool, typer.Option("--models", help="Also run checks that compute with the models (minutes).")
    ] = False,
    list_checks: Annotated[bool, typer.Option("--list", help="List the checks and exit.")] = False,
    runs_dir: RunsDir = RUNS,
) -> None:
    """Find the stage at fault; report what was seen, why it matters and what to do.

    For a single run, all its ancestors are examined too. The exit code is 1 if there is a fault; warnings
    and notes do not count.
    """
    if list_checks:
        import tldr.doctor

        typer.echo(tldr.doctor.__doc__)
        return
    if place is None:
        raise UsageError("nothing to examine", where="PLACE", remedy="give a run's folder or a study file")
    from tldr.doctor.examine import examine, worst

    folder = runs_dir / load_study(place, []).name if place.is_file() else place
    runs, findings = examine(folder, models=models)
    counts = worst(findings)
    if as_json:
        report = {"runs": runs, "counts": counts, "findings": [finding.row() for finding in findings]}
        typer.echo(json.dumps(report, indent=2))
    else:
        for finding in findings:
            typer.secho(
                f"{finding.severity}: {finding.stage}: {finding.check} ({finding.run})",
                fg=COLOURS[finding.severity],
            )
            typer.echo(f"  seen      {finding.seen}\n  expected  {finding.expected}")
            typer.echo(f"  why       {finding.why}\n  -> {finding.remedy}")
        totals = ", ".join(f"{count} {name}{'s' * (count != 1)}" for name, count in counts.items())
        typer.echo(f"{len(runs)} runs examined: {totals}")
    raise typer.Exit(1 if counts["fault"] else 0)
