"""``doctor``: which stage of a study is at fault, by what its runs left behind."""

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
        bool, typer.Option("--models", help="Also what must compute with the models (minutes).")
    ] = False,
    list_checks: Annotated[bool, typer.Option("--list", help="Tell what is looked at, and end.")] = False,
    runs_dir: RunsDir = RUNS,
) -> None:
    """Tell which stage is at fault, what was seen, why it matters and what to do.

    Of one run, all that it was made from is examined too. Exits 1 if there is a fault; warnings and
    notes do not count.
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
        report = {"runs": runs, "counts": counts, "findings": [one.row() for one in findings]}
        typer.echo(json.dumps(report, indent=2))
    else:
        for one in findings:
            typer.secho(f"{one.severity}: {one.stage}: {one.check} ({one.run})", fg=COLOURS[one.severity])
            typer.echo(f"  seen      {one.seen}\n  expected  {one.expected}")
            typer.echo(f"  why       {one.why}\n  -> {one.remedy}")
        told = ", ".join(f"{count} {name}{'s' * (count != 1)}" for name, count in counts.items())
        typer.echo(f"{len(runs)} runs examined: {told}")
    raise typer.Exit(1 if counts["fault"] else 0)
