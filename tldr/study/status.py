"""The state of every run of a study, with the reason."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tldr.errors import LabError, UsageError
from tldr.files import by_number
from tldr.records import write_json
from tldr.study.folder import (
    DONE,
    ENVIRONMENT,
    LOCK,
    RUN,
    WAITING,
    RunFile,
    is_busy,
    last_error,
    locked,
    outputs_digest,
    read_note,
    read_outputs,
    worker_on,
)
from tldr.study.hashes import FileHashes, changed_code
from tldr.study.load import resolved
from tldr.study.people import wait_of
from tldr.study.runs import Run
from tldr.study.settings import Study

ASIDE = "set-aside"
"""Folder within a study's folder for stale runs that are run again."""
RunState = Literal["done", "running", "failed", "stale", "waiting"]


@dataclass(frozen=True)
class Status:
    """One run's state; `progress` is the finished fraction of its work, `seconds` its running time so far."""

    run: str
    state: RunState
    why: str = ""
    seconds: float | None = None
    progress: float | None = None


def status_of(run: Run, root: Path, files: FileHashes, parents: Mapping[str, Status] | None = None) -> Status:
    """The current state of one run of the study.

    A run is done only if its code has not changed, its parents are done, and their outputs are the ones that
    it read. If a parent has to run again, the run waits: the parent may produce the same bytes.

    Args:
        root: the study's folder.
        parents: the known states of its parents by name; others count as done.
    """
    folder = root / run.name
    if not (folder / RUN).exists():
        return Status(run.name, "waiting")
    seconds = read_note(folder / ENVIRONMENT).get("seconds")
    note = read_note(folder / "progress.json")
    progress = note["done"] / note["total"] if note.get("total") else None
    if worker := worker_on(folder):
        return Status(run.name, "running", worker, note.get("seconds"), progress)
    unmade = [
        parent.name
        for parent in run.parent_runs()
        if parents and parent.name in parents and parents[parent.name].state != "done"
    ]
    done = (folder / DONE).exists()
    if done or begun(folder):
        why = stale_because(folder, files, parents=not unmade)
        if why:
            return Status(run.name, "stale", why, seconds, 1.0 if done else progress)
    if done and unmade:
        why = f"finished before; checked again when {unmade[0]} is done"
        return Status(run.name, "waiting", why, seconds, 1.0)
    if done:
        return Status(run.name, "done", "", seconds, 1.0)
    if error := last_error(folder):
        return Status(run.name, "failed", error, seconds, progress)
    if waits := (folder / WAITING).exists() and wait_of(run, root):
        return Status(run.name, "waiting", waits, seconds, progress)
    why = "interrupted, will resume" if begun(folder) else ""
    return Status(run.name, "waiting", why, seconds, progress)


def begun(folder: Path) -> bool:
    """Whether a run has partial work that it would resume."""
    return (folder / "log.txt").exists() or (folder / "state").is_dir()


def stale_because(folder: Path, files: FileHashes, *, parents: bool = True) -> str:
    """Why a finished or begun run is stale: an output, its code or a parent has changed; "" if none has.

    Args:
        parents: whether to check the parents.
    """
    try:
        return (
            (_changed_outputs(folder, files) if (folder / DONE).exists() else "")
            or _changed_code(folder)
            or (_changed_parents(folder) if parents else "")
        )
    except LabError as error:
        return str(error).splitlines()[0]


def _changed_outputs(folder: Path, files: FileHashes) -> str:
    for name, digest in read_outputs(folder).items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing since it was done"
        if files.file(path) != digest:
            return f"{name} changed since it was done"
    return ""


def _changed_code(folder: Path) -> str:
    run = RunFile.read(folder)
    changed = changed_code(run.code, run.code_now())
    return f"the code changed: {changed}" if changed else ""


def _changed_parents(folder: Path) -> str:
    for name, parent in RunFile.read(folder).parents.items():
        if outputs_digest(folder.parent / parent.run) not in ("", parent.outputs):
            return f"its {name} was run again with other outputs ({parent.run})"
    return ""


def set_aside(folder: Path, files: FileHashes) -> Path | None:
    """Move a stale run's folder to ``set-aside/`` in its study's folder.

    Returns:
        its new path; None if it is no longer stale, because another process has set it aside.

    Raises:
        Busy: a process is executing it.
    """
    try:
        with locked(folder):
            if not (folder / RUN).exists() or not stale_because(folder, files):
                return None  # another process has set it aside
            number = 1
            while os.path.lexists(place := folder.parent / ASIDE / f"{folder.name}.{number}"):
                number += 1
            place.parent.mkdir(exist_ok=True)
            if not folder.is_symlink():
                return folder.rename(place)
            place.symlink_to(folder.resolve())  # a relative link would lead elsewhere from there
            folder.unlink()
            return place
    except FileNotFoundError:
        return None


def study_status(runs: Sequence[Run], root: Path, files: FileHashes) -> list[Status]:
    """The status of every run of the study in order, then of folders that are not (or no longer) in it."""
    found: dict[str, Status] = {}
    for run in runs:  # parents come first
        found[run.name] = status_of(run, root, files, found)
    return list(found.values()) + [
        Status(str(folder.relative_to(root)), "stale", why) for folder, why in left_over(runs, root)
    ]


