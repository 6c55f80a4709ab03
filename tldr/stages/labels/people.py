"""Labels by people: items from what the policies write, a folder to label them in, and the labels given.

The run waits (`tldr.errors.Waiting`) until there are enough. Its own folder keeps the items, so starting it
again samples nothing again.
"""

from __future__ import annotations

from pathlib import Path

from tldr.errors import UsageError
from tldr.label.batch import Wanted, ask, note_counted
from tldr.label.export import to_record, write_labels
from tldr.label.given import GivenLabel
from tldr.label.items import LabelItem, read_items
from tldr.label.make import calibration_items
from tldr.label.project import ITEMS
from tldr.records import Comparison, Ranking, read_records, write_json, write_records
from tldr.stages.labels import LabelsRun


def run(ctx: LabelsRun) -> None:
    """Write ``train``, ``valid1`` and ``valid2`` rankings, ``agreement.json`` and, in ``given/``, all labels.

    Inputs: ``data``, ``policy-<name>`` for all that are sampled, and ``chooser-<name>`` for best-of-N.

    Raises:
        Waiting: there are not enough labels yet.
        UsageError: people have labeled other items, or sets share posts that they may not share.
    """
    if not ctx.inputs.policies:
        raise UsageError(
            "no policy to sample", where="labels", remedy="give at least one policy-<size> input"
        )
    items, page = [*items_of(ctx), *known_items(ctx.settings.known)], ctx.settings.page
    wanted = Wanted(ctx.settings.items_wanted(), page.labelers_per_item)
    batch = ask(ctx.folder, items, page, wanted, run=ctx.run, seed=ctx.seed)
    for split, rows in batch.taken.items():
        write_records(ctx.folder / f"{split}.jsonl", map(as_ranking, rows))
    write_labels(batch.labels, ctx.folder / "given")
    found = batch.progress.agreement or {}
    report = {
        "agreement": found.get("share"),  # null where no two people have answered one item
        "interval": [found.get("low"), found.get("high")],
        "pairs": found.get("n", 0),
        "rankings": {split: len(rows) for split, rows in batch.taken.items()},
    }
    write_json(ctx.folder / "agreement.json", report)
    note_counted(batch.folder, batch.labels)


def known_items(file: str | None) -> list[LabelItem]:
    """The items that test labelers, of a study's file of comparisons.

    Raises:
        UsageError: there is no such file.
        RecordError: a line is no comparison.
    """
    if file is None:
        return []
    if not Path(file).is_file():
        raise UsageError("no such file", where=f"labels.known: {file}", remedy="write it, or use null")
    return calibration_items(read_records(file, Comparison))


def as_ranking(label: GivenLabel) -> Ranking:
    """A label as reward models read it."""
    record = to_record(label)
    if isinstance(record, Comparison):
        return Ranking.from_comparison(record)
    assert isinstance(record, Ranking)
    return record


def items_of(ctx: LabelsRun) -> list[LabelItem]:
    """The run's items: those in its folder, or new ones."""
    file = ctx.folder / ITEMS
    if file.exists():
        return read_items(file)
    from tldr.stages.labels.asking import make_batch  # imports torch, so only when needed

    items = make_batch(ctx)
    write_records(file, items)
    return items
