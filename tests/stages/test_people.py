"""Labels by people on real networks: what is asked, and a reward model of what is answered."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.stages import lab as laboratory
from tldr.errors import UsageError, Waiting
from tldr.inputs.posts import load_comparisons
from tldr.label.batch import LABELING
from tldr.label.items import LabelItem, read_items
from tldr.label.labelers import Labelers
from tldr.label.project import Project
from tldr.label.robots import robot_answer, robot_labels
from tldr.label.settings import LabelSettings
from tldr.records import Post, read_records, write_records
from tldr.stages.labels import LabelsRun, people
from tldr.stages.labels.asking import batch_name, make_batch
from tldr.stages.labels.settings import LabelsSettings
from tldr.toy import labelers

SETTINGS = LabelsSettings(
    kind="people",
    pairs=20,
    valid_pairs=8,
    best_of=2,
    control=0.3,
    further_temperatures=[1.0],
    page=LabelSettings(shared=0.0, calibration=0.0),
)


def later_round(lab: Path, folder: Path, **changes: object) -> LabelsRun:
    """A second round: SFT, the first round's policy, and best-of-N by the first round's reward model."""
    inputs = {
        "data": lab / "data",
        "policy-sft-s": lab / "sft",
        "policy-ppo-s-r1": lab / "ppo",
        "policy-best_of_n-s-r1": lab / "sft",
        "chooser-best_of_n-s-r1": lab / "reward",
    }
    return laboratory.context("labels", lab, folder, inputs=inputs, settings=SETTINGS, **changes)


@pytest.fixture(scope="module")
def asked(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[LabelsRun, list[LabelItem]]:
    ctx = later_round(lab, tmp_path_factory.mktemp("study") / "labels-s0")
    return ctx, make_batch(ctx)


def test_a_batch_has_all_writers_of_its_round(asked: tuple[LabelsRun, list[LabelItem]]) -> None:
    _, items = asked
    assert {item.batch for item in items} == {"round2"}
    assert Counter(item.split for item in items) == {"train": 22, "valid1": 5, "valid2": 5}
    assert Counter(item.split for item in items[:28]) == {"train": 20, "valid1": 4, "valid2": 4}
    names = {summary.policy for item in items for summary in item.summaries}
    assert names == {
        "ref", "sft-s-t0.85", "sft-s", "ppo-s-r1-t0.85", "ppo-s-r1",
        "best_of_n-s-r1-t0.85-bo2", "best_of_n-s-r1-bo2",
    }  # fmt: skip
    pairs = Counter(tuple(sorted(summary.policy for summary in item.summaries)) for item in items)
    assert pairs["ref", "sft-s-t0.85"] >= round(0.3 * 22) + 2 * round(0.3 * 5)
    assert all(len({summary.text for summary in item.summaries}) == 2 for item in items)
    by_reference = {item.info.id for item in items if "ref" in {one.policy for one in item.summaries}}
    assert len(by_reference) <= 11 + 2 + 2, "of half the posts"


def test_posts_come_from_the_split_that_may_be_asked_about(
    lab: Path, asked: tuple[LabelsRun, list[LabelItem]]
) -> None:
    for split, name in (("train", "sft"), ("valid1", "valid1"), ("valid2", "valid2")):
        there = {post.id: post for post in read_records(lab / "data" / f"{name}.jsonl", Post)}
        for item in asked[1]:
            if item.split == split:
                post = there[item.info.id or ""]
                assert item.info.post == post.post
                own = [one.text.strip() for one in item.summaries if one.policy == "ref"]
                assert own in ([], [(post.summary or "").strip()])


def test_equal_runs_ask_the_same_and_other_seeds_do_not(
    lab: Path, tmp_path: Path, asked: tuple[LabelsRun, list[LabelItem]]
) -> None:
    ctx, items = asked
    assert make_batch(ctx) == items
    other = make_batch(later_round(lab, tmp_path / "other", seed=1))
    assert [item.info.id for item in other] != [item.info.id for item in items]


def test_a_leak_is_refused_before_anybody_is_asked(lab: Path, tmp_path: Path) -> None:
    ctx = later_round(lab, tmp_path / "labels-s0")
    data = tmp_path / "data"
    data.mkdir()
    for path in (lab / "data").glob("*.jsonl"):
        (data / path.name).symlink_to(path)
    posts = read_records(lab / "data" / "valid2.jsonl", Post)
    (data / "valid1.jsonl").unlink()
    write_records(data / "valid1.jsonl", posts)
    with pytest.raises(UsageError, match="valid2"):
        people.run(laboratory.rewired(ctx, data=data))
    assert not (tmp_path / LABELING).exists()


def test_the_names_of_rounds() -> None:
    assert batch_name(["sft-s", "sft-m"]) == "round1"
    assert batch_name(["sft-s-r9", "ppo-s-r1", "best_of_n-s-r1"]) == "round2"
    assert batch_name(["sft-s", "ppo-s-r1", "ppo-m-r1", "ppo-s-r2"]) == "round3"


def test_rankings_of_several_sizes(lab: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"k": (2, 4), "further_temperatures": []})
    ctx = laboratory.context("labels", lab, tmp_path / "labels-s0", settings=settings)
    items = make_batch(ctx)
    train = [item for item in items if item.split == "train"]
    assert Counter(len(item.summaries) for item in train) == {2: 8, 3: 7, 4: 7}
    assert {item.kind for item in train if len(item.summaries) > 2} == {"ranking"}
    assert {item.kind for item in train if len(item.summaries) == 2} == {"comparison"}
    assert len({item.id for item in items}) == len(items)
    pairs = Counter(tuple(sorted(one.policy for one in item.summaries)) for item in train)
    assert pairs["s-t0.85", "s-t0.85"], "one policy alone is also compared with itself"


def test_a_reward_model_of_what_people_said(lab: Path, tmp_path: Path) -> None:
    ctx = later_round(lab, tmp_path / "labels-s0")
    with pytest.raises(Waiting, match=r"labels-s0: waiting for labels: 0 of 28; no two people"):
        laboratory.run(ctx, "labels")
    place = tmp_path / LABELING / "labels-s0"
    project = Project.open(place, SETTINGS.page)
    project.labelers.add("Ann", 0.0)
    (who,) = Labelers(project.database).all()
    assert robot_labels(project.desk, who, labelers.WORKERS[4], 1000) == 32
    project.database.close()
    laboratory.run(ctx, "labels")
    items = read_items(place / "items.jsonl")
    for split in ("train", "valid1", "valid2"):
        rows = load_comparisons(ctx.folder / f"{split}.jsonl")
        own = [item for item in items[:28] if item.split == split]
        assert [row.info for row in rows] == [item.info for item in own]
        for row, item in zip(rows, own, strict=True):
            confidence = robot_answer(item, labelers.WORKERS[4]).model_dump()["confidence"]
            assert row.rank == ([1, 2] if confidence < 5 else [2, 1])
            assert row.extra.confidence == confidence and row.batch == "round2"
    report = json.loads((ctx.folder / "agreement.json").read_text())
    assert report["agreement"] is None and report["pairs"] == 0, "one labeler agrees with nobody"
    reward = laboratory.rewired(laboratory.context("reward", lab, tmp_path / "reward"), labels=ctx.folder)
    laboratory.run(reward, "reward")
    evaluation = json.loads((tmp_path / "reward" / "evaluation.json").read_text())
    assert evaluation["train_rankings"] == 20 and 0 <= evaluation["valid1_accuracy"] <= 1
