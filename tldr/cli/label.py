"""``label serve | demo | items | links | export | import``: people label summaries on a page."""

from __future__ import annotations

import tempfile
import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tldr.cli.reporting import reports_errors
from tldr.cli.study import RUNS, Overrides, RunsDir, command, open_study
from tldr.errors import UsageError
from tldr.strict_yaml import read_yaml
from tldr.study.load import load_study, read_settings
from tldr.study.people import is_by_people, served

if TYPE_CHECKING:
    from tldr.label.project import Project
    from tldr.label.settings import LabelSettings

label_app = typer.Typer(
    help="People label: serve a page, make links, export the labels.", no_args_is_help=True
)

YOU = "You"
"""The demo's labeler."""
Folder = Annotated[
    Path,
    typer.Argument(metavar="DIR|STUDY", help="A labeling folder, or a study file: of the round that waits."),
]
Host = Annotated[str, typer.Option("--host", help="Address to listen at.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes any free one.")]
CheckOption = Annotated[bool, typer.Option("--check", help="Start, answer one request, and stop.")]


def label_folder(place: Path, runs_dir: Path) -> Path:
    """The labeling folder that an argument names; of a study whose labels people give, that of the first run
    that waits for them, else ``runs/STUDY/label``.

    Raises:
        UsageError: the study has not asked people yet.
    """
    if not place.is_file():
        return place
    study = load_study(place, [])
    if not is_by_people(study):
        return runs_dir / study.name / "label"
    opened = open_study(place, [], runs_dir)
    folders = served(opened.runs, opened.root)
    if not folders:
        raise UsageError(
            "the study has not asked people yet",
            where=opened.root,
            remedy=f"make what they label: {command('study run', place, [], runs_dir)}",
        )
    for other in folders[1:]:
        typer.echo(f"{other} waits, too", err=True)
    return folders[0]


def label_settings(folder: Path, overrides: list[str]) -> LabelSettings:
    """The settings of a folder: its ``label.yaml`` if there is one, and ``--set`` above it."""
    from tldr.label.project import SETTINGS
    from tldr.label.settings import LabelSettings

    file = folder / SETTINGS
    tree = read_yaml(file) if file.is_file() else {}
    return read_settings(LabelSettings, tree, overrides, where=str(file))


def open_project(place: Path, overrides: list[str], runs_dir: Path) -> Project:
    """Open a labeling folder. A study's own tokenizer counts written summaries, unless another is set.

    Raises:
        UsageError: there is none, or its files are invalid.
    """
    from tldr.label.project import Project

    folder = label_folder(place, runs_dir)
    if not folder.is_dir():
        raise UsageError("no such folder", where=folder, remedy="make items first: tldr-lab label items")
    settings = label_settings(folder, overrides)
    trained = sorted(folder.parent.glob("data-*/tokenizer/tokenizer.json"))
    if settings.tokenizer is None and place.is_file() and trained:
        settings = settings.model_copy(update={"tokenizer": str(trained[-1].resolve())})
    return Project.open(folder, settings)


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
    check: CheckOption = False,
    owner_again: Annotated[
        bool, typer.Option("--new-owner-link", help="Make a new link for the owner; the old one ends.")
    ] = False,
    overrides: Overrides = [],  # noqa: B006
    runs_dir: RunsDir = RUNS,
) -> None:
    """Serve the labeling page of a folder until Ctrl-C.

    The first start prints the owner's link. Links for labelers are made by `label links --add`, also while
    the server runs. A server of another machine needs TLS in front of it.
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
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")
    ] = True,
    check: CheckOption = False,
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
    there = any(person.name == YOU for person in project.labelers.all())
    secret = project.labelers.again(YOU) if there else project.labelers.add(YOU, time.time())
    page = f"{url}/#{secret}"
    typer.echo(f"label here:       {page}")
    typer.echo(f"the owner's page: {url}/owner#{project.labelers.new_owner()}")
    typer.echo(f"the files:        {folder}; Ctrl-C ends the server")
    if browser:
        webbrowser.open(page)
    run_server(project, listening)


@label_app.command("items")
@reports_errors
def items_command(
    folder: Annotated[Path, typer.Argument(help="The labeling folder; its items.jsonl grows by this batch.")],
    posts: Annotated[
        Path, typer.Option("--posts", help="Posts; their summaries are the policy ref.", show_default=False)
    ],
    samples: Annotated[
        list[Path] | None,
        typer.Option("--samples", help="Samples of policies; repeatable.", show_default=False),
    ] = None,
    known: Annotated[
        Path | None,
        typer.Option(
            "--known", help="Comparisons by researchers, mixed in as calibration items.", show_default=False
        ),
    ] = None,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Make a batch of items: pairs, rankings, ratings or demonstrations of posts and samples.

    The settings (`--set kind=ranking --set count=500 --set batch=b2`) are those of ItemPlan.
    """
    from tldr.inputs.posts import load_posts
    from tldr.label.items import read_items
    from tldr.label.make import ItemPlan, calibration_items, make_items
    from tldr.label.project import ITEMS
    from tldr.records import Comparison, Sample, read_records, write_records

    plan = read_settings(ItemPlan, {}, overrides, where="--set")
    rows = [row for path in samples or () for row in read_records(path, Sample)]
    items = make_items(load_posts(posts), rows, plan)
    if known is not None:
        items += calibration_items(read_records(known, Comparison))
    file = folder / ITEMS
    there = read_items(file) if file.is_file() else []
    if twice := {item.id for item in there} & {item.id for item in items}:
        raise UsageError(
            f"{len(twice)} items are there already, such as '{min(twice)}'",
            where=file,
            remedy="give the batch another name: --set batch=NAME",
        )
    typer.echo(
        f"{write_records(file, [*there, *items])}: {len(items):,} new items, {len(there) + len(items):,} all"
    )


