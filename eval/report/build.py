"""A study's report: one self-contained page, its figures and its tables.

The page loads nothing (figures are data URIs), works in light and dark mode, and marks a synthetic
study as such. All text that came from posts, models or files is escaped.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from eval.common.beside import CommittedReport
from eval.common.paper import PAPER_FOLDER
from eval.common.runs import StudyRuns, load_runs
from eval.common.study import Picture, Section, StudyResults, Table
from eval.common.style import data_uri, save
from eval.common.tables import write_table
from eval.report.page import write_page
from eval.report.sections import SECTIONS, sections
from eval.report.viewer import build_viewer
from tldr.files import replacing

SYNTHETIC_NOTE = "Toy world: shapes, not numbers."
VERDICTS = {"reproduced": "good", "not reproduced": "bad", "not run here": "open"}
"""The mark of a claim's verdict, shown beside the word."""
_NUMBER = re.compile(r"[-+]?\d[\d.,]*(e[-+]?\d+)?[kMB]?( ?%)?( \[.*\])?")
_LONG, _LONGER = 28, 120
"""Cells with more characters may take several lines; the longest get a wider column."""


def build_report(
    runs: Path | StudyRuns,
    out: Path,
    *,
    title: str,
    description: str = "",
    synthetic: bool = False,
    draws: int = 2000,
    paper: Path = PAPER_FOLDER,
    judgements: Sequence[Path] = (),
    beside: Path | None = None,
) -> Path:
    """Write ``report.html``, ``samples.html``, ``claims.csv``, ``figures/`` and ``tables/``.

    Figures are PNG and SVG, tables CSV, Markdown and LaTeX.

    Args:
        out: the folder to write to.
        runs: a study's folder, or its runs (`eval.common.runs.load_runs`).
        synthetic: mark the study as synthetic; one whose samples carry planted (gold) scores is
            marked in any case.
        draws: bootstrap draws of each interval.
        paper: folder of the published numbers.
        judgements: files of verdicts for the sample viewer, beside ``judgements*.jsonl`` in the
            study's folder.
        beside: a committed report's folder, whose intervals this study's values are set beside.

    Returns:
        The path of ``report.html``.

    Raises:
        UsageError: no such folder, or `beside` has no tables of a report. RecordError: a broken file in it.
    """
    other = None if beside is None else CommittedReport(beside)
    study = StudyResults(runs if isinstance(runs, StudyRuns) else load_runs(runs), paper, draws, other)
    console = Console(stderr=True)
    done = track(
        sections(study),
        "report",
        total=len(SECTIONS),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    parts = [_rendered(section, out) for section in done]
    claims = out / "tables" / "claims.csv"
    if claims.is_file():
        with replacing(out / claims.name, durable=False) as partial:
            shutil.copyfile(claims, partial)  # readers look for this file first
    note = SYNTHETIC_NOTE if synthetic or study.planted else ""
    viewer = build_viewer(study, out, title=title, note=note, judgements=judgements)
    return write_page(
        out / "report.html",
        "report",
        ("report.js",),
        title=title,
        description=description,
        note=note,
        viewer=viewer.name if viewer else "",
        sections=parts,
        finished=sum(run.finished for run in study.runs.runs),
        total=len(study.runs.runs),
        posts=0 if study.samples is None else int(study.samples["id"].nunique()),
    )


def _rendered(section: Section, out: Path) -> dict[str, object]:
    """A section as the template takes it, its files written."""
    for table in section.tables:
        write_table(table.frame, table.shown, out / "tables", table.name)
    return {
        "id": section.id,
        "title": section.title,
        "intro": section.intro,
        "missing": " ".join(section.missing),
        "empty": not (section.pictures or section.tables),
        "pictures": [_picture(picture, out / "figures") for picture in section.pictures],
        "tables": [_table(table) for table in section.tables],
    }


def _picture(picture: Picture, folder: Path) -> dict[str, object]:
    """A figure, its files written; its size in CSS pixels keeps its place while it loads."""
    _, svg = save(picture.figure, folder, picture.name)
    width, height = (round(96 * inches) for inches in picture.figure.get_size_inches())
    shown = {"name": picture.name, "caption": picture.caption, "uri": data_uri(svg)}
    return shown | {"width": width, "height": height}


def _table(table: Table) -> dict[str, object]:
    texts = [[_text(value) for value in row] for row in table.shown.itertuples(index=False)]
    numeric = [
        any(column) and all(_NUMBER.fullmatch(text) for text in column if text)
        for column in zip(*texts, strict=True)
    ] or [False] * table.shown.shape[1]
    columns = [
        {"name": str(name).replace("_", " "), "numeric": number}
        for name, number in zip(table.shown.columns, numeric, strict=True)
    ]
    rows = [[_cell(text, number) for text, number in zip(row, numeric, strict=True)] for row in texts]
    return {"name": table.name, "caption": table.caption, "columns": columns, "rows": rows}


def _cell(text: str, number: bool) -> dict[str, str]:
    size = len(text)
    kind = "number" if number else "longer" if size > _LONGER else "long" if size > _LONG else ""
    return {"text": text, "kind": kind, "verdict": VERDICTS.get(text, "")}


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
