"""The stages as commands of their own, on files from anywhere: one table, one function.

Settings, windows, precision and sample tags are all given by ``--set``, under the names that they
have in a study file (``optimizer.lr=1e-4``, ``lengths.query=96``, ``tags.method=sft``).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import create_model

from tldr.cli.study import Overrides
from tldr.cli.telling import told
from tldr.errors import UsageError
from tldr.settings.base import Precision, Settings
from tldr.settings.models import Lengths, ModelSpec
from tldr.study.folder import DONE, RUN, RunFile, done_digest, execute
from tldr.study.hashes import FileHashes, code_version
from tldr.study.load import read_settings
from tldr.study.registry import STAGES, Stage
from tldr.study.status import differences

ALONE = ("pretrain", "sft", "reward", "ppo", "best_of_n", "sample", "score")
"""Stages that need one model's inputs; labels need a whole ladder's."""

INPUTS = {
    "data": "Folder of posts and tokenizer, as the data stage makes it.",
    "policy": "Policy: run folder, checkpoint or hub name.",
    "reference": "Policy that the KL penalty is measured from (the SFT model).",
    "reward": "Reward model: run folder or checkpoint.",
    "labels": "Folder of rankings: train, valid1 and valid2.",
    "samples": "Samples: run folder or JSON-lines file.",
    "sft": "SFT policy, for log-probabilities under it.",
    "ppo": "PPO run, for the values and rewards of single tokens.",
}

data_app = typer.Typer(help="Make data: a toy world, or posts out of the raw dump.", no_args_is_help=True)

Out = Annotated[Path, typer.Option("--out", help="The run's folder.", show_default=False)]
Tags = dict[str, str | int | float | bool]


@data_app.command("toy")
@told
def toy_command(out: Out, overrides: Overrides = []) -> None:  # noqa: B006
    """Generate the toy world's posts and corpus and train a tokenizer (--set data.sft_posts=1000)."""
    run_alone("data", out, 0, {}, overrides, tree={"data": {"kind": "toy"}})


def add_stages(app: typer.Typer) -> None:
    """Add a command for every stage that can be run alone."""
    for name in ALONE:
        app.command(name.replace("_", "-"), help=STAGES[name].help)(told(_command(name, STAGES[name])))


def _command(name: str, stage: Stage) -> Callable[..., None]:
    """The stage's command, with an option for each of its inputs."""

    def command(out: Path, seed: int, overrides: list[str], **inputs: str | None) -> None:
        given = {key: value for key, value in inputs.items() if value is not None}
        run_alone(name, out, seed, given, overrides)

    parameters: dict[str, tuple[Any, Any]] = {"out": (Out, inspect.Parameter.empty)}
    for key in stage.inputs:
        option = typer.Option(f"--{key}", metavar="PATH", help=INPUTS[key], show_default=False)
        if key in stage.optional:
            parameters[key] = (Annotated[str | None, option], None)
        else:
            parameters[key] = (Annotated[str, option], inspect.Parameter.empty)
    parameters["seed"] = (Annotated[int, typer.Option(min=0, help="Of all random draws.")], 0)
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
    """Run one stage into `out`, exactly as a study would; go on with it if it was stopped.

    Raises:
        UsageError: wrong settings, a missing input, or a folder that holds another run.
    """
    files = FileHashes()
    identities = {key: _identity(key, place, files) for key, place in inputs.items()}
    run = _describe(name, overrides, tree or {}).model_copy(
        update={
            "run": out.name,
            "title": out.name,
            "seed": seed,
            "draw": seed,
            "inputs": inputs,
        }
    )
    run.ingredients.update(
        run.model_dump(mode="json", include={"settings", "model", "lengths", "precision", "tags", "seed"}),
        stage=name,
        parents=identities,
        code=code_version(STAGES[name].module),
    )
    if (out / RUN).exists():
        if other := differences(RunFile.read(out).ingredients, run.ingredients):
            raise UsageError(f"holds another run: {other}", where=out, remedy="give another --out")
    elif out.exists() and any(out.iterdir()):
        raise UsageError("is not empty and holds no run", where=out, remedy="give another --out")
    else:
        run.write(out)
    if (out / DONE).exists():
        typer.echo(f"{out} is done already")
        return
    execute(out)
    typer.echo(out)


def _describe(name: str, overrides: list[str], tree: dict[str, Any]) -> RunFile:
    """The run that the settings make, without inputs and seed."""
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
        raise UsageError("a stage alone has one size", where=f"--set {key}", remedy="give one value")
    return RunFile(stage=name, settings=settings.model_dump(mode="json"), **apart)


def _identity(name: str, place: str, files: FileHashes) -> str:
    """What an input is: a finished run's outputs, a file's or folder's content, a hub name.

    Raises:
        UsageError: it is not there, or a run that is not finished.
    """
    path = Path(place)
    if (path / DONE).exists():
        return done_digest(path)
    if (path / RUN).exists():
        raise UsageError(f"the {name} is a run that is not finished", where=path, remedy="finish it first")
    if not path.exists() and name in ("data", "labels", "samples"):
        raise UsageError(f"there is no {name} here", where=path, remedy="check the path")
    return files.place(place)