@label_app.command("links")
@reports_errors
def links_command(
    place: Folder,
    add: Annotated[
        list[str] | None, typer.Option("--add", help="Add a labeler; repeatable.", show_default=False)
    ] = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Mark those added as held out: not for training labels.")
    ] = False,
    again: Annotated[
        str | None,
        typer.Option("--again", help="A new link for a labeler; the old one ends.", show_default=False),
    ] = None,
    url: Annotated[
        str, typer.Option("--url", help="Address of the page, as labelers reach it.")
    ] = "http://127.0.0.1:8750",
    overrides: Overrides = [],  # noqa: B006
    runs_dir: RunsDir = RUNS,
) -> None:
    """Make labelers' links, or list the labelers. A link is shown once: only its hash is kept."""
    project = open_project(place, overrides, runs_dir)
    base = url.rstrip("/")
    for name in add or ():
        typer.echo(f"{name}: {base}/#{project.labelers.add(name, time.time(), held_out=held_out)}")
    if again is not None:
        typer.echo(f"{again}: {base}/#{project.labelers.again(again)}")
    if not add and again is None:
        for person in project.labelers.all():
            mark = " (held out)" if person.held_out else ""
            typer.echo(f"{person.worker}  {person.name}{mark}  {person.status}")
    project.database.close()


@label_app.command("export")
@reports_errors
def export_command(
    place: Folder,
    out: Annotated[Path, typer.Argument(help="Folder for the files.")],
    form: Annotated[
        Literal["records", "label-studio", "potato", "argilla"],
        typer.Option("--format", help="The project's records, or another tool's files."),
    ] = "records",
    leave_out: Annotated[
        list[str] | None,
        typer.Option(
            "--leave-out", help="Labels not to write: dropped, held-out; repeatable.", show_default=False
        ),
    ] = None,
    overrides: Overrides = [],  # noqa: B006
    runs_dir: RunsDir = RUNS,
) -> None:
    """Write all labels so far, also while the server runs. The same labels give the same bytes."""
    from tldr.label.argilla import write_argilla
    from tldr.label.export import write_labels
    from tldr.label.given import read_labels
    from tldr.label.label_studio import write_label_studio
    from tldr.label.potato import write_potato

    if odd := set(leave_out or ()) - {"dropped", "held-out"}:
        raise UsageError(f"'{min(odd)}' is not dropped or held-out", where="--leave-out")
    project = open_project(place, overrides, runs_dir)
    labels, items = read_labels(project.database), project.items()
    project.database.close()
    if form == "records":
        counts = write_labels(labels, out, leave_out=leave_out or ())
    elif form == "argilla":
        counts = write_argilla(items, labels, out, project.settings.labelers_per_item)
    else:
        counts = (write_label_studio if form == "label-studio" else write_potato)(items, labels, out)
    for name, count in counts.items():
        typer.echo(f"{out / name}: {count:,}")
    if not counts:
        typer.echo("there are no labels yet")


@label_app.command("import")
@reports_errors
def import_command(
    place: Folder,
    source: Annotated[Path, typer.Argument(help="Their JSON, or Potato's output folder.")],
    form: Annotated[
        Literal["label-studio", "potato", "argilla"],
        typer.Option("--format", help="The tool.", show_default=False),
    ],
    overrides: Overrides = [],  # noqa: B006
    runs_dir: RunsDir = RUNS,
) -> None:
    """Add the labels that another tool took for these items. Importing a file twice adds nothing."""
    from tldr.label.argilla import read_argilla
    from tldr.label.foreign import take_in
    from tldr.label.label_studio import read_label_studio
    from tldr.label.potato import read_potato

    project = open_project(place, overrides, runs_dir)
    items, workers = project.items(), [person.worker for person in project.labelers.all()]
    if form == "argilla":
        labels = read_argilla(source, items, workers)
    else:
        labels = (read_label_studio if form == "label-studio" else read_potato)(source, items)
    counts = take_in(project, list(labels))
    project.database.close()
    typer.echo(", ".join(f"{count:,} {name}" for name, count in counts.items()))
