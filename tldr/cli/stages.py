"""Commands that run a single stage on files from any source.

Settings, windows, precision and sample tags are all given with ``--set``, by their names in a study
file (``optimizer.lr=1e-4``, ``lengths.query=96``, ``tags.method=sft``).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import create_model

from tldr.cli.reporting import reports_errors
from tldr.cli.study import Overrides
from tldr.errors import UsageError
from tldr.settings.base import LARGEST_SEED, Precision, Settings
from tldr.settings.models import Lengths, ModelSpec
from tldr.stages.shared.declaration import Product, Stage, is_needed
from tldr.study.folder import DONE, LOCK, RUN, RunFile, execute, locked, outputs_digest
from tldr.study.hashes import FileHashes, changed_code
from tldr.study.load import read_settings
from tldr.study.registry import STAGES
from tldr.study.runs import Tags
from tldr.study.status import differences

data_app = typer.Typer(help="Make data: a toy world, or posts from the raw dump.", no_args_is_help=True)

RunFolderOption = Annotated[Path, typer.Option("--out", help="The run's folder.", show_default=False)]


@data_app.command("toy")
@reports_errors
def toy_command(out: RunFolderOption, overrides: Overrides = []) -> None:  # noqa: B006
    """Generate the toy world's posts and corpus and train a tokenizer (--set data.sft_posts=1000)."""
    run_alone("data", out, 0, {}, overrides, tree={"data": {"kind": "toy"}})


def add_stages(app: typer.Typer) -> None:
    """Add a command for every stage that can run alone."""
    for stage in sorted((stage for stage in STAGES.values() if stage.alone), key=lambda stage: stage.name):
        app.command(stage.name.replace("_", "-"), help=stage.help)(reports_errors(_command(stage)))


def _command(stage: Stage) -> Callable[..., None]:
    """The stage's command, with one option for each input that is not a group of inputs."""

    def command(out: Path, seed: int, overrides: list[str], **inputs: str | None) -> None:
        given = {key: value for key, value in inputs.items() if value is not None}
        run_alone(stage.name, out, seed, given, overrides)

    parameters: dict[str, tuple[Any, Any]] = {"out": (RunFolderOption, inspect.Parameter.empty)}
    for declared in stage.fields():
        if declared.metadata["prefix"] is not None:
            continue
        help = declared.metadata["help"]
        option = typer.Option(f"--{declared.name}", metavar="PATH", help=help, show_default=False)
        if is_needed(declared):
            parameters[declared.name] = (Annotated[str, option], inspect.Parameter.empty)
        else:
            parameters[declared.name] = (Annotated[str | None, option], None)
    parameters["seed"] = (Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Random seed.")], 0)
    parameters["overrides"] = (Overrides, [])
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
            for key, (kind, default) in parameters.items()
        ]
    )
    command.__annotations__ = {key: kind for key, (kind, _) in parameters.items()}
    return command


def run_alone(
    name: str,
    out: Path,
    seed: int,
    inputs: dict[str, str],
    overrides: list[str],
    tree: dict[str, Any] | None = None,
) -> None:
    """Run one stage into `out`, exactly as a study would; resume it if it was stopped.

    Raises:
        UsageError: settings are invalid, an input is missing, or the folder contains another run.
    """
    files = FileHashes()
    stage = STAGES[name]
    stage.typed(inputs)  # refuses what is missing
    identities = {
        key: _identity(key, stage.needs(key).metadata["product"], place, files)
        for key, place in inputs.items()
    }
    run = _describe(name, overrides, tree or {}).model_copy(
        update={
            "run": out.name,
            "title": out.name,
            "seed": seed,
            "draw": seed,
            "inputs": {
                key: files.pinned(place) if stage.needs(key).metadata["product"].outside else place
                for key, place in inputs.items()
            },
        }
    )
    run.ingredients.update(
        run.model_dump(mode="json", include={"settings", "model", "lengths", "precision", "tags", "seed"}),
        stage=name,
        parents=identities,
    )
    run = run.model_copy(update={"code": run.code_now()})
    _claim(run, out)
    if (out / DONE).exists():
        typer.echo(f"{out} is already done")
        return
    execute(out)
    typer.echo(out)


def _claim(run: RunFile, out: Path) -> None:
    """Write ``run.json`` into a new folder, or check that the folder contains this run.

    Raises:
        UsageError: the folder contains something else.
        Busy: another process is executing the run.
    """
    if not (out / RUN).exists() and out.exists() and {path.name for path in out.iterdir()} - {LOCK}:
        raise UsageError("is not empty and contains no run", where=out, remedy="give another --out")
    out.mkdir(parents=True, exist_ok=True)
    if not (out / RUN).exists():
        with locked(out):
            if not (out / RUN).exists():  # another process may have written it meanwhile
                run.write(out)
    there = RunFile.read(out)
    if other := differences(there.ingredients, run.ingredients):
        raise UsageError(f"contains another run: {other}", where=out, remedy="give another --out")
    if changed := changed_code(there.code, run.code):
        what = f"contains a run of other code: {changed} changed since"
        raise UsageError(what, where=out, remedy="give another --out")


def _describe(name: str, overrides: list[str], tree: dict[str, Any]) -> RunFile:
    """The description of a run with these settings, without inputs and seed."""
    kind = STAGES[name].settings
    beside: dict[str, Any] = {
        "lengths": (Lengths, Lengths()),
        "precision": (Precision, "auto"),
        "tags": (Tags, {}),
    }
    if name == "pretrain":
        beside["model"] = (ModelSpec, ModelSpec())
    everything = read_settings(
        create_model(kind.__name__, __base__=kind, **beside), tree, overrides, where="--set"
    )
    apart = {key: getattr(everything, key) for key in beside}
    settings: Settings = kind.model_validate({key: getattr(everything, key) for key in kind.model_fields})
    for key, _ in settings.size_maps():
        raise UsageError("a single stage has one size", where=f"--set {key}", remedy="give one value")
    return RunFile(stage=name, settings=settings.model_dump(mode="json"), **apart)


def _identity(name: str, product: Product, place: str, files: FileHashes) -> str:
    """The identity of an input: a finished run's outputs, a file's or folder's content, or a hub name.

    Raises:
        UsageError: the input does not exist, or is an unfinished run.
    """
    path = Path(place)
    if (path / DONE).exists():
        return outputs_digest(path)
    if (path / RUN).exists():
        raise UsageError(f"the {name} is an unfinished run", where=path, remedy="finish it first")
    if not path.exists() and not product.outside:
        raise UsageError(f"the {name} does not exist", where=path, remedy="check the path")
    return files.place(place)
