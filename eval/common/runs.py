"""A study's folder as data: its runs, their states and their files.

``study.json`` at the top of the folder names the runs; a folder without one is taken as samples
made elsewhere, one run per folder that holds ``samples.jsonl``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from eval.common.cells import cell_name, cell_order, in_world, with_cells, world_name
from eval.common.io import SAMPLES_FILE, load_posts, sample_rows
from tldr.errors import RecordError, UsageError
from tldr.files import distinct, files_below
from tldr.records import Judgement
from tldr.strict_json import BOM, numbered_lines, parse_json, parse_object

STUDY_FILE = "study.json"
POSTS_FILE = "valid2.jsonl"
NEWS = "cnndm"
"""`dataset` of runs on news articles, which are in ``cnndm.jsonl``; that of runs on posts is ""."""


@dataclass(frozen=True)
class StudyRun:
    """One row of ``study.json``: a stage at a size, seed and variant, and where its files lie.

    Attributes:
        seed: of training. data_seed: of the posts; None where it is not known, or the posts are files.
        world: the data seed's name in a study of several ("d3"), else "" (`eval.common.cells`).
    """

    run: str
    stage: str
    folder: Path
    size: str = ""
    seed: int | None = None
    variant: str = ""
    dataset: str = ""
    params: float | None = None
    parents: dict[str, str] = field(default_factory=dict)
    key: str = ""
    finished: bool = True
    data_seed: int | None = None
    world: str = ""

    @property
    def cell(self) -> str:
        """The repetition of the study that the run belongs to (`eval.common.cells`)."""
        return cell_name(self.seed, self.world)

    def post_ids(self, ids: pd.Series[str]) -> pd.Series[str]:
        """The ids of posts in the run's files, marked with its world where the study has several."""
        return in_world(ids, self.world)

    @property
    def state(self) -> str:
        """Its state: finished, failed, or not finished."""
        failed = (self.folder / "FAILED").is_file()
        return "finished" if self.finished else "failed" if failed else "not finished"

    def json(self, name: str) -> dict[str, Any] | None:
        """A JSON object the run wrote, or None where it wrote no such file.

        Raises:
            RecordError: the file holds something else.
        """
        return _read_json(self.folder / name, dict) if (self.folder / name).is_file() else None


@dataclass(frozen=True)
class StudyRuns:
    """All runs of a study folder."""

    folder: Path
    runs: tuple[StudyRun, ...]
    named: bool = True
    """Whether a ``study.json`` named them."""

    @property
    def cells(self) -> list[str]:
        """The cells of the study, finished or not: those of all runs that have a training seed."""
        return sorted({run.cell for run in self.runs if run.seed is not None}, key=cell_order)

    def finished(self, stage: str) -> list[StudyRun]:
        """The finished runs of a stage, in the study's order; those on news are left out."""
        return [run for run in self.runs if run.stage == stage and run.finished and not run.dataset]

    def sampled(self) -> list[StudyRun]:
        """Finished runs with samples; unscored samples give way to the score run made from them."""
        done = [run for run in self.runs if run.stage == "score" and run.finished]
        scored = {parent for run in done for parent in run.parents.values()}
        return [
            run
            for run in self.runs
            if run.finished and (run.folder / SAMPLES_FILE).is_file() and not {run.run, run.key} & scored
        ]


def _read_json(path: Path, kind: type | tuple[type, ...]) -> Any:
    try:
        data = parse_json(path.read_bytes().removeprefix(BOM))
    except ValueError as error:
        raise RecordError(str(error), where=path) from None
    if not isinstance(data, kind):
        raise RecordError(f"not the expected JSON: a {type(data).__name__}", where=path)
    return data


def load_runs(folder: Path, listing: Mapping[str, Any] | None = None) -> StudyRuns:
    """Read a study's folder.

    Args:
        listing: what its ``study.json`` should contain now; by default what it contains.

    Raises:
        UsageError: no such folder. RecordError: a broken ``study.json``.
    """
    if not folder.is_dir():
        raise UsageError(
            "no such folder of runs", where=folder, remedy="give the folder the study was run in"
        )
    file = folder / STUDY_FILE
    if listing is None and not file.is_file():
        places = sorted(path.parent for path in distinct(files_below(folder, SAMPLES_FILE)))
        return StudyRuns(
            folder, tuple(StudyRun(place.name, "samples", place) for place in places), named=False
        )
    data = _read_json(file, (list, dict)) if listing is None else listing
    rows = data if isinstance(data, list) else data.get("runs", [])
    runs = [_run(folder, row, file) for row in rows]
    if len({run.data_seed for run in runs} - {None}) > 1:
        runs = [replace(run, world=world_name(run.data_seed)) for run in runs]
    return StudyRuns(folder, tuple(runs))


def _run(folder: Path, row: dict[str, Any], listing: Path) -> StudyRun:
    try:
        place = folder / row["folder"]
        return StudyRun(
            run=row["run"],
            stage=row["stage"],
            folder=place,
            size=row.get("size") or "",
            seed=row.get("seed"),
            variant=row.get("variant") or "",
            dataset=row.get("dataset") or "",
            params=row.get("params"),
            parents=row.get("parents") or {},
            key=row.get("key") or "",
            finished=(place / "DONE").is_file(),
            data_seed=row.get("data_seed"),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"a run without its fields: {error!r}", where=listing) from None


