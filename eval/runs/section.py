"""Where the numbers come from: the runs, the files they wrote, and the code and machines they ran on."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from eval.common.rows import settings_of
from eval.common.runs import StudyRun
from eval.common.study import Section, StudyResults, Table, plain_table, without
from eval.runs.epochs import epochs_table
from tldr.errors import RecordError

SHORT = 10
"""Characters of a hash shown on the page; the CSV files hold all of them."""


def runs_section(study: StudyResults) -> Section:
    """Every run of the study with its key, the hashes of its outputs, and the versions it ran under."""
    section = Section("runs", "Runs", "The runs that the numbers above were computed from.")
    runs = study.runs.runs
    if not runs:
        return without(section)
    made = {run.run: run.json("environment.json") or {} for run in runs}
    section.tables.append(
        _hashed("runs", [_run_row(run, made[run.run]) for run in runs], ["key"], "Runs of the study.")
    )
    if tried := tried_rows(study):
        caption = (
            "Of several learning rates (`lr_factors`) and reward models (`seeds`) of a size and cell the "
            "best on valid1 is used: the supervised policy with the lowest loss, the reward model with the "
            "highest accuracy."
        )
        section.tables.append(plain_table("tried", pd.DataFrame(tried), caption))
    if len(epochs := epochs_table(study)):
        caption = (
            "Epochs of SFT (`sft.select: reward`): the loss on the references of valid1, and the mean "
            "reward, ROUGE and, in the toy world, planted truth of a summary of each post of valid1, with "
            "95 % intervals over posts. The epoch with the highest reward is used."
        )
        section.tables.append(plain_table("epochs", epochs, caption))
    versions = [_versions(made[run.run]) for run in runs if made[run.run]]
    if versions:
        table = pd.DataFrame(versions).fillna("")
        counted = table.groupby(list(table.columns), sort=False).size().rename("runs").reset_index()
        section.tables.append(
            _hashed(
                "versions", counted.to_dict("records"), ["git"], "Code, libraries and machines of the runs."
            )
        )
    outputs = [row for run in runs for row in _output_rows(run)]
    if outputs:
        section.tables.append(
            _hashed("outputs", outputs, ["sha256"], "The files that the runs wrote, with their hashes.")
        )
    return section


TRIED = re.compile(r"(r\d+)?-?(rm\d+)?-?(lr[\d.e+-]+)?")
"""Variants that are a stage of the main line, or of an earlier round, tried again (`tldr.study.graph`)."""


def tried_rows(study: StudyResults) -> list[dict[str, object]]:
    """Every supervised policy and reward model of which several were tried, and which one others were made
    from."""
    figures = {"sft": "valid1_loss", "reward": "valid1_accuracy"}
    used = {parent for run in study.runs.runs for parent in run.parents.values()}
    groups: dict[tuple[str, ...], list[StudyRun]] = {}
    for run in study.runs.runs:
        found = TRIED.fullmatch(run.variant) if run.stage in figures and run.finished else None
        if found:
            groups.setdefault((run.stage, run.size, run.cell, found[1] or ""), []).append(run)
    return [
        {
            "stage": run.stage,
            "size": run.size,
            "cell": run.cell,
            "variant": run.variant,
            "learning rate": settings_of(run).get("optimizer", {}).get("lr", ""),
            "on valid1": (run.json("evaluation.json") or {}).get(figures[run.stage], ""),
            "used": "yes" if run.run in used else "",
        }
        for members in groups.values()
        if len({run.variant for run in members}) > 1
        for run in members
    ]


def _run_row(run: StudyRun, made: dict[str, Any]) -> dict[str, object]:
    return {
        "run": run.run,
        "stage": run.stage,
        "size": run.size,
        "seed": "" if run.seed is None else run.seed,
        **({} if run.data_seed is None else {"data seed": run.data_seed}),
        "variant": run.variant,
        "state": run.state,
        "seconds": made.get("seconds", ""),
        "key": run.key,
        "made from": " ".join(run.parents.values()),
    }


def _versions(made: dict[str, Any]) -> dict[str, str]:
    """Code, libraries and machine of one run, as its ``environment.json`` tells them."""
    packages = made.get("packages")
    told = made | (packages if isinstance(packages, dict) else {})
    unlike = ("packages", "seconds", "started")
    return {name: str(value) for name, value in told.items() if name not in unlike and value is not None}


def _output_rows(run: StudyRun) -> list[dict[str, str]]:
    mark = run.folder / "DONE"
    if not mark.is_file() or not mark.stat().st_size:  # A mark set by hand is empty.
        return []
    outputs = (run.json(mark.name) or {}).get("outputs", {})
    if not isinstance(outputs, dict):
        raise RecordError("its outputs are not a map of files to hashes", where=mark)
    return [{"run": run.run, "file": name, "sha256": str(digest)} for name, digest in sorted(outputs.items())]


def _hashed(name: str, rows: list[Any], hashes: list[str], caption: str) -> Table:
    """A table with whole hashes in its files and short ones on the page."""
    table = plain_table(name, pd.DataFrame(rows), caption)
    shown = table.frame.copy()
    for column in set(hashes) & set(shown.columns):
        shown[column] = shown[column].map(_short)
    return Table(name, table.frame, caption, shown)


def _short(digest: str) -> str:
    """``462439b075-dirty`` of a commit that was changed; the start of any other hash."""
    return digest[:SHORT] + ("-dirty" if digest.endswith("-dirty") else "")
