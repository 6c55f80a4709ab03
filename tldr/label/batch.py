"""A batch of items that a study asks people about: its labeling folder, and the labels that count for it.

The folder lies beside the study's runs and is never deleted, because people's work is in it. A run that is
made again finds it and asks nothing twice.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import yaml

from tldr.errors import LabError, UsageError, Waiting
from tldr.files import write_text
from tldr.label.database import NAME, Database, sole_server
from tldr.label.given import GivenLabel, read_labels
from tldr.label.items import LabelItem, read_items
from tldr.label.pools import draw
from tldr.label.project import ITEMS, SETTINGS
from tldr.label.settings import LabelSettings
from tldr.locks import Busy
from tldr.records import write_json, write_records
from tldr.strict_json import parse_object

if TYPE_CHECKING:
    from tldr.label.overview import ShareRow

LABELING = "labeling"
"""Folder in a study's folder with a labeling folder for each run that asks people, under the run's name."""
COUNTED = "counted.json"
"""In a labeling folder: ids of the answers there were when the run was done."""
INSTRUCTIONS = "instructions.txt"
HEAD = "# Written by the study: change `labels.page` in its file, and run it again.\n"


@dataclass(frozen=True)
class Wanted:
    """What a run waits for: items by split, and labelers of each."""

    items: Mapping[str, int]
    each: int

    @property
    def labels(self) -> int:
        """Labels of all splits."""
        return sum(self.items.values()) * self.each


@dataclass(frozen=True)
class BatchProgress:
    """How far a batch is.

    Attributes:
        given: labels that count, at most as many of a split as are wanted.
        wanted: labels that the run waits for.
        agreement: of labelers on an item; None as long as no two have answered one.
        seconds: median time at work on an item; None without labels.
        answers: all answers of the labelers of this batch.
    """

    given: int
    wanted: int
    agreement: ShareRow | None
    seconds: float | None
    answers: int

    @property
    def enough(self) -> bool:
        """Whether the run can go on."""
        return self.given >= self.wanted

    def __str__(self) -> str:
        """``waiting for labels: 412 of 2,000, agreement .74 [.70, .78]``."""
        text = f"waiting for labels: {self.given:,} of {self.wanted:,}"
        if self.agreement is None:
            return f"{text}; no two people have answered one item yet"
        share, low, high = (_decimal(self.agreement[name]) for name in ("share", "low", "high"))
        return f"{text}, agreement {share} [{low}, {high}]"


def _decimal(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


@dataclass(frozen=True)
class AnsweredBatch:
    """A batch that has enough labels.

    Attributes:
        folder: where people labeled. labels: all of theirs. taken: those that count, by split (`take`).
    """

    folder: Path
    labels: list[GivenLabel]
    taken: dict[str, list[GivenLabel]]
    progress: BatchProgress


def ask(
    place: Path, items: Sequence[LabelItem], page: LabelSettings, wanted: Wanted, *, run: str, seed: int
) -> AnsweredBatch:
    """Publish a run's batch beside it, and take what people have answered.

    Call `note_counted` once the run has written all that it makes of the labels.

    Args:
        place: the run's folder. run: its name in messages. seed: of the draw among labelers.

    Raises:
        Waiting: there are not enough labels yet.
        UsageError: as of `publish`.
    """
    folder = labeling_folder(place.parent, place.name)
    publish(folder, items, page)
    labels = as_counted(folder, read_given(folder), wanted)
    counted = counting(labels)
    progress = progress_of(counted, wanted)
    if not progress.enough:
        raise Waiting(str(progress), where=run, remedy=f"next: tldr-lab label serve {folder}")
    return AnsweredBatch(folder, labels, take(counted, wanted, seed), progress)


def labeling_folder(root: Path, run: str) -> Path:
    """Where people label for a run of the study in `root`."""
    return root / LABELING / run


def publish(folder: Path, items: Sequence[LabelItem], page: LabelSettings) -> None:
    """Write a batch into its labeling folder, or find it there.

    Calibration and training items that are there stay, also the owner's own. The page's settings are written
    anew, with the paths that they name made absolute.

    Raises:
        UsageError: no such file of instructions; other items were labeled in this folder, or are served in it
            just now.
    """
    changes = {} if page.instructions is None else {"instructions": INSTRUCTIONS}
    if page.tokenizer is not None:
        changes["tokenizer"] = str(Path(page.tokenizer).absolute())
    text = None if page.instructions is None else _instructions(Path(page.instructions))
    folder.mkdir(parents=True, exist_ok=True)
    _write_items(folder, items)
    if text is not None:
        write_text(folder / INSTRUCTIONS, text)
    settings = page.model_copy(update=changes).model_dump(mode="json")
    write_text(folder / SETTINGS, HEAD + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))


def _instructions(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UsageError("not a text file", where=f"page.instructions: {path}", remedy="write it") from None


def _write_items(folder: Path, items: Sequence[LabelItem]) -> None:
    file = folder / ITEMS
    if not file.exists():
        write_records(file, items)
        return
    every = {item.id: item for item in read_items(file)}
    extra = {id: item for id, item in every.items() if item.role != "label"}
    added = [item for item in items if item.role != "label" and item.id not in extra]
    asked = [item for item in items if item.role == "label"]
    there = {id: item.to_json() for id, item in every.items() if id not in extra}
    now = {item.id: item.to_json() for item in asked}
    changed = sorted(id for id in {**there, **now} if there.get(id) != now.get(id))
    if not changed and not added:
        return
    if changed and answered(folder):
        raise UsageError(
            f"people have labeled other items than this run makes now: {len(changed)} changed, "
            f"such as '{changed[0]}'",
            where=file,
            remedy="bring back the code and the runs that made them; or move the folder away, and people are "
            "asked anew",
        )
    try:
        with sole_server(folder):
            write_records(file, [*asked, *extra.values(), *added])
    except Busy as error:
        raise UsageError(
            f"the items changed, but {error.what}", where=folder, remedy="end `tldr-lab label serve` first"
        ) from None


def answered(folder: Path) -> bool:
    """Whether anybody has answered or skipped an item of a labeling folder."""
    return bool(read_given(folder))


def read_given(folder: Path) -> list[GivenLabel]:
    """All labels and skips in a labeling folder, in the order of the items; none before it is served."""
    if not (folder / NAME).exists():
        return []
    with closing(Database(folder / NAME)) as database:
        return read_labels(database)


def counting(labels: Sequence[GivenLabel]) -> list[GivenLabel]:
    """The answers to a batch's questions by labelers who were neither dropped nor held out."""
    return [
        label
        for label in labels
        if label.counts and label.item.role == "label" and not label.labeler.held_out
    ]


