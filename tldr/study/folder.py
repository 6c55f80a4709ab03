"""A run's folder: its description (``run.json``), its execution, and its state.

The folder is the only input of a run's process, so a run of a study, one started by hand and one on a
cluster are executed in the same way.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tldr import locks
from tldr.errors import LabError, UsageError, Waiting
from tldr.files import PARTIAL, disk_full, drop_abandoned, is_disk_full
from tldr.interrupts import exiting_on_sigterm
from tldr.locks import holder
from tldr.pinned import local_folder
from tldr.records import write_json
from tldr.settings.base import Precision, Settings
from tldr.settings.extras import check_extras
from tldr.settings.models import Lengths, ModelSpec
from tldr.stages.shared.context import RunContext
from tldr.strict_json import parse_object
from tldr.study.environment import STATUS, environment, peak_bytes, proc, set_threads
from tldr.study.hashes import changed_code, code_of, sha256
from tldr.study.registry import STAGES

log = logging.getLogger(__name__)

RUN, CONFIG, ENVIRONMENT, DONE, FAILED = "run.json", "config.json", "environment.json", "DONE", "FAILED"
WAITING = "WAITING"
LOG, LOCK = "log.txt", ".lock"
NOT_OUTPUTS = frozenset(
    {RUN, CONFIG, ENVIRONMENT, DONE, FAILED, WAITING, LOG, LOCK, "metrics.jsonl", "progress.json", "state"}
)
"""Files and folders in a run's folder that are not outputs for other runs."""
TOKENS = ".tokens"
"""Folder beside the runs of a study with their common texts, encoded once (`tldr.queries.tokenized`)."""


class ParentRun(BaseModel):
    """A run that this one reads: its folder's name, and the digest of its outputs when this one started."""

    run: str
    outputs: str


