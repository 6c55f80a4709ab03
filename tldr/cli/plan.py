"""``plan``: predict a study's memory, time and price on a machine; show what finished runs took."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tldr.cli.study import RUNS, Config, Overrides, RunsDir
from tldr.study.load import load_study

if TYPE_CHECKING:
    from tldr.plan.actual import Actual
    from tldr.plan.figures import FigurePlan
    from tldr.plan.judging import JudgingPlan
    from tldr.plan.labeling import LabelingPlan
    from tldr.plan.study import Machine, RunPlan

GIB = 2**30


def plan(
    config: Config,
    overrides: Overrides = [],  # noqa: B006
    gpu: Annotated[str, typer.Option(help="Name of a device in the table of devices.")] = "h100-80gb",
    gpus: Annotated[int, typer.Option(min=1, help="Number of devices.")] = 1,
    rate: Annotated[float | None, typer.Option(help="Price of one device per hour.")] = None,
    utilisation: Annotated[
        float | None,
        typer.Option(min=0.01, max=1.0, help="Fraction of peak speed reached in training and scoring."),
    ] = None,
    placement: Annotated[
        str, typer.Option(help="ddp, fsdp2 or zero2.", show_default="the first that fits")
    ] = "",
    only: Annotated[str, typer.Option("--only", metavar="STAGE", help="Plan only this stage.")] = "",
    table: Annotated[
        Path | None,
        typer.Option(help="Your own table of devices and assumptions.", show_default="built in"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of tables.")] = False,
    runs_dir: RunsDir = RUNS,
) -> None:
    """Predict what a study needs: parameters, memory by part, micro-batch, hours, price, hours of labeling.

    For finished runs, the actual time and memory are shown beside the plan.
    """
    from tldr.plan.actual import actual
    from tldr.plan.figures import figure_plans, not_asked_for
    from tldr.plan.hardware import device_named, hardware
    from tldr.plan.judging import judging_plans
    from tldr.plan.labeling import labeling_plans
    from tldr.plan.study import Machine, Planner, placement_named

    found = hardware(table) if table else hardware()
    assumed = found.assumed
    if utilisation is not None:
        assumed = assumed.model_copy(update={"training": utilisation, "scoring": utilisation})
    study = load_study(config, overrides)
    machine = Machine(device_named(gpu, found), gpu, gpus, placement_named(placement), rate)
    planner = Planner(study, machine, assumed)
    plans = planner.plan(only or None)
    took = {run_plan.title: actual(run_plan, runs_dir / study.name) for run_plan in plans}
    left_out = not_asked_for(study, planner.runs)
    labeling = labeling_plans(study, runs_dir / study.name) if only in ("", "labels") else []
    judging = judging_plans(planner) if only in ("", "judge") else []
    if as_json:
        rows = [one.row() | {"actual": [vars(run) for run in took[one.title]]} for one in plans]
        whole: dict[str, Any] = {"study": study.name, "gpu": gpu, "gpus": gpus, "runs": rows}
        whole["figures"] = [part.row() for part in figure_plans(plans, study)]
        whole["not_asked_for"] = left_out
        whole |= {"labeling": [one.row() for one in labeling]} if labeling else {}
        whole |= {"judging": [one.row() for one in judging]} if judging else {}
        typer.echo(json.dumps(whole, indent=2))
        return
    console = Console()
    if not console.is_terminal:
        console.width = 220
    console.print(_memory_table(plans, machine))
    console.print(_hours_table(plans, machine))
    console.print(_figures_table(figure_plans(plans, study), machine))
    for part, setting in left_out.items():
        console.print(f"Not asked for: {part} ({setting})", highlight=False, soft_wrap=True)
    if labeling:
        console.print(_labeling_table(labeling))
    if judging:
        console.print(_judging_table(judging))
    for one in (one for one in plans if not one.fits):
        console.print(f"{one.title} does not fit; try, in this order: {', '.join(one.suggestion)}")
    if any(took.values()):
        console.print(_actual_table(plans, took))


def _memory_table(plans: list[RunPlan], machine: Machine) -> Table:
    parts = list(dict.fromkeys(part for run_plan in plans for part in run_plan.memory.parts))
    columns = ["run", "parameters", "loaded", "placement", "micro-batch", "largest", *parts, "peak", "fits"]
    table = Table(*columns, box=None, pad_edge=False, title_justify="left")
    unit, name = _unit(plans)
    room = machine.device.memory * GIB / unit
    table.title = f"Peak {name} per device, of {room:,.0f} ({machine.gpus} x {machine.name})"
    for run_plan in plans:
        sizes = [f"{run_plan.memory.parts.get(part, 0) / unit:.1f}" for part in parts]
        table.add_row(
            run_plan.title,
            f"{run_plan.job.trained:,}" if run_plan.job.trained else "-",
            f"{run_plan.job.loaded:,}",
            run_plan.options.placement + (", checkpointing" if run_plan.options.checkpointing else ""),
            str(run_plan.micro_batch),
            "-" if run_plan.largest is None else str(run_plan.largest or "none"),
            *sizes,
            f"{run_plan.memory.total / unit:.1f} ({run_plan.memory.phase})",
            "[green]yes[/]" if run_plan.fits else "[red]no[/]",
        )
    return table


def _unit(plans: list[RunPlan]) -> tuple[int, str]:
    """The unit of memory: MiB for toy models, otherwise GiB."""
    return (
        (GIB, "GiB")
        if max((run_plan.memory.total for run_plan in plans), default=0) >= GIB
        else (2**20, "MiB")
    )


def _time(hours: float) -> str:
    """A time in seconds, minutes or hours, whichever is most readable."""
    seconds = 3600 * hours
    return f"{seconds:.1f} s" if seconds < 100 else f"{60 * hours:.1f} min" if hours < 2 else f"{hours:.1f} h"


def _speed(tokens_per_s: float) -> str:
    """Tokens per second in training; "-" for a stage that does not train."""
    return f"{tokens_per_s:,.0f}" if tokens_per_s else "-"


def _hours_table(plans: list[RunPlan], machine: Machine) -> Table:
    priced = machine.rate is not None
    table = Table("run", "runs", "FLOPs", "tokens/s", "time", "of all runs", *(["price"] if priced else []))
    table.box, table.pad_edge, table.title_justify = None, False, "left"
    table.title = "Time, with runs one after the other"
    for run_plan in plans:
        count = len(run_plan.runs)
        price = [f"{run_plan.price * count:,.0f}"] if run_plan.price is not None else []
        speed = _speed(run_plan.tokens_per_s)
        table.add_row(
            run_plan.title,
            str(count),
            f"{run_plan.cost.flops:.2e}",
            speed,
            _time(run_plan.hours),
            _time(run_plan.hours * count),
            *price,
        )
    hours = sum(run_plan.hours * len(run_plan.runs) for run_plan in plans)
    total = f"{_time(hours)}, {hours * machine.gpus / 24:.1f} device-days"
    if priced:
        total += f", {sum((run_plan.price or 0) * len(run_plan.runs) for run_plan in plans):,.0f} in price"
    table.caption, table.caption_justify = total, "left"
    return table


def _figures_table(parts: list[FigurePlan], machine: Machine) -> Table:
    columns = ["part", "runs", "time", "device hours", *(["price"] if machine.rate is not None else [])]
    table = Table(*columns, "also needs", "asked for by", box=None, pad_edge=False, title_justify="left")
    table.title = "By figure of the paper: what each part costs beyond what it needs"
    for part in parts:
        table.add_row(
            part.figure,
            str(part.runs),
            _time(part.hours),
            f"{part.hours * machine.gpus:,.1f}",
            *([f"{part.price:,.0f}"] if part.price is not None else []),
            "; ".join(part.needs),
            ", ".join(part.settings),
        )
    return table


def _judging_table(judging: list[JudgingPlan]) -> Table:
    table = Table("run", "model", "questions", "tokens each", "dollars", "max_cost", box=None, pad_edge=False)
    table.title, table.title_justify = "Judging by language models, at most", "left"
    for plan in judging:
        limit = "-" if plan.limit is None else f"{plan.limit:g}"
        cost, asked = f"{plan.dollars:,.2f}", f"{plan.questions:,}"
        table.add_row(plan.title, plan.model, asked, f"{plan.prompt_tokens:,}", cost, limit)
    table.caption = f"{sum(plan.dollars for plan in judging):,.2f} dollars"
    return table


def _labeling_table(labeling: list[LabelingPlan]) -> Table:
    table = Table("run", "labels", "seconds a label", "hours", "", box=None, pad_edge=False)
    table.title, table.title_justify = "Labeling by people, all labelers together", "left"
    for plan in labeling:
        table.add_row(plan.title, f"{plan.labels:,}", f"{plan.seconds:.0f}", f"{plan.hours:.1f}", plan.basis)
    table.caption = f"{sum(plan.hours for plan in labeling):.1f} hours of labeling"
    table.caption_justify = "left"
    return table


def _actual_table(plans: list[RunPlan], took: dict[str, list[Actual]]) -> Table:
    unit, name = _unit(plans)
    names = [
        "run",
        "planned time",
        "took",
        "planned tokens/s",
        "reached",
        f"planned {name}",
        f"peak {name}",
        "device",
    ]
    table = Table(*names, box=None, pad_edge=False, title="Plan and finished runs", title_justify="left")
    for run_plan in plans:
        for run in took[run_plan.title]:
            table.add_row(
                run.run,
                _time(run_plan.hours),
                _time(run.hours),
                _speed(run_plan.tokens_per_s),
                _speed(run.tokens_per_s),
                f"{run_plan.memory.total / unit:.1f}",
                "-" if run.peak_bytes is None else f"{run.peak_bytes / unit:.1f}",
                run.device,
            )
    return table
