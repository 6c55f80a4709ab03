"""Prepare a run: its folder, locked, with a ``run.json`` that says everything its process needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tldr.errors import LabError
from tldr.study.folder import ParentRun, RunFile, locked, outputs_digest, read_note
from tldr.study.hashes import code_of
from tldr.study.registry import STAGES
from tldr.study.runs import Run
from tldr.study.settings import Study
from tldr.toy.settings import ToyData


def describe(run: Run, study: Study, root: Path) -> RunFile:
    """The ``run.json`` of a run whose parents are done; of several that were tried the best is used.

    Raises:
        LabError: one of several has no figure to choose by.
    """
    toy = isinstance(study.data, ToyData)
    taken = {name: _choose(source.runs, root) for name, source in run.parents.items() if source.runs}
    digests = {name: outputs_digest(root / parent.name) for name, parent in taken.items()}
    settings = run.settings.model_dump(mode="json")
    return RunFile(
        stage=run.stage,
        settings=settings,
        study=study.name,
        run=run.name,
        title=run.title,
        size=run.size,
        seed=run.seed,
        draw=(run.seed or 0) + run.offset,
        model=run.model,
        lengths=study.lengths,
        precision=study.precision,
        threads=study.threads,
        tags=run.tags,
        inputs={name: source.external for name, source in run.parents.items() if not source.runs},
        parents={name: ParentRun(run=parent.name, outputs=digests[name]) for name, parent in taken.items()},
        ingredients=run.ingredients,
        code=code_of(STAGES[run.stage].module_of(settings), toy=toy),
        toy=toy,
    )


def write_run(run: Run, study: Study, root: Path) -> Path:
    """Write a run's ``run.json`` (`describe`) and return its folder.

    Raises:
        LabError: as `describe`.
    """
    folder = root / run.name
    describe(run, study, root).write(folder)
    return folder


SELECTED_BY = {"reward": ("valid1_accuracy", max), "sft": ("valid1_loss", min)}
"""Stage of several runs that were tried -> the figure in ``evaluation.json`` that chooses (P App. B.1)."""


def _choose(candidates: Sequence[Run], root: Path) -> Run:
    """The best of several runs of a stage on valid1; the first one of a tie."""
    if len(candidates) == 1:
        return candidates[0]
    figure, best = SELECTED_BY[candidates[0].stage]
    values = []
    for run in candidates:
        value = read_note(root / run.name / "evaluation.json").get(figure)
        if not isinstance(value, int | float):
            raise LabError(f"has no {figure} to choose by", where=root / run.name)
        values.append(value)
    return candidates[values.index(best(values))]


@contextmanager
def locked_or_new(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, creating the folder if necessary."""
    with ExitStack() as stack:
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # another process has just set the folder aside
                stack.enter_context(locked(folder))
                break
        yield
