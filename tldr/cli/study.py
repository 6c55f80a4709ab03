"""``study run | status | clean | adopt``, ``compare``, ``pool`` and ``report``."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tldr.cli.reporting import reports_errors
from tldr.errors import UsageError
from tldr.label.batch import LABELING
from tldr.study.display import Display, clock
from tldr.study.environment import cores
from tldr.study.folder import worker_on
from tldr.study.graph import expand
from tldr.study.hashes import FileHashes
from tldr.study.launch import Launch
from tldr.study.load import load_study
from tldr.study.runner import Runner, default_jobs, fitting_jobs
from tldr.study.runs import Run, needed_for
from tldr.study.settings import Study
from tldr.study.status import Status, listing, removable, remove, run_folders, study_status, write_listing

study_app = typer.Typer(help="Run a study, show its state, delete stale runs.", no_args_is_help=True)

Config = Annotated[Path, typer.Argument(help="The study file.", show_default=False)]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; repeatable.")
]
RunsDir = Annotated[Path, typer.Option("--runs", help="Folder that contains the folders of all studies.")]
RUNS = Path("runs")

STYLES = {"done": "green", "running": "cyan", "failed": "red", "stale": "yellow", "waiting": "dim"}


@dataclass(frozen=True)
class OpenedStudy:
    """A study, its runs, and its folder."""

    study: Study
    runs: list[Run]
    root: Path
    files: FileHashes


def open_study(config: Path, overrides: list[str], runs_dir: Path) -> OpenedStudy:
    """Read a study file and expand it.

    Raises:
        UsageError: the file is invalid, or names files that do not exist.
    """
    study = load_study(config, overrides)
    root = runs_dir / study.name
    files = FileHashes(root / "hashes.json")
    return OpenedStudy(study, expand(study, files), root, files)


def command(name: str, config: Path, overrides: list[str], runs_dir: Path) -> str:
    """A command on the same study with the same options, to be typed into a shell."""
    changes = [part for override in overrides for part in ("--set", override)]
    place = [] if runs_dir == RUNS else ["--runs", str(runs_dir)]
    return shlex.join(["tldr-lab", *name.split(), str(config), *changes, *place])


@study_app.command("run")
@reports_errors
def run_command(
    config: Config,
    overrides: Overrides = [],  # noqa: B006
    only: Annotated[
        str, typer.Option("--only", metavar="STAGE", help="Only this stage and its ancestors.")
    ] = "",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Concurrent runs.", show_default="by cores or GPUs")
    ] = None,
    runs_dir: RunsDir = RUNS,
    launch: Annotated[
        Path | None,
        typer.Option(help="Train in several processes: a file in configs/accelerate.", show_default="one"),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Stay until people have labeled enough, and go on.")
    ] = False,
) -> None:
    """Execute all runs that are not done; stopped runs resume.

    Ends with 0 when all are done, 1 when a run failed, and 77 when people have to label first.
    """
    processes = Launch.read(launch) if launch else None
    if processes and processes.machines > 1:
        raise UsageError(
            f"needs {processes.machines} machines, but a study runs on one",
            where=launch,
            remedy="start each run on all machines, as described at the top of the file",
        )
    if processes and jobs is not None and jobs > 1:
        raise UsageError(
            "more than one cannot be combined with --launch", where="--jobs", remedy="drop one of the options"
        )
    opened = open_study(config, overrides, runs_dir)
    wanted = needed_for(opened.runs, only or None)
    write_listing(opened.study, opened.runs, opened.root)
    with Display(Console(), len(wanted)) as display:
        threads = opened.study.threads * (processes.per_machine if processes else 1)
        if jobs is None:
            jobs = 1 if processes else default_jobs(threads)
        elif (fitting := fitting_jobs(jobs, threads)) < jobs:
            what = f"{fitting} at once instead of {jobs}: a run has {threads} threads, this machine "
            display.say(f"{what}{cores()} cores", "yellow")
            jobs = fitting
        runner = Runner(
            opened.study, wanted, opened.root, opened.files, display, jobs=jobs, launch=processes, wait=wait
        )
        try:
            code = runner.run()
        finally:
            write_listing(opened.study, opened.runs, opened.root)
            opened.files.save()
    if code == 0 and not only:
        typer.echo(f"all done; next: {command('report', config, overrides, runs_dir)}")
    raise typer.Exit(code)


@study_app.command("status")
@reports_errors
def status_command(config: Config, overrides: Overrides = [], runs_dir: RunsDir = RUNS) -> None:  # noqa: B006
    """Show the state of every run: done, running, failed, stale or waiting, and why."""
    opened = open_study(config, overrides, runs_dir)
    rows = study_status(opened.runs, opened.root, opened.files)
    opened.files.save()
    console = Console()
    if not console.is_terminal:
        console.width = 200  # Folded names could not be searched.
    console.print(_table(rows))


def _table(rows: list[Status]) -> Table:
    table = Table("run", "state", "progress", "time", "why", box=None, pad_edge=False)
    for row in rows:
        table.add_row(
            Text(row.run, overflow="fold"),
            Text(row.state, STYLES[row.state]),
            "" if row.progress is None else f"{row.progress:.0%}",
            "" if row.seconds is None else clock(row.seconds),
            Text(row.why, overflow="fold"),
        )
    counts = {state: sum(row.state == state for row in rows) for state in STYLES}
    table.caption = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    table.caption_justify = "left"
    return table


@study_app.command("clean")
@reports_errors
def clean_command(
    config: Config,
    overrides: Overrides = [],  # noqa: B006
    everything: Annotated[bool, typer.Option("--all", help="Delete every run, not only stale ones.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    runs_dir: RunsDir = RUNS,
) -> None:
    """Delete the stale runs of a study (or all its runs)."""
    opened = open_study(config, overrides, runs_dir)
    folders = removable(opened.runs, opened.root, opened.files, everything=everything)
    running = {folder: worker for folder in run_folders(opened.root) if (worker := worker_on(folder))}
    for folder, worker in running.items() if everything else ():
        typer.echo(f"kept  {folder.name}: {worker} is executing it", err=True)
    if everything and (opened.root / LABELING).exists():
        typer.echo(f"kept  {LABELING}: what people have labeled", err=True)
    for folder in folders:
        typer.echo(f"{folder.name} (only the link)" if folder.is_symlink() else folder.name)
    if not folders:
        typer.echo("nothing to delete")
    elif yes or typer.confirm(f"Delete these {len(folders)} runs?"):
        left = remove(folders)
        typer.echo(f"deleted {len(folders) - len(left)} runs")
        for folder, why in left.items():
            typer.echo(f"not deleted  {folder.name}: {why}", err=True)
        raise typer.Exit(1 if left or (everything and running) else 0)


@study_app.command("adopt")
@reports_errors
def adopt_command(
    config: Config,
    overrides: Overrides = [],  # noqa: B006
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Folder with the runs to adopt.", show_default="the study's own"),
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="Instead, replace old run names in this folder of tables.")
    ] = None,
    vouch: Annotated[
        bool, typer.Option("--vouch", help="Adopt runs of any code: you guarantee equal outputs.")
    ] = False,
    runs_dir: RunsDir = RUNS,
) -> None:
    """Adopt finished runs of other code versions with the same outputs, under their current names."""
    from tldr.study.adopt import adopt, rename_results

    opened = open_study(config, overrides, runs_dir)
    if results is not None:
        names = rename_results(opened.runs, results)
        typer.echo(f"renamed {len(names)} runs in {results}")
        return
    found = adopt(opened.study, opened.runs, opened.root, source or opened.root, vouch=vouch)
    for old, new in found.names.items():
        typer.echo(f"adopted      {old} -> {new}")
    for title, reason in found.left.items():
        typer.echo(f"not adopted  {title}: {reason}")
    typer.echo(f"{len(found.names)} adopted, {len(found.left)} not adopted")
    write_listing(opened.study, opened.runs, opened.root)


def compare(
    studies: Annotated[list[Path], typer.Argument(help="Two or more files of finished studies.")],
    out: Annotated[Path, typer.Option(help="Folder for the table.")] = Path("results"),
    runs_dir: RunsDir = RUNS,
) -> None:
    """Compare studies: one row per policy, one column per study."""
    from eval.common.tables import to_markdown
    from eval.report.compare import compare as compare_studies

    folders = {study.name: runs_dir / study.name for study in (load_study(path, []) for path in studies)}
    typer.echo(to_markdown(compare_studies(folders, out)))
    typer.echo(out / "compare.csv")


def pool(
    reports: Annotated[list[Path], typer.Argument(help="Folders of two or more reports.")],
    out: Annotated[Path, typer.Option(help="Folder for the table.")] = Path("results"),
) -> None:
    """Test the claims over the cells of several reports of one study."""
    from eval.claims.pooled import pool_reports

    pooled = pool_reports(reports, out)
    counts = pooled["verdict"].value_counts()
    typer.echo(
        f"{len(pooled)} shapes: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    )
    typer.echo(out / "claims_pooled.md")


def report(
    study: Annotated[Path, typer.Argument(help="A study file, or a folder with runs or samples.")],
    overrides: Overrides = [],  # noqa: B006
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report.", show_default="STUDY/report")
    ] = None,
    judgements: Annotated[list[Path], typer.Option(help="Additional verdicts for the sample viewer.")] = [],  # noqa: B006
    beside: Annotated[
        Path | None,
        typer.Option(
            help="A committed report's folder (results/toy): its intervals are shown beside this study."
        ),
    ] = None,
    runs_dir: RunsDir = RUNS,
) -> None:
    """Build the report of a study: figures, tables, claims, and samples to read."""
    from eval.common.runs import load_runs
    from eval.report.build import build_report

    if study.is_dir():
        path = build_report(
            study,
            out or study / "report",
            title=study.resolve().name,
            judgements=judgements,
            beside=beside,
        )
    else:
        opened = open_study(study, overrides, runs_dir)
        if not opened.root.is_dir():
            remedy = command("study run", study, overrides, runs_dir)
            raise UsageError("the study has not been run", where=opened.root, remedy=remedy)
        if out is None:
            write_listing(opened.study, opened.runs, opened.root)
        path = build_report(
            load_runs(opened.root, listing(opened.study, opened.runs, opened.root)),
            out or opened.root / "report",
            title=opened.study.name,
            description=opened.study.description,
            synthetic=opened.study.data.kind == "toy",
            draws=opened.study.evaluation.bootstrap,
            judgements=judgements,
            beside=beside,
        )
    typer.echo(path)
