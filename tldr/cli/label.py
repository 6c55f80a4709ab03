"""``label``: people label summaries on a page."""

from __future__ import annotations

import tempfile
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tldr.cli.reporting import reports_errors
from tldr.cli.study import RUNS, Overrides, RunsDir
from tldr.errors import UsageError
from tldr.study.load import load_study, read_settings
from tldr.study.strict_yaml import read_yaml

if TYPE_CHECKING:
    from tldr.label.project import Project
    from tldr.label.settings import LabelSettings

label_app = typer.Typer(help="People label: serve a page, make links, export the labels.", no_args_is_help=True)

Folder = Annotated[
    Path, typer.Argument(metavar="DIR|STUDY", help="A labeling folder, or a study file: runs/STUDY/label.")
]
Host = Annotated[str, typer.Option("--host", help="Address to listen at.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes any free one.")]
Check = Annotated[bool, typer.Option("--check", help="Start, answer one request, and stop.")]


def label_folder(place: Path, runs_dir: Path) -> Path:
    """The labeling folder that an argument names."""
    return runs_dir / load_study(place, []).name / "label" if place.is_file() else place


def label_settings(folder: Path, overrides: list[str]) -> LabelSettings:
    """The settings of a folder: its ``label.yaml`` if there is one, and ``--set`` above it."""
    from tldr.label.project import SETTINGS
    from tldr.label.settings import LabelSettings

    file = folder / SETTINGS
    tree = read_yaml(file) if file.is_file() else {}
    return read_settings(LabelSettings, tree, overrides, where=str(file))


def open_project(place: Path, overrides: list[str], runs_dir: Path) -> Project:
    """Open a labeling folder.

    Raises:
        UsageError: there is none, or its files are invalid.
    """
    from tldr.label.project import Project

    folder = label_folder(place, runs_dir)
    if not folder.is_dir():
        raise UsageError("no such folder", where=folder, remedy="make items first: tldr-lab label items")
    return Project.open(folder, label_settings(folder, overrides))


def need_server() -> None:
    """Raise UsageError unless the packages of the extra `label` are there."""
    from tldr.settings.extras import need

    need("starlette", "tldr-lab label")
    need("uvicorn", "tldr-lab label")


@label_app.command("serve")
@reports_errors
def serve_command(
    place: Folder,
    host: Host = "127.0.0.1",
    port: Port = 8750,
    check: Check = False,
    owner_again: Annotated[
        bool, typer.Option("--new-owner-link", help="Make a new link for the owner; the old one ends.")
    ] = False,
    overrides: Overrides = [],  # noqa: B006
    runs_dir: RunsDir = RUNS,
) -> None:
    """Serve the labeling page of a folder until Ctrl-C.

    The first start prints the owner's link. Links for labelers are made by `label links --add`, also while the
    server runs. A server of another machine needs TLS in front of it.
    """
    need_server()
    from tldr.label.serve import BEFORE_A_NETWORK, address, check_server, is_local, listen, run_server

    project = open_project(place, overrides, runs_dir)
    listening = listen(host, 0 if check else port)
    url = address(host, listening)
    if check:
        typer.echo(check_server(project, listening, url))
        return
    if owner_again or not project.labelers.has_owner():
        typer.echo(f"the owner's page, shown once: {url}/owner#{project.labelers.new_owner()}")
    if not is_local(host):
        typer.secho(f"WARNING: {BEFORE_A_NETWORK}", fg=typer.colors.YELLOW, err=True)
    typer.echo(f"serving {project.folder} at {url}; Ctrl-C ends it")
    run_server(project, listening)


@label_app.command("demo")
@reports_errors
def demo_command(
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to keep.", show_default="a temporary one")
    ] = None,
    port: Port = 8750,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
    check: Check = False,
) -> None:
    """Label posts of the toy world in a browser: every task, with a training round and other labelers."""
    need_server()
    from tldr.label.demo import make_demo
    from tldr.label.serve import address, check_server, listen, run_server

    folder = out or Path(tempfile.mkdtemp(prefix="tldr-label-"))
    make_demo(folder)
    project = open_project(folder, [], RUNS)
    listening = listen("127.0.0.1", 0 if check else port)
    url = address("127.0.0.1", listening)
    if check:
        typer.echo(check_server(project, listening, url))
        return
    import time

    name = f"you ({time.strftime('%Y-%m-%d %H:%M:%S')})"
    page = f"{url}/#{project.labelers.add(name, time.time())}"
    typer.echo(f"label here:       {page}")
    typer.echo(f"the owner's page: {url}/owner#{project.labelers.new_owner()}")
    typer.echo(f"the files:        {folder}; Ctrl-C ends the server")
    if browser:
        webbrowser.open(page)
    run_server(project, listening)
