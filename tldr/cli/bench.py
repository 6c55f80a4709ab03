"""``bench``: measure how fast the stages train on this device, with random weights of a study's models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tldr.cli.study import Overrides
from tldr.errors import UsageError
from tldr.study.load import load_study

PRESETS = Path("configs")


def bench(
    study: Annotated[str, typer.Argument(help="A study file, or the name of one in configs/.")],
    overrides: Overrides = [],  # noqa: B006
    stage: Annotated[list[str], typer.Option(metavar="STAGE", help="sft, reward or ppo; repeatable.")] = [],  # noqa: B006
    size: Annotated[list[str], typer.Option(metavar="SIZE", help="A model size; repeatable.")] = [],  # noqa: B006
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.", show_default="the study's")] = "",
    rounds: Annotated[int, typer.Option(min=1, help="Measured rounds, after one warm-up update.")] = 5,
    updates: Annotated[int, typer.Option(min=1, help="Updates per round (PPO: iterations).")] = 1,
    out: Annotated[Path | None, typer.Option(help="Append one JSON line per round to this file.")] = None,
) -> None:
    """Measure the stages' own training steps: speed, fraction of the device's peak, memory.

    Needs no data, weights or hub: models have the study's shapes and random weights, and texts have the
    lengths of TL;DR. Each stage runs in its own process. A stage that does not fit is reported and skipped.
    """
    from tldr.bench.run import STAGES, cases, measured
    from tldr.bench.table import table_of

    if unknown := [name for name in stage if name not in STAGES]:
        raise UsageError(f"cannot measure '{unknown[0]}'", where="--stage", remedy=f"choose from {STAGES}")
    chosen = [f"precision={precision}"] if precision else []
    chosen += [f"sizes=[{', '.join(json.dumps(name) for name in size)}]"] if size else []
    found = load_study(_file(study), [*overrides, *chosen])
    results = []
    for case in cases(found, stage or STAGES, rounds, updates):
        for row in [case] if isinstance(case, dict) else measured(case):
            results.append(row)
            if out is not None:
                append(out, row)
    console = Console()
    if not console.is_terminal:
        console.width = 200
    console.print(table_of(results))
    if all("error" in row for row in results):
        raise typer.Exit(1)


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Add a line of JSON in one write, so that lines of several processes do not mix (on a local disk)."""
    with path.open("ab", buffering=0) as file:
        file.write(f"{json.dumps(row)}\n".encode())


def _file(study: str) -> Path:
    path, preset = Path(study), PRESETS / f"{study}.yaml"
    return preset if preset.exists() and not path.exists() else path
