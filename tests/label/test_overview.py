"""What the owner is told, on labels whose habits are known."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.label.kit import Bench, an_item, bench
from tldr.label.labelers import Labeler
from tldr.label.overview import overview
from tldr.measures.wilson import wilson_interval
from tldr.records import CandidateSummary


@pytest.fixture
def made(tmp_path: Path) -> Bench:
    """Two readers, one who always takes the first, one who takes the longer at once, and one held out."""
    texts = [
        CandidateSummary(text=" short", policy="sft"),
        CandidateSummary(text=" quite a bit longer", policy="ref"),
    ]
    items = [an_item(n, summaries=texts, batch=f"b{n // 15}") for n in range(30)]
    items += [an_item(n, role="calibration", known={"confidence": 9}) for n in range(30, 36)]
    made = bench(tmp_path, items, people=4, labelers_per_item=4, calibration=0.3)
    held = made.project.labelers.add("held", 0.0, held_out=True)
    made.secrets.append(held)
    made.people.append(made.person(4))
    rng = random.Random(0)
    for number, who in enumerate(made.people):
        while (shown := made.desk.next(who)) is not None:
            longer = 9 if shown.order[0] == 0 else 1  # the longer one is the item's second
            made.clock.now += 2 if number == 3 else 40
            confidence = {1: 1, 3: longer}.get(number, rng.choice([longer] * 3 + [10 - longer]))
            _answer(made, who, shown.ticket, confidence)
    return made


def _answer(made: Bench, who: Labeler, ticket: str, confidence: int) -> None:
    from tldr.label.desk import Sent

    made.desk.answer(who, Sent(ticket, f"answer-{ticket}", 500.0), {"confidence": confidence})


def test_habits_and_agreement(made: Bench) -> None:
    seen = overview(made.project)
    rows = {row["worker"]: row for row in seen["labelers"]}
    assert rows["worker-01"]["first"]["share"] == 1
    assert any("100%" in sign for sign in rows["worker-01"]["signs"])
    assert rows["worker-03"]["longer"]["share"] == 1
    assert any(sign.startswith("takes 2 s") for sign in rows["worker-03"]["signs"])
    assert rows["worker-00"]["signs"] == [] and rows["worker-00"]["seconds"] == 40
    assert rows["worker-01"]["agreement"]["share"] < rows["worker-03"]["agreement"]["share"]
    right = rows["worker-03"]["calibration"]
    assert right["share"] == 1 and (right["low"], right["high"]) == wilson_interval(right["n"], right["n"])
    assert {row["group"]: row["labels"] > 0 for row in seen["groups"]} == {
        "labelers": True, "held-out labelers": True,
    }  # fmt: skip
    assert [(row["first"], row["second"], row["batch"]) for row in seen["batches"]] == [
        ("ref", "sft", "b0"), ("ref", "sft", "b1"),
    ]  # fmt: skip
    assert sum(row["n"] for row in seen["batches"]) == 30
    assert seen["disagreements"] and len(seen["disagreements"][0]["votes"]) >= 2
