"""Checks of those who labelled: answers of one side, answers that repeat, answers unlike the others'."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from statistics import fmean

from tldr.doctor.data import label_files, rankings
from tldr.doctor.findings import Observation, check
from tldr.doctor.folders import Examined
from tldr.doctor.limits import (
    CONFIDENCE,
    CONFIDENCE_VARIES,
    FEWEST_ANSWERS,
    LEAST_AGREEMENT,
    ONE_SIDED,
    PERIODIC,
    SAME_CONFIDENCE,
)
from tldr.measures.wilson import wilson_interval
from tldr.records import Ranking

PERIODS = (2, 3, 4)
"""Lengths of a repeated pattern of answers that are looked for; 1 would be one side."""


def _answers(run: Examined) -> Iterator[Ranking]:
    """All answers in the order of the files; folds hold the same ones, so the first file of a split will
    do."""
    for split in ("train", "valid1", "valid2"):
        for path in label_files(run.folder, split)[:1]:
            yield from rankings(path)


def _by_worker(run: Examined) -> dict[str, list[Ranking]]:
    """The answers of each worker with enough of them."""
    found: dict[str, list[Ranking]] = defaultdict(list)
    for row in _answers(run):
        if row.worker:
            found[row.worker].append(row)
    return {worker: rows for worker, rows in sorted(found.items()) if len(rows) >= FEWEST_ANSWERS}


def _of_others(workers: dict[str, list[Ranking]], worker: str) -> list[Ranking]:
    return [row for other, rows in workers.items() if other != worker for row in rows]


def _orders(rows: Sequence[Ranking]) -> list[tuple[int, ...]]:
    """The places given to the summaries in the order shown, where there are as many of them as usual."""
    ranks = [tuple(row.rank) for row in rows]
    length = Counter(map(len, ranks)).most_common(1)[0][0]
    return [rank for rank in ranks if len(rank) == length]


def _commonest(values: Sequence[object]) -> tuple[object, float]:
    """The most frequent value and its share."""
    value, count = Counter(values).most_common(1)[0]
    return value, count / len(values)


@check(
    "labels",
    why="Such a worker prefers a place on the screen: the labels say nothing about the summaries.",
    remedy="Leave the worker's labels out; check that the summaries of a pair were shown in random order.",
)
def one_sided_workers(run: Examined) -> Iterator[Observation]:
    """No worker nearly always prefers the summary at the same place, unless all do: a file may list the
    preferred summary first."""
    workers = _by_worker(run)
    for worker, rows in workers.items():
        orders = _orders(rows)
        order, share = _commonest(orders)
        others = [tuple(row.rank) for row in _of_others(workers, worker)]
        same = sum(other == order for other in others)
        listed = bool(others) and ONE_SIDED.above(same / len(others)) is not None
        if len(orders) >= FEWEST_ANSWERS and not listed and (severity := ONE_SIDED.above(share)):
            seen = f"{worker} gave {share:.0%} of {len(orders)} answers the places {order}"
            yield Observation(run, severity, seen, "each side about as often")


@check(
    "labels",
    why="Answers that follow a pattern, or all of one confidence, were given without reading.",
    remedy="Look at the worker's answers in their order; leave them out if they are not about the texts.",
)
def repeating_workers(run: Examined) -> Iterator[Observation]:
    """No worker's answers repeat with a short period, and confidences vary if those of the others do."""
    workers = _by_worker(run)
    for worker, rows in workers.items():
        orders = _orders(rows)
        if len(orders) >= FEWEST_ANSWERS and _commonest(orders)[1] <= (ONE_SIDED.warning or 1):
            period, share = max(
                ((p, fmean(a == b for a, b in zip(orders, orders[p:], strict=False))) for p in PERIODS),
                key=lambda found: found[1],
            )
            if severity := PERIODIC.above(share):
                seen = f"{share:.0%} of {worker}'s {len(orders)} answers are those of {period} answers before"
                yield Observation(run, severity, seen, "no pattern")
        own, of_others = _confidences(rows), _confidences(_of_others(workers, worker))
        if len(own) < FEWEST_ANSWERS or not of_others or _commonest(of_others)[1] > CONFIDENCE_VARIES:
            continue
        value, share = _commonest(own)
        if severity := SAME_CONFIDENCE.above(share):
            seen = f"{worker} gave {share:.0%} of {len(own)} answers the confidence {value}"
            yield Observation(run, severity, seen, "confidences that vary, as the others' do")


def _confidences(rows: Sequence[Ranking]) -> list[int]:
    return [row.extra.confidence for row in rows if row.extra.confidence is not None]


@check(
    "labels",
    why="Who disagrees with everybody else misunderstands the task, or answers at random or reversed.",
    remedy="Compare the worker's answers with the others'; leave them out, or turn them round if reversed.",
)
def deviating_workers(run: Examined) -> Iterator[Observation]:
    """No worker agrees with the others on the same pairs far less often than they do with one another."""
    answers = _pair_answers(run)
    agreed, met = _meetings(answers)
    for worker in _by_worker(run):
        shares = _agreement(worker, answers)
        if len(shares) < FEWEST_ANSWERS:
            continue
        _, high = wilson_interval(sum(shares), len(shares), CONFIDENCE)
        share = f"{fmean(shares):.0%} of {len(shares)} answers (at most {high:.0%})"
        own = f"{worker} agrees with the others in {share}"
        if high < 0.5:
            yield Observation(run, "fault", own, "more often than by chance")
        elif others := met.total() // 2 - met[worker]:
            usual = (agreed.total() // 2 - agreed[worker]) / others
            if severity := LEAST_AGREEMENT.above(usual - high):
                yield Observation(run, severity, own, f"{usual:.0%}, as the others with one another")


def _meetings(answers: dict[tuple[str, ...], list[tuple[str, str]]]) -> tuple[Counter[str], Counter[str]]:
    """How often each worker and another one answered alike about a pair, and how often they met at all."""
    agreed, met = Counter[str](), Counter[str]()
    for given in answers.values():
        for (one, first), (other, second) in combinations(given, 2):
            if one != other:
                met.update((one, other))
                if first == second:
                    agreed.update((one, other))
    return agreed, met


def _pair_answers(run: Examined) -> dict[tuple[str, ...], list[tuple[str, str]]]:
    """Of each pair of summaries, who preferred which text; ties are left out."""
    found: dict[tuple[str, ...], list[tuple[str, str]]] = defaultdict(list)
    for row in _answers(run):
        for pair in row.comparisons():
            texts = [summary.text for summary in pair.summaries]
            key = (row.info.id or row.info.post or "", *sorted(texts))
            found[key].append((row.worker or "", texts[pair.choice]))
    return found


def _agreement(worker: str, answers: dict[tuple[str, ...], list[tuple[str, str]]]) -> list[float]:
    """Of each pair that the worker and others answered, the share of the others who answered alike."""
    shares = []
    for given in answers.values():
        own = [text for who, text in given if who == worker]
        others = [text for who, text in given if who != worker]
        if own and others:
            shares.append(fmean(text == own[0] for text in others))
    return shares
