"""What has become of every run of a study, and why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
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
    done_digest,
    is_busy,
    last_error,
    locked,
    read_note,
    read_outputs,
)
from tldr.study.graph import Run
from tldr.study.hashes import FileHashes
from tldr.study.load import resolved
from tldr.study.settings import Study

State = Literal["done", "running", "failed", "stale", "waiting"]


@dataclass(frozen=True)
class Status:
    """One run's state; `progress` is the share of its work that is done, `seconds` what it took so far."""

    run: str
    state: State
    why: str = ""
    seconds: float | None = None
    progress: float | None = None


def status_of(name: str, root: Path, files: FileHashes) -> Status:
    """The state of one run of the study as it is now.

    Args:
        name: the run's folder in `root`.
    """
    folder = root / name
    if not (folder / RUN).exists():
        return Status(name, "waiting")
    seconds = read_note(folder / ENVIRONMENT).get("seconds")
    if (folder / DONE).exists():
        why = changed_since_done(folder, files)
        return Status(name, "stale" if why else "done", why, seconds, 1.0)
    note = read_note(folder / "progress.json")
    progress = note["done"] / note["total"] if note.get("total") else None
    if is_busy(folder):
        return Status(name, "running", "", note.get("seconds"), progress)
    if error := last_error(folder):
        return Status(name, "failed", error, seconds, progress)
    why = "interrupted, will go on" if (folder / "log.txt").exists() else ""
    return Status(name, "waiting", why, seconds, progress)


def changed_since_done(folder: Path, files: FileHashes) -> str:
    """Why a finished run is no longer what it was, or "": an output, or a parent, has changed."""
    try:
        for name, digest in read_outputs(folder).items():
            path = folder / name
            if not path.is_file():
                return f"{name} is gone since it was done"
            if files.file(path) != digest:
                return f"{name} changed since it was done"
        for name, parent in RunFile.read(folder).parents.items():
            if done_digest(folder.parent / parent.run) not in ("", parent.done):
                return f"its {name} was made anew since ({parent.run})"
    except LabError as error:
        return str(error).splitlines()[0]
    return ""


def study_status(runs: Sequence[Run], root: Path, files: FileHashes) -> list[Status]:
    """Every run of the study in order, then the stale ones: folders that it no longer asks for."""
    rows = [status_of(run.name, root, files) for run in runs]
    return rows + [Status(folder.name, "stale", why) for folder, why in left_over(runs, root)]


def left_over(runs: Sequence[Run], root: Path) -> Iterator[tuple[Path, str]]:
    """Run folders that are not in the study (any more), and why."""
    names, by_title = {run.name for run in runs}, {run.title: run for run in runs}
    for folder in run_folders(root):
        if folder.name in names:
            continue
        try:
            old = RunFile.read(folder)
        except UsageError as error:
            yield folder, error.what
            continue
        new = by_title.get(old.title)
        if new is None:
            yield folder, "not in the study any more"
        else:
            yield folder, differences(old.ingredients, new.ingredients)


def run_folders(root: Path) -> list[Path]:
    """Every folder that holds a run."""
    return sorted(path.parent for path in root.glob(f"*/{RUN}"))


def differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What sets two runs' ingredients apart, the first three things of it."""
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
    if key[0] == "code":
        return "the code changed"
    if key[0] == "parents":
        return f"its {key[1]} changed"
    name = ".".join(key[1:] if key[0] == "settings" else key)
    if all(isinstance(value, str) and len(value) == 64 for value in (before, after)):
        return f"the file {name} changed"
    return f"{name} {json.dumps(before)} -> {json.dumps(after)}"


def removable(runs: Sequence[Run], root: Path, files: FileHashes, *, everything: bool) -> list[Path]:
    """The folders that `clean` would remove: stale runs, or all; never one that is being run."""
    if everything:
        folders = run_folders(root)
    else:
        folders = [root / row.run for row in study_status(runs, root, files) if row.state == "stale"]
    return [folder for folder in folders if not is_busy(folder)]


def remove(folders: Sequence[Path]) -> None:
    """Remove run folders for good, each while it is locked.

    Raises:
        Busy: a process has begun work on one.
    """
    for folder in folders:
        with locked(folder):
            shutil.rmtree(folder)


def write_listing(study: Study, runs: Sequence[Run], root: Path) -> Path:
    """Write ``study.json``: the study's settings, and its runs as the report reads them.

    `params` of a run is what the samples of its size say.
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
    """The run behind each input: the one taken, once that is known."""
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
