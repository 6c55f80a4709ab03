"""What the owner sees: progress, labelers' speed, agreement and habits, drift, disagreements.

Shares have 95 % Wilson intervals in which an item counts once, however many labelers it had. Labels of
dropped labelers are left out of every comparison with others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from tldr.label.answers import (
    ANSWERS,
    ComparisonAnswer,
    DemonstrationAnswer,
    RankingAnswer,
    RatingAnswer,
    TaskAnswer,
    agreement,
)
from tldr.label.given import GivenLabel, read_labels
from tldr.label.labelers import Labeler
from tldr.measures.answers import alternates, one_sided, repeated_value, suspicious_run
from tldr.measures.wilson import wilson_interval

if TYPE_CHECKING:
    from tldr.label.project import Project

MOST_SHOWN = 40
"""Disagreements and flagged items on the page."""
HASTY = 1 / 3
"""A median time below this share of all labelers' is told."""
ShareRow = dict[str, float]
"""``share``, ``low``, ``high``, and ``n`` items."""


def share_of(values: Sequence[float]) -> ShareRow | None:
    """The mean of values in 0..1 with its interval; None without values."""
    if not values:
        return None
    low, high = wilson_interval(sum(values), len(values))
    return {"share": mean(values), "low": low, "high": high, "n": len(values)}


def overview(project: Project) -> dict[str, Any]:
    """Everything on the owner's page, in types that JSON has."""
    labels = read_labels(project.database)
    people = project.labelers.all()
    with project.database.reading() as sql:
        done, wanted = project.totals(sql)
        flagged = sql.execute(
            "SELECT id, flag, held FROM items WHERE flag IS NOT NULL ORDER BY place LIMIT ?", (MOST_SHOWN,)
        ).fetchall()
        held = {row["id"]: (row["flag"], bool(row["held"])) for row in flagged}
        items = sql.execute("SELECT count(*) FROM items").fetchone()[0]
    answered = [label for label in labels if label.answer is not None and label.item.role != "training"]
    seconds = [label.seconds for label in answered]
    with_others = agreement_with_others(labels)
    return {
        "title": project.settings.title,
        "items": items,
        "done": done,
        "wanted": wanted,
        "seconds": median(seconds) if seconds else None,
        "agreement": share_of(pair_agreement(labels)),
        "labelers": [labeler_row(person, labels, with_others, seconds) for person in people],
        "groups": group_rows(people, labels, with_others),
        "batches": batch_rows(labels),
        "disagreements": disagreements(labels),
        "flagged": [_flagged(id, held[id], labels) for id in held],
    }


def by_item(labels: Iterable[GivenLabel]) -> list[list[GivenLabel]]:
    """The labels that count, item by item."""
    counted = [label for label in labels if label.counts]
    return [list(group) for _, group in groupby(counted, key=lambda label: label.item.id)]


def _share(pairs: Iterable[tuple[TaskAnswer | None, TaskAnswer | None]]) -> float | None:
    """The agreement of pairs of answers to one item; None if nothing can be compared."""
    found = [agreement(one, two) for one, two in pairs if one is not None and two is not None]
    total = sum(of for _, of in found)
    return sum(agreeing for agreeing, _ in found) / total if total else None


def agreement_with_others(labels: Sequence[GivenLabel]) -> dict[str, list[float]]:
    """Worker -> on each item that others answered too, the mean agreement with them."""
    found: dict[str, list[float]] = defaultdict(list)
    for group in by_item(labels):
        for label in group:
            share = _share((label.answer, other.answer) for other in group if other is not label)
            if share is not None:
                found[label.labeler.worker].append(share)
    return found


def pair_agreement(labels: Sequence[GivenLabel]) -> list[float]:
    """The agreement of all pairs of labelers on each item that has several."""
    shares = (
        _share((one.answer, two.answer) for index, one in enumerate(group) for two in group[index + 1 :])
        for group in by_item(labels)
    )
    return [share for share in shares if share is not None]


def calibration_shares(labels: Iterable[GivenLabel]) -> list[float]:
    """The agreement of answers with the known ones of calibration items."""
    shares = (
        _share([(label.answer, ANSWERS[label.item.kind].model_validate(label.item.known))])
        for label in labels
        if label.item.role == "calibration"
    )
    return [share for share in shares if share is not None]


def chose_first(label: GivenLabel) -> float | None:
    """1 if a comparison's answer is the summary shown first, 0 if the second; None for other tasks."""
    if not isinstance(label.answer, ComparisonAnswer):
        return None
    return float(label.order[0] == label.answer.choice)


def chose_longer(label: GivenLabel) -> float | None:
    """1 if a comparison's answer is the longer summary; None for other tasks and equal lengths."""
    if not isinstance(label.answer, ComparisonAnswer):
        return None
    first, second = (len(summary.text.split()) for summary in label.item.summaries)
    return None if first == second else float((second > first) == bool(label.answer.choice))


def labeler_row(
    who: Labeler, labels: Sequence[GivenLabel], with_others: dict[str, list[float]], everyone: Sequence[float]
) -> dict[str, Any]:
    """One labeler's line."""
    mine = sorted((label for label in labels if label.labeler.id == who.id), key=lambda label: label.at)
    answered = [label for label in mine if label.answer is not None and label.item.role != "training"]
    seconds = [label.seconds for label in answered]
    first = [value for label in answered if (value := chose_first(label)) is not None]
    longer = [value for label in answered if (value := chose_longer(label)) is not None]
    spent = sum(label.seconds + label.idle for label in mine)
    return {
        "worker": who.worker,
        "name": who.name,
        "status": who.status,
        "held_out": who.held_out,
        "labels": len(answered),
        "skips": sum(label.skip is not None for label in mine),
        "seconds": median(seconds) if seconds else None,
        "idle": sum(label.idle for label in mine) / spent if spent else None,
        "agreement": share_of(with_others.get(who.worker, [])),
        "calibration": share_of(calibration_shares(answered)),
        "first": share_of(first),
        "longer": share_of(longer),
        "signs": signs(answered, first, seconds, everyone),
    }