def incomplete(study: StudyRuns) -> list[str]:
    """Sentences that name the runs some cell of the study lacks, one each; none where all cells are whole.

    Of runs made from one another the first that is not finished is named, with the number that wait for it.
    """
    if len(study.cells) < 2:
        return []
    by_name = {run.run: run for run in study.runs}
    open_runs = [run for run in study.runs if not run.finished and run.seed is not None]
    waiting = [run for run in open_runs if any(not by_name[one].finished for one in _made_from(run, by_name))]
    causes = [
        f"{_title(run, by_name)} in cell {run.cell} ({run.state})" for run in open_runs if run not in waiting
    ]
    kinds: dict[str, set[str]] = {}
    for run in study.runs:
        if run.seed is not None:
            kinds.setdefault(_title(run, by_name), set()).add(run.cell)
    fewer = [
        f"{title} (only {', '.join(sorted(cells, key=cell_order))})"
        for title, cells in kinds.items()
        if len(cells) < len(study.cells)
    ]
    said = []
    if causes:
        rest = f", and {len(waiting)} runs that are made from them" if waiting else ""
        said.append(
            f"Not finished: {'; '.join(causes)}{rest}. Estimates use the cells that have what they compare."
        )
    if fewer:
        said.append(f"Planned in some cells only: {'; '.join(fewer)}.")
    return said


def _made_from(run: StudyRun, by_name: dict[str, StudyRun]) -> list[str]:
    return [parent for parent in run.parents.values() if parent in by_name]


def _title(run: StudyRun, by_name: dict[str, StudyRun]) -> str:
    """What a run is in every cell: "ppo m", "score m of sft"."""
    policy = by_name.get(run.parents.get("policy", ""))
    parts = [run.stage, run.size, run.variant, run.dataset]
    of_policy = f" of {policy.stage}" if run.stage in ("sample", "score") and policy is not None else ""
    return " ".join(filter(None, parts)) + of_policy


def study_samples(study: StudyRuns, dataset: str = "") -> pd.DataFrame | None:
    """All samples of the finished runs, named after them; None if nothing was sampled.

    What the samples' tags leave open (variant, params) is filled from ``study.json``.

    Args:
        dataset: what they summarize: "" posts, `NEWS` articles. The two are never in one table.
    """
    tables = []
    for run in study.sampled():
        if run.dataset not in ("", dataset):
            continue
        table = sample_rows(run.folder / SAMPLES_FILE).assign(run=run.run)
        if study.named:
            cells = [cell_name(seed, run.world) for seed in table["seed"]]
            table = table.assign(cell=cells, id=run.post_ids(table["id"]))
        if "tag.dataset" in table:
            table = table[table["tag.dataset"].fillna("") == dataset].drop(columns="tag.dataset")
        elif dataset:
            continue
        for tag, value in (("tag.variant", run.variant or None), ("tag.params", run.params)):
            if tag not in table and value is not None:
                table[tag] = value
        tables.append(table)
    tables = [table for table in tables if len(table)]
    if not tables:
        return None
    samples = pd.concat(tables, ignore_index=True)
    return samples if study.named else with_cells(samples)


def study_posts(study: StudyRuns, name: str = POSTS_FILE) -> pd.DataFrame | None:
    """The reporting posts (or articles) of the study's data runs, or beside its samples.

    Those of several data seeds are together, their ids marked with the column ``world``.
    """
    places = [(run.world, run.folder / name) for run in study.finished("data")] + [("", study.folder / name)]
    present: dict[str, Path] = {}
    for world, place in places:
        if place.is_file() and not (world == "" and present):
            present.setdefault(world, place)
    tables = []
    for world, place in present.items():
        posts = load_posts(place)
        ids = in_world(posts.index.to_series(), world).rename("id")
        tables.append(posts.set_axis(ids).assign(world=world))
    return pd.concat(tables) if tables else None


def in_worlds(judgements: Iterable[Judgement], study: StudyRuns) -> Iterator[Judgement]:
    """Judgements with their post ids marked with the world of the runs that they name."""
    worlds = {run.run: run.world for run in study.runs if run.world}
    for one in judgements:
        world = next((worlds[name] for name in one.runs if name in worlds), "")
        yield one.model_copy(update={"id": f"{world}:{one.id}"}) if world else one


def training_metrics(runs: list[StudyRun]) -> pd.DataFrame | None:
    """The rows of every run's ``metrics.jsonl`` that count episodes, with the run's name, size and cell.

    Raises:
        RecordError: a broken line.
    """
    rows: list[dict[str, Any]] = []
    for run in runs:
        path = run.folder / "metrics.jsonl"
        lines = path.read_bytes().split(b"\n") if path.is_file() else []
        names = {
            "run": run.run,
            "size": run.size,
            "cell": run.cell,
            "variant": run.variant,
            "params": run.params,
        }
        for number, line in numbered_lines(lines):
            if not line:
                continue
            try:
                row = parse_object(line)
            except ValueError as error:
                raise RecordError(str(error), where=f"{path}:{number}") from None
            if "episodes" in row:
                rows.append({**row, **names})
    return pd.DataFrame(rows) if rows else None
