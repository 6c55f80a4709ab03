"""The display of a running study: progress of each active run, and one line per finished run."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from tldr.study.folder import read_note
from tldr.study.runs import Run
from tldr.train.metrics import MetricsRow, read_metrics

HEADLINES = {
    "pretrain": ("metrics.jsonl", ("loss",)),
    "sft": ("metrics.jsonl", ("valid_loss",)),
    "reward": ("evaluation.json", ("valid1_accuracy",)),
    "epoch": ("evaluation.json", ("epoch",)),
    "ppo": ("metrics.jsonl", ("score", "kl")),
}
"""The file and the figures that summarise the result of a stage."""


class Display:
    """Shows active runs as progress bars on a terminal, and as plain lines elsewhere."""

    def __init__(self, console: Console, total: int):
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._all = self._progress.add_task("[bold]study", total=total, note=f"0/{total} runs")
        self._total, self._finished = total, 0
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, text: str, style: str = "") -> None:
        """Print a line above the bars."""
        self._console.print(Text(text, style), soft_wrap=True)

    def started(self, run: Run) -> None:
        """Show that a run has started."""
        self._tasks[run.name] = self._progress.add_task(run.title, total=None, note="")
        if not self._console.is_terminal:
            self.say(f"started  {run.name}")

    def refresh(self, name: str, folder: Path) -> None:
        """Show a run's progress."""
        note = read_note(folder / "progress.json")
        if note.get("total"):
            shown = f"{note['done']}/{note['total']}  {clock(note.get('eta'))} left"
            if note.get("loss") is not None:
                shown += f"  loss {note['loss']:.4g}"
            self._progress.update(self._tasks[name], total=note["total"], completed=note["done"], note=shown)

    def stopped(self, run: Run) -> None:
        """Remove a run that is no longer active."""
        if run.name in self._tasks:
            self._progress.remove_task(self._tasks.pop(run.name))

    def counted(self, finished: int) -> None:
        """Show how many runs of the study are done."""
        self._finished = finished
        self._progress.update(self._all, completed=finished, note=f"{finished}/{self._total} runs")


def clock(seconds: float | None) -> str:
    """``1:02:03``, ``2:03``; ``-`` for an unknown time."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def headline(folder: Path, stage: str) -> str:
    """The figures that summarise a finished run: ``valid1_accuracy 0.731``."""
    name, figures = HEADLINES.get(stage, ("", ()))
    if not name or not (folder / name).is_file():
        return ""
    row = read_note(folder / name) if name.endswith(".json") else _last_row(folder / name)
    return ", ".join(f"{name} {row[name]:.4g}" for name in figures if isinstance(row.get(name), int | float))


def _last_row(path: Path) -> MetricsRow:
    rows = read_metrics(path)
    return rows[-1] if rows else {}