def left_over(runs: Sequence[Run], root: Path) -> Iterator[tuple[Path, str]]:
    """Run folders that are not (or no longer) in the study, and why."""
    names, by_title = {run.name for run in runs}, {run.title: run for run in runs}
    for folder in run_folders(root):
        if folder.parent.name == ASIDE:
            yield folder, "set aside"
            continue
        if folder.name in names:
            continue
        try:
            old = RunFile.read(folder)
        except UsageError as error:
            yield folder, error.what
            continue
        new = by_title.get(old.title)
        if new is None:
            yield folder, "no longer in the study"
        else:
            yield folder, differences(old.ingredients, new.ingredients)


def run_folders(root: Path) -> list[Path]:
    """Every folder that contains a run, including those set aside."""
    found = (path.parent for place in (root, root / ASIDE) for path in place.glob(f"*/{RUN}"))
    return sorted(found, key=by_number)


def differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The first three differences between two runs' ingredients, as text."""
    before, after = dict(_leaves(old, ())), dict(_leaves(new, ()))
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    texts = [_difference(key, before.get(key), after.get(key)) for key in keys]
    texts = list(dict.fromkeys(texts))
    return "; ".join(texts[:3]) + ("; ..." if len(texts) > 3 else "")


def _leaves(tree: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, (*place, key))
    else:
        yield place, tree


def _difference(key: tuple[str, ...], before: Any, after: Any) -> str:
    if key[0] == "parents":
        return f"its {key[1]} changed"
    name = ".".join(key[1:] if key[0] == "settings" else key)
    if all(isinstance(value, str) and len(value) == 64 for value in (before, after)):
        return f"the file {name} changed"
    return f"{name} {json.dumps(before)} -> {json.dumps(after)}"


_RUN_NAME = re.compile(r".+-[0-9a-f]{10}(\.\d+)?")


def removable(runs: Sequence[Run], root: Path, files: FileHashes, *, everything: bool) -> list[Path]:
    """The folders and links that `clean` would delete: stale runs or all runs, but never a running one.

    All of them includes a folder that was never filled, and a link to nowhere.
    """
    if not everything:
        stale = [root / row.run for row in study_status(runs, root, files) if row.state == "stale"]
        return [folder for folder in stale if not is_busy(folder)]
    unfilled = [
        path
        for place in (root, root / ASIDE)
        for path in place.glob("*-*")
        if _RUN_NAME.fullmatch(path.name)
        and (path.is_symlink() if not path.exists() else {inner.name for inner in path.iterdir()} <= {LOCK})
    ]
    found = sorted({*run_folders(root), *unfilled}, key=by_number)
    return [folder for folder in found if not is_busy(folder)]


def remove(folders: Sequence[Path]) -> dict[Path, str]:
    """Delete run folders, each while it is locked; of a link only the link.

    Returns:
        The folders that remain, and why.
    """
    left: dict[Path, str] = {}
    for folder in folders:
        try:
            if not folder.exists():
                folder.unlink(missing_ok=True)  # a link to nowhere, or deleted meanwhile
                continue
            with locked(folder):
                if folder.is_symlink():
                    folder.unlink()
                else:
                    shutil.rmtree(folder)
        except FileNotFoundError:
            continue  # deleted meanwhile
        except LabError as error:
            left[folder] = error.what
        except OSError as error:
            left[folder] = error.strerror or str(error)
    return left


def write_listing(study: Study, runs: Sequence[Run], root: Path) -> Path:
    """Write ``study.json`` (`listing`)."""
    return write_json(root / "study.json", listing(study, runs, root))


def listing(study: Study, runs: Sequence[Run], root: Path) -> dict[str, Any]:
    """A study's settings, and its runs in the form that the report reads.

    `params` of a run is taken from the samples of its size, or from its size's reward models.
    """
    params: dict[str, Any] = {}
    for run in runs:
        if run.size and run.stage in ("sample", "reward") and run.size not in params:
            folder = root / run.name
            sampled = run.stage == "sample"
            found = (
                _first_tags(folder / "samples.jsonl") if sampled else read_note(folder / "evaluation.json")
            )
            params |= {run.size: found["params"]} if "params" in found else {}
    rows = [
        {
            "run": run.name,
            "folder": run.name,
            "stage": run.stage,
            "size": run.size,
            "seed": run.seed,
            "data_seed": run.data_seed,
            "variant": run.variant,
            "dataset": run.dataset,
            "params": params.get(run.size or ""),
            "parents": _parents(run, root),
            "key": run.key,
        }
        for run in runs
    ]
    return {"study": resolved(study), "runs": rows}


def _parents(run: Run, root: Path) -> dict[str, str]:
    """The run behind each input; of several candidates the chosen one, once that is known."""
    taken: dict[str, str] = {}
    if (root / run.name / RUN).exists():
        taken = {name: parent.run for name, parent in RunFile.read(root / run.name).parents.items()}
    return {name: source.runs[0].name for name, source in run.parents.items() if source.runs} | taken


def _first_tags(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as lines:
            tags: dict[str, Any] = json.loads(next(lines))["tags"]
            return tags
    except (OSError, StopIteration, ValueError, KeyError):
        return {}
