"""A study's report: one self-contained page, its figures and its tables.

The page loads nothing from anywhere (figures are data URIs), reads in light and dark, and shows a
synthetic study for what it is. All text that came from posts, models or files is escaped.
"""

from __future__ import annotations

import math
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from pandas.api.types import is_numeric_dtype
from rich.console import Console
from rich.progress import track

from eval.paper import PAPER_FOLDER
from eval.runs import load_runs
from eval.sections import SECTIONS, sections
from eval.sections.base import Section, Study, Table
from eval.style import data_uri, save
from eval.tables import write_table

SYNTHETIC_NOTE = "Toy world: shapes, not numbers."


def build_report(
    runs_dir: Path,
    out: Path,
    *,
    title: str,
    description: str = "",
    synthetic: bool = False,
    draws: int = 2000,
    paper: Path = PAPER_FOLDER,
) -> Path:
    """Write ``report.html``, ``figures/*.{png,svg}`` and ``tables/*.{csv,md,tex}`` under `out`.

    Args:
        runs_dir: a study's folder (`eval.runs.load_runs`).
        synthetic: mark the study as synthetic; one whose samples carry planted (gold) scores is
            marked in any case.
        draws: bootstrap draws of each interval.
        paper: folder of the published numbers.

    Returns:
        The path of ``report.html``.

    Raises:
        UsageError: no such folder. RecordError: a file in it that is broken.
    """
    study = Study(load_runs(Path(runs_dir)), paper, draws)
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
    environment = Environment(
        loader=PackageLoader("eval", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        title=title,
        description=description,
        note=SYNTHETIC_NOTE if synthetic or study.planted else "",
        sections=parts,
        finished=sum(run.finished for run in study.runs.runs),
        total=len(study.runs.runs),
        posts=0 if study.samples is None else int(study.samples["id"].nunique()),
    )
    out.mkdir(parents=True, exist_ok=True)
    path = out / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _rendered(section: Section, out: Path) -> dict[str, object]:
    """A section as the template takes it, its files written."""
    pictures = []
    for picture in section.pictures:
        _, svg = save(picture.figure, out / "figures", picture.name)
        pictures.append({"name": picture.name, "uri": data_uri(svg), "caption": picture.caption})
    for table in section.tables:
        write_table(table.frame, table.shown, out / "tables", table.name)
    return {
        "id": section.id,
        "title": section.title,
        "intro": section.intro,
        "missing": section.missing,
        "pictures": pictures,
        "tables": [_table(table) for table in section.tables],
    }


def _table(table: Table) -> dict[str, object]:
    return {
        "name": table.name,
        "caption": table.caption,
        "columns": [str(name).replace("_", " ") for name in table.shown.columns],
        "numeric": [bool(is_numeric_dtype(column)) for _, column in table.shown.items()],
        "rows": [[_cell(value) for value in row] for row in table.shown.itertuples(index=False)],
    }


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
