"""``study submit``, and the command that each of its jobs runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tldr.cli.reporting import reports_errors
from tldr.cli.study import RUNS, Config, Overrides, RunsDir, command, open_study, study_app
from tldr.study.launch import Launch
from tldr.study.runs import needed_for
from tldr.study.status import write_listing


@study_app.command("submit")
@reports_errors
def submit(
    config: Config,
    overrides: Overrides = [],  # noqa: B006
    only: Annotated[str, typer.Option("--only", metavar="STAGE", help="This stage and what it needs.")] = "",
    resources: Annotated[
        Path | None,
        typer.Option(
            help="What jobs ask for: a file such as configs/slurm/example.yaml.", show_default="one CPU job"
        ),
    ] = None,
    set_slurm: Annotated[
        list[str],
        typer.Option(metavar="KEY=VALUE", help="Change what jobs ask for; may be repeated."),
    ] = [],  # noqa: B006
    partition: Annotated[str, typer.Option(help="Shorthand for --set-slurm partition=...")] = "",
    launch: Annotated[
        Path | None,
        typer.Option(help="Train in several processes: a file of configs/accelerate.", show_default="one"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the sbatch files and submit nothing.")
    ] = False,
    runs_dir: RunsDir = RUNS,
) -> None:
    """Submit unfinished runs to a SLURM cluster, each job after those it needs; seeds form job arrays."""
    from tldr.study.slurm import Resources, check_slurm
    from tldr.study.submit import Submission, submit_slurm

    asked = Resources.read(resources, [*set_slurm, *([f"partition={partition}"] if partition else [])])
    opened = open_study(config, overrides, runs_dir)
    wanted = needed_for(opened.runs, only or None)
    processes = Launch.read(launch) if launch else None
    submission = Submission(opened.study, wanted, opened.root, opened.files, asked, processes)
    if dry_run:
        submit_slurm(submission, typer.echo, dry=True)
        return
    check_slurm(here=command("study run", config, overrides, runs_dir))
    write_listing(opened.study, opened.runs, opened.root)
    opened.files.save()
    count = submit_slurm(submission, typer.echo)
    typer.echo(f"{count} runs submitted; see: {command('study status', config, overrides, runs_dir)}")


@reports_errors
def job(file: Annotated[Path, typer.Argument(help="The job file.")]) -> None:
    """Execute the run of a job that `study submit` submitted."""
    from tldr.study.job import run_job

    raise typer.Exit(run_job(file))
