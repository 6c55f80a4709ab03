"""Items: what a line may hold, and the batches made of posts and samples."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.label.kit import an_item
from tldr.errors import RecordError, UsageError
from tldr.label.items import LabelItem, read_items
from tldr.label.make import ItemPlan, calibration_items, make_items, policy_name
from tldr.records import Comparison, Info, Post, Sample, write_records

POSTS = [
    Post(id=f"p{n}", subreddit="s", title=f"t{n}", post=f"body {n}", summary=f" reference {n}")
    for n in range(30)
]
SAMPLES = [
    Sample(
        id=post.id,
        policy=policy,
        text=f" {policy} {temperature} {n} {draw} on {post.id}",
        temperature=temperature,
        n=n,
    )
    for post in POSTS
    for policy, temperature, n in (("sft", 1.0, 1), ("sft", 0.7, 1), ("ppo", 1.0, 1), ("sft", 1.0, 64))
    for draw in range(2)
]


def test_a_batch_of_comparisons_with_its_control_pairs() -> None:
    plan = ItemPlan(count=100, control=0.2, supervised="sft", batch="b7", split="valid1")
    items = make_items(POSTS, SAMPLES, plan)
    assert (
        items
        == make_items(POSTS, SAMPLES, plan)
        != make_items(POSTS, SAMPLES, plan.model_copy(update={"seed": 1}))
    )
    assert len({item.id for item in items}) == 100 and {item.batch for item in items} == {"b7"}
    pairs = Counter(tuple(sorted(summary.policy for summary in item.summaries)) for item in items)
    assert pairs["ref", "sft"] >= 20
    assert {name for pair in pairs for name in pair} == {"ref", "sft", "sft-t0.7", "ppo", "sft-bo64"}
    asked = {(item.info.id, *sorted(summary.text for summary in item.summaries)) for item in items}
    assert len(asked) == 100, "no item is repeated"
    for item in items:
        assert len({summary.text for summary in item.summaries}) == 2
        assert all(
            summary.text.startswith(" ") and not summary.text.startswith("  ") for summary in item.summaries
        )
        assert (item.info.model_extra or {}).get("summary") is None, "the reference is not part of the post"
    places = Counter(item.summaries[0].policy == "ref" for item in items if "ref" in str(item.summaries))
    assert min(places.values()) > 5, "no policy always stands first"


@pytest.mark.parametrize(("kind", "count"), [("ranking", 4), ("rating", 1), ("demonstration", 0)])
def test_the_other_tasks(kind: Any, count: int) -> None:
    items = make_items(POSTS, SAMPLES, ItemPlan(kind=kind, count=25))
    assert {len(item.summaries) for item in items} == {count}
    for item in items:
        assert len({summary.policy for summary in item.summaries}) == count, "policies before repetitions"


def test_more_items_than_the_texts_allow() -> None:
    with pytest.raises(UsageError, match="no more than"):
        make_items(POSTS, [], ItemPlan(kind="rating", count=31))
    with pytest.raises(UsageError, match="about the post 'zz'"):
        make_items(POSTS, [Sample(id="zz", policy="x", text="y")], ItemPlan())
    with pytest.raises(ValueError, match="needs supervised"):
        ItemPlan(control=0.5)
    assert policy_name(Sample(id="a", policy="ppo", text="x", temperature=0.5, n=8)) == "ppo-t0.5-bo8"


def test_known_answers_become_calibration_items() -> None:
    row = Comparison.model_validate(
        {
            "info": Info(id="p", post="x"), "choice": 1, "worker": "researcher", "batch": "gold",
            "split": "train",
            "summaries": [{"text": " a", "policy": "x"}, {"text": " b", "policy": "y"}], "extra": {},
        }
    )  # fmt: skip
    (item,) = calibration_items([row])
    assert (item.role, item.known) == ("calibration", {"confidence": 9})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": "ranking", "summaries": []}, "2 to 9 summaries, found 0"),
        ({"summaries": [{"text": "a", "policy": "p"}]}, "shows 2 summaries, found 1"),
        ({"summaries": [{"text": " ", "policy": "p"}, {"text": "a", "policy": "p"}]}, "empty"),
        ({"role": "calibration"}, "known"),
        ({"known": {"confidence": 9}}, "known"),
        ({"role": "training", "known": {"confidence": 5}}, "no middle"),
        ({"split": "test"}, "only ratings"),
        ({"kind": "survey"}, "kind"),
        ({"id": " "}, "id"),
        ({"kind": "demonstration", "summaries": [], "info": {"post": "x"}}, "info.id"),
    ],
)
def test_lines_that_are_no_items(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    file = tmp_path / "items.jsonl"
    good = json.loads(an_item(0).to_json())
    file.write_text(json.dumps(good) + "\n" + json.dumps({**good, "id": "other"} | change) + "\n")
    with pytest.raises(RecordError, match=r"items\.jsonl:2") as refused:
        read_items(file)
    assert told in str(refused.value)


def test_files_of_items(tmp_path: Path) -> None:
    file = write_records(tmp_path / "items.jsonl", [an_item(0), an_item(1, "rating")])
    assert [item.id for item in read_items(file)] == ["item-0", "item-1"]
    write_records(file, [an_item(0), an_item(0)])
    with pytest.raises(UsageError, match="'item-0'"):
        read_items(file)
    write_records(file, [])
    with pytest.raises(UsageError, match="no item"):
        read_items(file)
    assert LabelItem.model_validate_json(an_item(3, "ranking").to_json()) == an_item(3, "ranking")
