"""``tldr-lab`` and all its commands. torch is imported only when a stage needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tldr.cli.bench import bench
from tldr.cli.data import add_data_commands
from tldr.cli.doctor import doctor
from tldr.cli.evaluate import agreement, evaluate
from tldr.cli.judge import judge
from tldr.cli.label import label_app
from tldr.cli.model import import_gguf
from tldr.cli.plan import plan
from tldr.cli.reporting import reports_errors
from tldr.cli.stages import add_stages, data_app
from tldr.cli.study import compare, pool, report, study_app
from tldr.cli.submit import job

app = typer.Typer(
    help="Learning to summarize from human feedback: run a study, a single stage, or the report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(study_app, name="study")
app.add_typer(data_app, name="data")
app.add_typer(label_app, name="label")
add_data_commands(data_app)
add_stages(app)
app.command("import-gguf")(reports_errors(import_gguf))
app.command("plan")(reports_errors(plan))
app.command("bench")(reports_errors(bench))
app.command("doctor")(reports_errors(doctor))
app.command("report")(reports_errors(report))
app.command("compare")(reports_errors(compare))
app.command("pool")(reports_errors(pool))
app.command("evaluate")(reports_errors(evaluate))
app.command("agreement")(reports_errors(agreement))
app.command("judge")(reports_errors(judge))
app.command("_job", hidden=True)(job)


@app.command("_run", hidden=True)
@reports_errors
def run_folder(folder: Annotated[Path, typer.Argument(help="A run's folder.")]) -> None:
    """Execute the run described by a folder's run.json."""
    from tldr.study.folder import check_code, execute

    check_code(folder)
    execute(folder)


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="tldr-lab")
