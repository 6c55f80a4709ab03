"""Adopt finished runs of another code version that is known to write the same bytes.

A run's name depends on its settings, seed and inputs. It used to depend on the code too, so older runs have
other names. For each run of a study, `adopt` finds a finished run with the same title, settings and parents
and copies it to its current name: weights are linked, and old names in texts are replaced. What people have
labeled for a run comes along, also if the run still waits for more. The old folders do not change.

`PROVEN` makes this safe: it lists the code versions whose outputs were compared file by file with today's
(`tests/golden`). For any other code the user has to vouch.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tldr.errors import LabError, UsageError
from tldr.files import distinct, files_below, replacing
from tldr.label.batch import labeling_folder
from tldr.records import write_json
from tldr.settings.base import Settings
from tldr.study.folder import CONFIG, DONE, ENVIRONMENT, LOG, RUN, RunFile, locked, read_note, read_outputs
from tldr.study.hashes import FileHashes, changed_code
from tldr.study.people import asks_people, take_labeling
from tldr.study.prepare import describe
from tldr.study.runs import Run
from tldr.study.settings import Study

PROVEN = {"data": "d3da65446eddc05bc8e706111278f6cd0270a50376e84c7a1cbc31a9654d42da"}
"""Stage -> its code version at commit 9203cae, the last one whose run names depended on the code. Runs with a
network are not among them: pad and ids without a token are masked in all logits since then,
which changes their bits."""
BESIDE = (ENVIRONMENT, CONFIG, LOG, "metrics.jsonl", "progress.json")
"""Further files of a run's folder that are copied with its outputs."""


@dataclass(frozen=True)
class FormerRun:
    """A run of any code version.

    Attributes:
        note: its ``run.json``, in the format of any version.
    """

    folder: Path
    note: Mapping[str, Any]

    @property
    def code(self) -> Any:
        """The version of the code that made it: a hash (older runs), or module -> hash."""
        return self.note.get("ingredients", {}).get("code") or self.note.get("code") or ""

    @property
    def finished(self) -> bool:
        """Whether its outputs are there."""
        return (self.folder / DONE).exists()

    @property
    def labeling(self) -> Path:
        """Where people label for it, if they do."""
        return labeling_folder(self.folder.parent, self.folder.name)


@dataclass
class Adoption:
    """The result of `adopt`: old name -> new name, and why others were not adopted (title -> reason)."""

    names: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


def adopt(study: Study, runs: Sequence[Run], root: Path, source: Path, *, vouch: bool = False) -> Adoption:
    """Adopt all of a study's runs for which a matching finished run exists.

    Args:
        root: the study's folder.
        source: the folder with the runs to adopt; it may be `root` itself.
        vouch: adopt runs of any code; the user guarantees that its outputs are equal.

    Raises:
        LabError: an output of a run to adopt has changed since it was written.
    """
    former: dict[str, list[FormerRun]] = {}
    for path in sorted(source.glob(f"*/{RUN}")):
        note = read_note(path)
        candidate = FormerRun(path.parent, note)
        if note.get("title") and (candidate.finished or candidate.labeling.exists()):
            former.setdefault(note["title"], []).append(candidate)
    found, names = Adoption(), dict[str, str]()
    for run in runs:
        if (root / run.name / DONE).exists():
            there = RunFile.read(root / run.name)
            names[there.adopted.get("run", run.name)] = run.name
            if not (there.code and changed_code(there.code, there.code_now())):
                continue
        reasons = []
        for candidate in sorted(former.get(run.title, []), key=lambda each: not each.finished):
            reason = differs(candidate, run, names, vouch=vouch) or _take_labels(candidate, run, root)
            if not reason:
                names[candidate.folder.name] = found.names[candidate.folder.name] = run.name
                _take(candidate, run, study, root, names)
                break
            reasons.append(f"{candidate.folder.name}: {reason}")
        else:
            found.left[run.title] = "; ".join(reasons) or f"no finished run with this title in {source}"
    return found


def differs(candidate: FormerRun, run: Run, names: Mapping[str, str], *, vouch: bool) -> str:
    """The reason why a former run is not this run of the study, or "".

    Args:
        names: the runs adopted so far, old name -> new name.
    """
    before: dict[str, Any] = candidate.note["ingredients"]
    if not vouch and candidate.code != PROVEN.get(run.stage):
        return "its code is not known to write the same outputs (--vouch adopts it anyway)"
    for name, value in run.ingredients.items():
        if name == "settings":
            if reason := _other_settings(before.get(name, {}), value, type(run.settings)):
                return reason
        elif name != "parents" and before.get(name) != value:
            return f"{name} {json.dumps(before.get(name))} -> {json.dumps(value)}"
    for name, source in run.parents.items():
        if source.runs:
            old = candidate.note["parents"].get(name, {}).get("run", "")
            if names.get(old, old) not in {parent.name for parent in source.runs}:
                return f"its {name} was {old or 'another run'}, which was not adopted"
        elif before.get("parents", {}).get(name) != source.identity:
            return f"its {name} was different"
    return ""