def take(labels: Sequence[GivenLabel], wanted: Wanted, seed: int) -> dict[str, list[GivenLabel]]:
    """The labels that a batch hands on, by split: the first items' in their order, of each item's labelers as
    many as are wanted, drawn by the seed. When somebody answered plays no part.

    Args:
        labels: those that count, in the order of the items.
    """
    by_item: dict[str, list[GivenLabel]] = defaultdict(list)
    for label in labels:
        by_item[label.item.id].append(label)
    taken: dict[str, list[GivenLabel]] = {split: [] for split in wanted.items}
    for id, own in by_item.items():
        own.sort(key=lambda label: draw(seed, "taken", id, label.labeler.worker))
        split = own[0].item.split
        room = wanted.items[split] * wanted.each - len(taken[split])
        taken[split] += own[: min(wanted.each, room)]
    return taken


def progress_of(labels: Sequence[GivenLabel], wanted: Wanted) -> BatchProgress:
    """How far a batch is.

    Args:
        labels: those that count.
    """
    from tldr.label.overview import pair_agreement, share_of  # imports scipy, so only when needed

    of_items = Counter((label.item.split, label.item.id) for label in labels)
    by_split: Counter[str] = Counter()
    for (split, _), count in of_items.items():
        by_split[split] += min(count, wanted.each)
    given = sum(min(by_split[split], count * wanted.each) for split, count in wanted.items.items())
    seconds = [label.seconds for label in labels]
    return BatchProgress(
        given=given,
        wanted=wanted.labels,
        agreement=share_of(pair_agreement(labels)),
        seconds=median(seconds) if seconds else None,
        answers=len(labels),
    )


def progress_in(folder: Path, wanted: Wanted) -> BatchProgress | None:
    """How far the batch in a labeling folder is; None if there is none, or it cannot be read now."""
    if not (folder / ITEMS).exists():
        return None
    try:
        return progress_of(counting(read_given(folder)), wanted)
    except LabError:
        return None


def as_counted(folder: Path, labels: Sequence[GivenLabel], wanted: Wanted) -> list[GivenLabel]:
    """The labels of the time when the run was first done; all if it was not, or if they are too few now.

    So a label that arrives later changes nothing, even if the run has to be made again.
    """
    file = folder / COUNTED
    if not file.exists():
        return list(labels)
    then: Collection[str] = set(parse_object(file.read_bytes())["answers"])
    kept = [label for label in labels if label.answer_id in then]
    return kept if progress_of(counting(kept), wanted).enough else list(labels)


def note_counted(folder: Path, labels: Sequence[GivenLabel]) -> None:
    """Keep which labels there were when the run was done."""
    write_json(folder / COUNTED, {"answers": [label.answer_id for label in labels]})