def shown_value(label: GivenLabel) -> object:
    """An answer as the labeler gave it: the point of the scale, the ranks, the ratings."""
    assert label.answer is not None
    answer = label.answer.shuffled(label.order)
    if isinstance(answer, ComparisonAnswer):
        return answer.confidence
    if isinstance(answer, RankingAnswer):
        return tuple(answer.rank)
    return tuple(answer.axes.values()) if isinstance(answer, RatingAnswer) else None


def signs(
    answered: Sequence[GivenLabel],
    first: Sequence[float],
    seconds: Sequence[float],
    everyone: Sequence[float],
) -> list[str]:
    """In words, what suggests that a labeler does not read."""
    found = []
    if one_sided(int(sum(first)), len(first)):
        found.append(f"chooses the first in {mean(first):.0%}")
    values = [value for label in answered if (value := shown_value(label)) is not None]
    if (common := repeated_value(values)) is not None:
        found.append(f"gives {_said(common[0])} in {common[1]:.0%} of the answers")
    elif run := suspicious_run(values):
        found.append(f"gave one answer {run} times in a row")
    if alternates(values):
        found.append("alternates between two answers")
    if len(seconds) >= 5 and median(seconds) < HASTY * median(everyone):
        found.append(f"takes {median(seconds):.0f} s, all together {median(everyone):.0f} s")
    return found


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def group_rows(
    people: Sequence[Labeler], labels: Sequence[GivenLabel], with_others: dict[str, list[float]]
) -> list[dict[str, Any]]:
    """Labelers of the training labels beside held-out labelers; nothing if none is held out."""
    if not any(person.held_out for person in people):
        return []
    rows = []
    for name, held_out in (("labelers", False), ("held-out labelers", True)):
        workers = [person.worker for person in people if person.held_out == held_out]
        counted = [label for label in labels if label.counts and label.labeler.held_out == held_out]
        rows.append(
            {
                "group": name,
                "labels": len(counted),
                "agreement": share_of([share for worker in workers for share in with_others.get(worker, [])]),
                "calibration": share_of(calibration_shares(counted)),
                "longer": share_of([v for label in counted if (v := chose_longer(label)) is not None]),
            }
        )
    return rows


def batch_rows(labels: Sequence[GivenLabel]) -> list[dict[str, Any]]:
    """For each batch and pair of policies, the share that prefers the first: drift shows in equal pairs."""
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for group in by_item(labels):
        item = group[0].item
        if item.kind != "comparison" or item.role != "label":
            continue
        names = [summary.policy for summary in item.summaries]
        if names[0] != names[1]:
            first, second = sorted(names)
            chosen = [
                names[label.answer.choice] == first
                for label in group
                if isinstance(label.answer, ComparisonAnswer)
            ]
            found[first, second, item.batch].append(mean(chosen))
    return [
        {"first": first, "second": second, "batch": batch, **(share_of(values) or {})}
        for (first, second, batch), values in sorted(found.items())
    ]


def says(answer: TaskAnswer) -> str:
    """An answer in the item's order, in a few words."""
    if isinstance(answer, ComparisonAnswer):
        return f"{answer.choice + 1} ({answer.confidence} of 9)"
    if isinstance(answer, RankingAnswer):
        return "ranks " + ", ".join(map(str, answer.rank))
    if isinstance(answer, RatingAnswer):
        return ", ".join(f"{axis} {value}" for axis, value in answer.axes.items())
    assert isinstance(answer, DemonstrationAnswer)
    return answer.summary


def _described(group: Sequence[GivenLabel]) -> dict[str, Any]:
    item = group[0].item
    return {
        "item": item.id,
        "kind": item.kind,
        "title": item.info.title,
        "post": item.info.post or item.info.article,
        "summaries": [summary.model_dump(include={"text", "policy"}) for summary in item.summaries],
        "votes": [
            {"worker": label.labeler.worker, "says": said, "notes": notes}
            for label in group
            for said, notes in _told(label)
        ],
    }


def _told(label: GivenLabel) -> Iterator[tuple[str, list[str]]]:
    """What a labeler said about an item, and their notes."""
    if label.skip is not None:
        yield f"skipped: {label.skip['reason']}", [label.skip["note"]]
    elif label.answer is not None:
        yield says(label.answer), list(label.answer.notes)


def disagreements(labels: Sequence[GivenLabel]) -> list[dict[str, Any]]:
    """The items on which labelers agree least, the worst first."""
    found: list[tuple[float, int, int, list[GivenLabel]]] = []
    for group in by_item(labels):
        share = _share((one.answer, two.answer) for i, one in enumerate(group) for two in group[i + 1 :])
        if share is not None and share < 1:
            found.append((share, -len(group), len(found), group))
    return [_described(group) for *_, group in sorted(found, key=lambda row: row[:3])[:MOST_SHOWN]]


def _flagged(id: str, state: tuple[str, bool], labels: Sequence[GivenLabel]) -> dict[str, Any]:
    group = [label for label in labels if label.item.id == id]
    return {"item": id, "reason": state[0], "held": state[1]} | (_described(group) if group else {})