def _take_labels(candidate: FormerRun, run: Run, root: Path) -> str:
    """Copy what people have labeled for a former run; the reason why the run itself is not adopted, or ""."""
    if not asks_people(run):
        return ""
    folder = labeling_folder(root, run.name)
    if not take_labeling(candidate.labeling, folder):
        return f"people have labeled in {folder}; to adopt these labels instead, move that folder away"
    return "" if candidate.finished else f"it waits for people; their labels so far are in {folder}"


def _other_settings(before: Mapping[str, Any], now: Mapping[str, Any], kind: type[Settings]) -> str:
    """The setting that differs, or ""; a setting that did not exist then must have its default."""
    default = {name: info.get_default(call_default_factory=True) for name, info in kind.model_fields.items()}
    # A newer setting at its default is not in `now`, but the former run may have had another value.
    for name, value in ({newer: default[newer] for newer in kind.newer} | dict(now)).items():
        known = before[name] if name in before else json.loads(json.dumps(default[name], default=_plain))
        if known != value:
            return f"{name} {json.dumps(known)} -> {json.dumps(value)}"
    return ""


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, Settings) else str(value)


def _take(candidate: FormerRun, run: Run, study: Study, root: Path, names: Mapping[str, str]) -> None:
    """Write the run's folder: outputs with the new names, and a current ``run.json``."""
    folder, old = root / run.name, candidate.folder
    outputs = read_outputs(old)
    hashes = FileHashes()
    if changed := [name for name, digest in outputs.items() if hashes.file(old / name) != digest]:
        raise LabError(
            "changed since the run finished", where=old / changed[0], remedy="move that run out of the folder"
        )
    spec = describe(run, study, root).model_copy(
        update={"adopted": {"run": old.name, "code": json.dumps(candidate.code)[:80]}}
    )
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if old.resolve() != folder.resolve():
            for name in [*outputs, *(name for name in BESIDE if (old / name).exists())]:
                _write(old / name, folder / name, names)
            digests = {name: hashes.file(folder / name) for name in outputs}
            write_json(folder / DONE, {"outputs": digests})
        spec.write(folder)


def _write(source: Path, target: Path, names: Mapping[str, str]) -> None:
    """Link a file of weights; copy any other file with the old names replaced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if source.suffix == ".safetensors":
        try:
            os.link(source, target)
        except OSError:  # another file system
            shutil.copy2(source, target)
        return
    with replacing(target) as partial:
        partial.write_bytes(renamed(source.read_bytes(), names))


def renamed(text: bytes, names: Mapping[str, str]) -> bytes:
    """The text with every old name replaced by its new name."""
    if not names:
        return text
    pattern = b"|".join(re.escape(name.encode()) for name in sorted(names, key=len, reverse=True))
    return re.sub(pattern, lambda match: names[match[0].decode()].encode(), text)


def rename_results(runs: Sequence[Run], folder: Path) -> dict[str, str]:
    """Replace old run names by current ones in a results folder's tables.

    A result contains a run's title and the start of its key, ``ppo-s-s0-0123456789``; the list of runs also
    has the whole key. Both are replaced if the study has a run with that title.

    Returns:
        old name -> new name.

    Raises:
        UsageError: the folder contains no table.
    """
    by_title = {run.title: run for run in runs}
    files = [path for path in distinct(files_below(folder)) if path.suffix in (".csv", ".md")]
    if not files:
        raise UsageError("contains no tables", where=folder, remedy="give a folder written by `report`")
    names: dict[str, str] = {}
    for path in files:
        for title, key in _named_in(path.read_text(encoding="utf-8")):
            if title in by_title and f"{title}-{key}" != by_title[title].name:
                names[f"{title}-{key}"] = by_title[title].name
    for path in files:
        text = path.read_bytes()
        new = _with_keys(renamed(text, names), by_title)
        if new != text:
            with replacing(path) as partial:
                partial.write_bytes(new)
    return names


def _named_in(text: str) -> Iterator[tuple[str, str]]:
    for match in re.finditer(r"\b([a-z_]+(?:-[\w.]+)*?)-([0-9a-f]{10})\b", text):
        yield match[1], match[2]


def _with_keys(text: bytes, by_title: Mapping[str, Run]) -> bytes:
    """Replace whole keys in rows that begin with a run's name."""
    keys = {run.name.encode(): run.key.encode() for run in by_title.values()}
    lines = []
    for line in text.split(b"\n"):
        name = re.match(rb"\|? ?([\w.-]+-[0-9a-f]{10})\b", line)
        if name and name[1] in keys:
            line = re.sub(rb"\b[0-9a-f]{64}\b", keys[name[1]], line)
        lines.append(line)
    return b"\n".join(lines)
