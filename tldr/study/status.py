"""The state of every run of a study, with the reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tldr.errors import LabError, UsageError
from tldr.records import write_json
from tldr.study.folder import (
    DONE,
    ENVIRONMENT,
    RUN,
    RunFile,
    is_busy,
    last_error,
    locked,
    outputs_digest,
    read_note,
    read_outputs,
)
from tldr.study.hashes import FileHashes, changed_code
from tldr.study.load import resolved
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
    if is_busy(folder):
        return Status(run.name, "running", "", note.get("seconds"), progress)
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
    with locked(folder):
        if not stale_because(folder, files):
            return None
        number = 1
        while (place := folder.parent / ASIDE / f"{folder.name}.{number}").exists():
            number += 1
        place.parent.mkdir(exist_ok=True)
        return folder.rename(place)


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
    return sorted(path.parent for place in (root, root / ASIDE) for path in place.glob(f"*/{RUN}"))


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


def removable(runs: Sequence[Run], root: Path, files: FileHashes, *, everything: bool) -> list[Path]:
    """The folders that `clean` would delete: stale runs or all runs, but never a running one."""
    if everything:
        folders = run_folders(root)
    else:
        folders = [root / row.run for row in study_status(runs, root, files) if row.state == "stale"]
    return [folder for folder in folders if not is_busy(folder)]


def remove(folders: Sequence[Path]) -> None:
    """Delete run folders, each while it is locked.

    Raises:
        Busy: a process has started to execute one.
    """
    for folder in folders:
        with locked(folder):
            shutil.rmtree(folder)


def write_listing(study: Study, runs: Sequence[Run], root: Path) -> Path:
    """Write ``study.json``: the study's settings, and its runs in the form that the report reads.

    `params` of a run is taken from the samples of its size.
    """
    params: dict[str, Any] = {}
    for run in runs:
        if run.size and run.stage == "sample" and run.size not in params:
            tags = _first_tags(root / run.name / "samples.jsonl")
            params |= {run.size: tags["params"]} if "params" in tags else {}
    rows = [
        {
            "run": run.name,
            "folder": run.name,
            "stage": run.stage,
            "size": run.size,
            "seed": run.seed,
            "variant": run.variant,
            "dataset": run.dataset,
            "params": params.get(run.size or ""),
            "parents": _parents(run, root),
            "key": run.key,
        }
        for run in runs
    ]
    return write_json(root / "study.json", {"study": resolved(study), "runs": rows})


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
