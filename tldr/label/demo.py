"""A folder to try labeling with: toy posts, scripted summaries, and three simulated colleagues."""

from __future__ import annotations

import random
import time
from pathlib import Path

import yaml

from tldr.errors import UsageError
from tldr.label.items import LabelItem
from tldr.label.make import info_for
from tldr.label.project import ITEMS, SETTINGS, Project
from tldr.label.robots import robot_answer, robot_labels
from tldr.label.settings import LabelSettings
from tldr.records import CandidateSummary, Post, write_records
from tldr.toy import authors, labelers, world, writers
from tldr.toy.gold import utility_of

COLLEAGUES, THEIR_ANSWERS = ("Ada", "Ben", "Cyd"), 14
TEXT = """title: Toy summaries
labelers_per_item: 2
shared: 0.3
calibration: 0.1
min_tokens: 8
"""


def demo_items(seed: int = 1, rounds: int = 36) -> list[LabelItem]:
    """A training example of a comparison, then all four tasks in turn, some with a known answer."""
    rng = random.Random(f"{seed}/label-demo")
    items = [_training(rng)]
    for number in range(rounds):
        post = _post(rng, number)
        kind = ("comparison", "comparison", "ranking", "rating", "comparison", "demonstration")[number % 6]
        count = {"comparison": 2, "ranking": 4, "rating": 1, "demonstration": 0}[kind]
        fields = {
            "id": f"demo-{number:03d}", "kind": kind, "info": info_for(post), 
            "batch": f"batch{1 + number // 12}", "summaries": _summaries(rng, post, count),
        }  # fmt: skip
        if number == 8:
            fields["warning"] = (
                "This one only stands for a text that may disturb; it is as harmless as all others."
            )
        item = LabelItem.model_validate(fields)
        if number % 8 == 4:
            known = robot_answer(item, labelers.Worker("careful", 0.01, 0.0)).model_dump(
                exclude_defaults=True
            )
            item = LabelItem.model_validate({**fields, "role": "calibration", "known": known})
        items.append(item)
    return items


def _post(rng: random.Random, number: int) -> Post:
    post = world.draw_post(rng, f"demo-post-{number:03d}")
    summary = authors.reference(rng, world.facts_of(post), post.post)
    return Post.model_validate({**post.model_dump(exclude_unset=True), "summary": summary})


def _summaries(rng: random.Random, post: Post, count: int) -> list[CandidateSummary]:
    found: dict[str, CandidateSummary] = {}
    while len(found) < count:
        name, text = writers.write(rng, post)
        found.setdefault(text, CandidateSummary(text=f" {text}", policy=f"writer_{name}"))
    return list(found.values())


def _training(rng: random.Random) -> LabelItem:
    """A complete summary beside one with wrong facts."""
    post = _post(rng, 999)
    facts = world.facts_of(post)
    pair = [writers.write(rng, post, name) for name in ("complete", "wrong")]
    while utility_of(facts, pair[1][1], True).accuracy == 0:
        pair[1] = writers.write(rng, post, "wrong")
    return LabelItem(
        id="training-000",
        kind="comparison",
        info=info_for(post),
        summaries=[CandidateSummary(text=f" {text}", policy=f"writer_{name}") for name, text in pair],
        batch="training",
        role="training",
        known={"confidence": 2},
        explanation="The other summary states something that the post does not say. A wrong fact is "
        "worse than a missing one: the reader cannot notice it.",
    )


class _Ticking:
    """A clock whose every reading is some seconds later, so that the colleagues seem to take their time."""

    def __init__(self, start: float):
        self.now, self.rng = start, random.Random(0)

    def __call__(self) -> float:
        self.now += self.rng.uniform(6, 25)
        return self.now


def make_demo(folder: Path, now: float | None = None) -> None:
    """Write the demo's files, and let its colleagues label. A demo that is there already stays as it is.

    Args:
        now: seconds since 1970; by default what the machine's clock says.

    Raises:
        UsageError: the folder holds something else.
    """
    if (folder / ITEMS).exists():
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError("the folder holds other things", where=folder, remedy="name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SETTINGS).write_text(TEXT, encoding="utf-8")
    settings = LabelSettings.model_validate(yaml.safe_load(TEXT))
    write_records(folder / ITEMS, demo_items())
    clock = _Ticking((time.time() if now is None else now) - 3600)
    project = Project.open(folder, settings, clock)
    for number, name in enumerate(COLLEAGUES):
        who = project.labelers.by_secret(project.labelers.add(name, clock(), held_out=number == 2))
        assert who is not None
        robot_labels(project.desk, who, labelers.WORKERS[number], THEIR_ANSWERS)
    project.database.close()
