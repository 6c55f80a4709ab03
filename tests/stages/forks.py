"""Runs of the laboratory's stages in processes that can be killed, forked so that imports are paid once."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from tests.stages import lab as laboratory
from tldr.errors import LabError
from tldr.settings.base import Precision, Settings
from tldr.stages.shared.declaration import named
from tldr.study.folder import RunFile, execute
from tldr.train.metrics import MetricsLog

_forks = multiprocessing.get_context("forkserver")
PRELOAD = [__name__, *(f"tldr.stages.{stage}" for stage in laboratory.SETTINGS), "peft"]
FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
}
"""What `accelerate launch` sets for ``configs/accelerate/*fsdp2*.yaml``."""


def prepare(
    stage: str, lab: Path, folder: Path, changes: dict[str, Any] | None = None, precision: Precision = "fp32"
) -> Path:
    """The folder of a run that is yet to be run; its name is in no output."""
    ctx = laboratory.context(stage, lab, folder)
    settings: Settings = laboratory.changed(stage, changes or {})
    RunFile(
        stage=stage,
        settings=settings.model_dump(mode="json"),
        run=stage,
        model=ctx.model,
        lengths=ctx.lengths,
        precision=precision,
        tags=ctx.tags,
        inputs={name: str(place) for name, place in named(ctx.inputs).items()},
    ).write(folder)
    return folder


def start(
    *folders: Path,
    processes: int = 1,
    environment: dict[str, str] | None = None,
    held: int | None = None,
    tokens: int | None = None,
) -> list[ForkServerProcess]:
    """Run the runs in these folders, one after the other, in so many processes that share each.

    Args:
        held: see `hold`.
        environment: what `accelerate launch` would set (ACCELERATE_USE_FSDP).
        tokens: of a batch that is sampled or scored, so that there are many.
    """
    _forks.set_forkserver_preload(PRELOAD)
    shared = {"OMP_NUM_THREADS": "1", **(environment or {})}
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        shared |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    ranks = [
        _forks.Process(
            target=_work,
            args=(
                [str(folder) for folder in folders],
                shared | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}),
                held,
                tokens,
            ),
        )
        for rank in range(processes)
    ]
    for rank in ranks:
        rank.start()
    return ranks


def finish(
    *folders: Path,
    processes: int = 1,
    environment: dict[str, str] | None = None,
    tokens: int | None = None,
) -> None:
    """`start`, and wait for a good end."""
    ranks = start(*folders, processes=processes, environment=environment, tokens=tokens)
    for rank in ranks:
        rank.join()
    logs = "\n".join(
        (folder / "log.txt").read_text()[-3000:] for folder in folders if (folder / "log.txt").exists()
    )
    assert [rank.exitcode for rank in ranks] == [0] * processes, logs


def hold(rows: int) -> None:
    """Have this process stop before it logs any further row: no run ends before it is killed."""
    append = MetricsLog.append

    def held(log: MetricsLog, row: Mapping[str, float]) -> None:
        while row["update"] > rows:
            time.sleep(60)
        append(log, row)

    MetricsLog.append = held  # type: ignore[method-assign]


def in_small_batches(tokens: int) -> None:
    """Have this process sample and score in batches of so many tokens, and log how many it takes."""
    from tldr.stages.shared import batches, sampling
    from tldr.train.crew import Crew

    own = Crew.own

    def logged(crew: Crew, batches: Sequence[Any]) -> Sequence[Any]:
        part = own(crew, batches)
        print(f"process {crew.index} of {crew.count}: {len(part)} batches", flush=True)
        return part

    Crew.own = logged  # type: ignore[method-assign, assignment]

    batches.inference_batches.__defaults__ = (tokens,)
    sampling.sampling_tokens = lambda config, width: tokens


def _work(folders: list[str], environment: dict[str, str], held: int | None, tokens: int | None) -> None:
    os.environ.update(environment)
    if tokens is not None:
        in_small_batches(tokens)
    if held is not None:
        hold(held)
    for folder in map(Path, folders):
        with (folder / "log.txt").open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        try:
            execute(folder)
        except LabError as error:
            print(error, file=sys.stderr, flush=True)
            sys.exit(error.exit_code)