class RunFile(BaseModel):
    """``run.json``: everything needed to execute a run, to compute its key, and to decide if it is stale.

    Attributes:
        draw: the seed of all its random streams.
        inputs: paths and hub names from outside the study; names with their commit (`tldr.pinned`).
        parents: inputs made by runs of the same study, in the folders beside this one.
        code: the code that it runs, module -> hash (`tldr.study.hashes.code_of`).
        threads: of its process; None leaves them to the environment.
        toy: whether its data come from the toy world.
        adopted: the run that it was adopted from (`tldr.study.adopt`).
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    stage: str
    settings: dict[str, Any]
    study: str = ""
    run: str = ""
    title: str = ""
    size: str | None = None
    seed: int | None = None
    draw: int = 0
    model: ModelSpec | None = None
    lengths: Lengths = Lengths()
    precision: Precision = "auto"
    threads: int | None = None
    tags: dict[str, str | int | float | bool] = {}
    inputs: dict[str, str] = {}
    parents: dict[str, ParentRun] = {}
    ingredients: dict[str, Any] = {}
    code: dict[str, str] = {}
    toy: bool = True
    adopted: dict[str, str] = {}

    def code_now(self) -> dict[str, str]:
        """The current code of its stage."""
        return code_of(STAGES[self.stage].module_of(self.settings), toy=self.toy)

    @classmethod
    def read(cls, folder: Path) -> RunFile:
        """Read a run's folder.

        Raises:
            UsageError: the folder contains no run, or one in an unknown format.
        """
        path = folder / RUN
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except OSError:
            raise UsageError("this folder contains no run", where=path) from None
        except (ValidationError, UnicodeDecodeError) as error:
            reason = str(error).splitlines()[-1 if isinstance(error, UnicodeDecodeError) else 0]
            raise UsageError(f"not a valid run: {reason}", where=path, remedy="delete the folder") from None

    def write(self, folder: Path) -> None:
        """Write ``run.json`` into `folder`, creating the folder if necessary."""
        write_json(folder / RUN, self.model_dump(mode="json"))

    def context(self, folder: Path) -> RunContext[Settings, Any]:
        """The argument of the stage's function; models of the hub are fetched.

        Raises:
            UsageError, LabError: as of `tldr.pinned.fetch`.
        """
        stage = STAGES[self.stage]
        settings = stage.settings.model_validate_json(json.dumps(self.settings), strict=True)
        inputs = {
            name: local_folder(place) if stage.needs(name).metadata["product"].outside else Path(place)
            for name, place in self.inputs.items()
        }
        inputs |= {name: folder.parent / parent.run for name, parent in self.parents.items()}
        return RunContext(
            settings=settings,
            folder=folder,
            inputs=stage.typed(inputs),
            seed=self.draw + getattr(settings, "seed_offset", 0),
            model=self.model,
            lengths=self.lengths,
            precision=self.precision,
            study=self.study,
            run=self.run,
            tags=self.tags,
        )


def execute(folder: Path) -> None:
    """Execute the run in `folder`; resume it if it was stopped, do nothing if it is done.

    ``precision: auto`` is resolved when a run first starts, and stays what it was when the run resumes,
    also on another machine. ``config.json`` and ``environment.json`` are written before the stage, ``DONE``
    after it, ``FAILED`` if it fails, and ``WAITING`` if people have to label first. On SIGTERM the stage
    may save first, otherwise the run exits at once. With several processes per run (`accelerate launch`)
    the first does all this; the others only execute the stage.

    Raises:
        Busy: another process has locked the folder.
        UsageError: a parent run is not done, or differs from the one that this run was described with.
        Waiting: it waits for people.
        LabError: any error of the stage.
    """
    run = RunFile.read(folder)
    first = os.environ.get("RANK", "0") == "0"
    with locked(folder) if first else contextlib.nullcontext():
        if (folder / DONE).exists():
            return
        if not first:
            _take_part(run, folder)
            return
        _check_parents(run, folder)
        drop_abandoned(folder)
        for old in (FAILED, WAITING):
            (folder / old).unlink(missing_ok=True)
        shown = {"stage", "settings", "lengths", "precision", "model", "tags"}
        started, before = time.monotonic(), read_note(folder / ENVIRONMENT)
        held = 0
        try:
            with _failure_noted(folder), exiting_on_sigterm():
                ctx = run.context(folder)
                write_json(folder / CONFIG, run.model_dump(mode="json", include=shown) | {"seed": ctx.seed})
                check_extras(ctx.settings, run.stage)
                stage = _load(run)
                held = proc(STATUS, "VmRSS")  # memory used by the libraries
                ctx = replace(ctx, precision=_resolved(run.precision, before))
                note = environment() | {"precision": ctx.precision, "seconds": before.get("seconds", 0.0)}
                write_json(folder / ENVIRONMENT, note)
                from tldr.queries.tokenized import keep_tokens  # the stage has loaded its imports by now

                with keep_tokens(folder.parent / TOKENS if run.study else None):
                    stage(ctx)
                _finish(folder)
        finally:
            if note := read_note(folder / ENVIRONMENT):
                seconds = round(before.get("seconds", 0.0) + time.monotonic() - started, 1)
                peak = max(before.get("peak_bytes") or 0, peak_bytes(held) or 0) or None
                with contextlib.suppress(OSError):  # a full disk must not hide the cause
                    write_json(folder / ENVIRONMENT, {**note, "seconds": seconds, "peak_bytes": peak})


def _take_part(run: RunFile, folder: Path) -> None:
    """Execute the stage in a process that is not the first: it computes, but writes nothing that is kept.

    A stage that trains writes in the first process only; what another one writes goes to a folder that is
    deleted.
    """
    from tldr.queries.tokenized import keep_tokens

    with (
        tempfile.TemporaryDirectory() as scratch,
        _failure_noted(folder),
        exiting_on_sigterm(),
        keep_tokens(folder.parent / TOKENS if run.study else None),
    ):
        stage = _load(run)
        precision = _resolved(run.precision, read_note(folder / ENVIRONMENT))
        ctx = replace(run.context(folder), precision=precision)
        stage(ctx if STAGES[run.stage].trains else replace(ctx, folder=Path(scratch)))


def _load(run: RunFile) -> Callable[..., None]:
    """The stage's function, for this process's threads."""
    if run.threads is not None:
        set_threads(run.threads)
    return STAGES[run.stage].load(run.settings)


def _resolved(precision: Precision, before: dict[str, Any]) -> Precision:
    """The precision of a run: the one of its first start, else that of this device.

    Args:
        before: the run's ``environment.json`` so far.
    """
    if precision != "auto" or "torch" not in sys.modules:  # without torch a stage multiplies nothing
        return precision
    from tldr.stages.shared.device import Device

    here: Precision = Device.open("auto").precision
    began: Precision = before.get("precision", "auto")
    if began in ("auto", here):
        return here
    log.warning("goes on in %s, in which it began, although this machine would choose %s", began, here)
    return began


def _check_parents(run: RunFile, folder: Path) -> None:
    for name, parent in run.parents.items():
        place = folder.parent / parent.run
        if (digest := outputs_digest(place)) != parent.outputs:
            raise UsageError(
                f"its {name} has changed since" if digest else f"its {name} is missing or not done",
                where=place,
                remedy="run the study: it runs what is missing",
            )


def check_code(folder: Path) -> None:
    """Check, in a new process, that the code has not been edited since the study started.

    Raises:
        UsageError: the stage's code differs from the one in ``run.json``.
    """
    run = RunFile.read(folder)
    if run.code and (changed := changed_code(run.code, run.code_now())):
        what = f"the stage's code was edited after run.json was written: {changed}"
        raise UsageError(what, where=folder, remedy="start the study again")


def _finish(folder: Path) -> None:
    """Mark a run as done, with the hashes of all files that the stage wrote."""
    from tldr.train.checkpoint import write_done

    outputs = sorted(
        path.name for path in folder.iterdir() if path.name not in NOT_OUTPUTS and path.suffix != PARTIAL
    )
    if not outputs:
        raise LabError("the stage wrote nothing", where=folder)
    write_done(folder, outputs)


@contextlib.contextmanager
def _failure_noted(folder: Path) -> Iterator[None]:
    """Write ``FAILED`` if the body fails (``WAITING`` if it waits), and say clearly if the disk is full.

    With several processes, the first to fail writes it; the others fail only because of the first.
    """
    try:
        yield
    except Waiting as error:
        write_json(folder / WAITING, _noted(error))
        raise
    except Exception as error:
        shown = error
        if is_disk_full(error):
            remedy = "free disk space and run again: it resumes from the last saved state"
            shown = disk_full(error, where=folder, remedy=remedy)
        with contextlib.suppress(OSError):
            if not (folder / FAILED).exists():
                _note_failure(folder, shown)
        if shown is error:
            raise
        raise shown from error


def _note_failure(folder: Path, error: Exception) -> None:
    if isinstance(error, LabError):
        note = _noted(error)
    else:
        last = traceback.extract_tb(error.__traceback__)[-1]
        what = "".join(traceback.format_exception_only(error)).strip()
        place = f"{Path(last.filename).name}:{last.lineno}"
        note = {"what": what, "where": place, "remedy": f"see the full traceback in {LOG}"}
    write_json(folder / FAILED, note)


def _noted(error: LabError) -> dict[str, str | None]:
    return {"what": error.what, "where": error.where, "remedy": error.remedy}


def last_wait(folder: Path) -> str | None:
    """What the run waited for when it last ended, and what to do; None if it did not wait for people."""
    note = read_note(folder / WAITING)
    return "; ".join(str(note[part]) for part in ("what", "remedy") if note.get(part)) or None


def last_error(folder: Path) -> str | None:
    """The error of the last attempt in one line; None if it did not fail."""
    if not (folder / FAILED).exists():
        return None
    note = read_note(folder / FAILED)
    return ": ".join(str(note[part]) for part in ("where", "what") if note.get(part)) or "no reason noted"


def locked(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Hold a run's lock; the system releases it when the process ends for any reason.

    Raises:
        Busy, UsageError, FileNotFoundError: as `tldr.locks.locked`.
    """
    return locks.locked(folder / LOCK, "executing this run", where=folder)


def worker_on(folder: Path) -> str | None:
    """The process that executes the run, as ``process 12 on HOST``; None if none does. Nothing is written."""
    return holder(folder / LOCK)


def is_busy(folder: Path) -> bool:
    """Whether a process is executing the run."""
    return worker_on(folder) is not None


def outputs_digest(folder: Path) -> str:
    """Digest of a finished run's outputs: equal bytes give equal digests; "" if it is not done."""
    if not (folder / DONE).exists():
        return ""
    return sha256(json.dumps(sorted(read_outputs(folder).items())))


def read_outputs(folder: Path) -> dict[str, str]:
    """A finished run's files and their sha256 (`tldr.train.checkpoint.write_done`), without torch.

    Raises:
        LabError: ``DONE`` cannot be read.
    """
    try:
        outputs: dict[str, str] = parse_object((folder / DONE).read_bytes())["outputs"]
        return {str(name): str(digest) for name, digest in outputs.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabError(f"not a valid DONE file: {error!r}", where=folder / DONE) from None


def read_note(path: Path) -> dict[str, Any]:
    """A small JSON object in a run's folder; {} if it does not exist (yet) or is invalid."""
    try:
        return parse_object(path.read_bytes())
    except (OSError, ValueError):
        return {}
