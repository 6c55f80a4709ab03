"""People as a study's judges: what they are asked, blind, and what their answers become."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.common.runs import StudyRun, StudyRuns
from eval.judge.verdicts import read_verdicts
from tests.stages import lab as laboratory
from tldr.errors import UsageError, Waiting
from tldr.label.batch import LABELING
from tldr.label.items import read_items
from tldr.label.labelers import Labelers
from tldr.label.project import Project
from tldr.label.robots import robot_answer, robot_labels
from tldr.label.settings import LabelSettings
from tldr.records import Comparison, Sample, read_records, write_records
from tldr.stages.judge import JudgeRun
from tldr.stages.judge.settings import JudgeSettings
from tldr.toy import labelers

PAGE = LabelSettings(shared=0.0, calibration=0.0)
SETTINGS = JudgeSettings(kind="people", posts=8, page=PAGE)


@pytest.fixture
def ctx(lab: Path, tmp_path: Path) -> JudgeRun:
    """Two runs of samples: PPO's, and the same texts under another policy's name, of which one is empty."""
    rows = read_records(lab / "score" / "samples.jsonl", Sample)
    renamed = [row.model_copy(update={"policy": "sft-s"}) for row in rows]
    other = tmp_path / "score-sft"
    other.mkdir()
    write_records(other / "samples.jsonl", [renamed[0].model_copy(update={"text": " "}), *renamed[1:]])
    inputs = {"data": lab / "data", "samples-ppo-s": lab / "score", "samples-sft-s": other}
    return laboratory.context("judge", lab, tmp_path / "judge-s0", inputs=inputs, settings=SETTINGS)


def answered(ctx: JudgeRun, answers: int = 10_000) -> Path:
    """The labeling folder, after a simulated labeler has answered on its page."""
    with pytest.raises(Waiting):
        laboratory.run(ctx, "judge")
    place = ctx.folder.parent / LABELING / ctx.folder.name
    project = Project.open(place, PAGE)
    project.labelers.add("Ann", 0.0)
    (who,) = Labelers(project.database).all()
    robot_labels(project.desk, who, labelers.WORKERS[4], answers)
    project.database.close()
    return place


def test_each_text_is_asked_once_and_counts_for_every_policy_that_wrote_it(ctx: JudgeRun) -> None:
    place = answered(ctx)
    items = read_items(place / "items.jsonl")
    asked = {(item.info.id, item.summaries[0].text) for item in items}
    assert len(asked) == len(items) and len({item.info.id for item in items}) == 8
    assert all(item.summaries[1].policy == "ref" and item.split == "valid2" for item in items)
    laboratory.run(ctx, "judge")
    rows = read_records(ctx.folder / "comparisons.jsonl", Comparison)
    by_item = {(item.info.id, item.summaries[0].text): item for item in items}
    policies: dict[tuple[str | None, str], set[str]] = {}
    for row in rows:
        own, reference = row.summaries
        item = by_item[row.info.id, own.text]
        confidence = robot_answer(item, labelers.WORKERS[4]).model_dump()["confidence"]
        assert row.choice == int(confidence > 5) and reference.policy == "ref"
        policies.setdefault((row.info.id, own.text), set()).add(own.policy or "")
    # The last 5 % may stay open; here they are answered, but not needed.
    assert len(policies) == int(0.95 * len(items))
    assert any({name[:3] for name in found} == {"ppo", "sft"} for found in policies.values())
    report = json.loads((ctx.folder / "judge.json").read_text())
    assert report["items"] == len(items) and report["answered"] == len(policies)


def test_an_empty_summary_is_not_asked_but_counted(ctx: JudgeRun, lab: Path) -> None:
    first = read_records(lab / "score" / "samples.jsonl", Sample)[0].id
    settings = SETTINGS.model_copy(update={"posts": 24})
    whole = laboratory.replace(ctx, settings=settings)
    answered(whole)
    laboratory.run(whole, "judge")
    assert json.loads((ctx.folder / "judge.json").read_text())["empty_summaries"] >= 1
    items = read_items(ctx.folder.parent / LABELING / ctx.folder.name / "items.jsonl")
    assert any(item.info.id == first for item in items), "the other policy's text of the post is asked"


def test_too_few_answers_wait_and_a_second_start_asks_the_same(ctx: JudgeRun) -> None:
    place = answered(ctx, 3)
    before = (place / "items.jsonl").read_bytes()
    with pytest.raises(Waiting, match="waiting for labels: 3 of"):
        laboratory.run(ctx, "judge")
    assert (place / "items.jsonl").read_bytes() == before
    assert not (ctx.folder / "comparisons.jsonl").exists()
    with pytest.raises(UsageError, match="other items"):
        laboratory.run(laboratory.replace(ctx, seed=5), "judge")


def test_only_the_temperatures_that_are_asked_for(ctx: JudgeRun) -> None:
    cold = SETTINGS.model_copy(update={"temperatures": [0.0]})
    answered(laboratory.replace(ctx, settings=cold))
    laboratory.run(laboratory.replace(ctx, settings=cold), "judge")
    names = {row.summaries[0].policy for row in read_records(ctx.folder / "comparisons.jsonl", Comparison)}
    assert names == {"ppo-s-t0-p1", "sft-s-t0-p1"}


def test_trap_the_order_that_people_saw_is_not_the_files(ctx: JudgeRun) -> None:
    """In the file the sample comes first; on the page the order is drawn by chance."""
    answered(ctx)
    laboratory.run(ctx, "judge")
    run = StudyRun("judge-s0", "judge", ctx.folder, seed=0, parents={"samples-ppo-s": "score"})
    verdicts = read_verdicts(StudyRuns(ctx.folder.parent, (run,)))
    assert verdicts.judges == ["people"] and "not drawn by chance" not in verdicts.about("people")
    shown = int(verdicts.table["shown_first"].sum())
    rows = read_records(ctx.folder / "comparisons.jsonl", Comparison)
    orders = [(row.extra.model_extra or {})["order"] for row in rows]
    assert shown == sum(order[0] == 0 for order in orders) and 0 < shown < len(rows)
    assert set(verdicts.table["runs"]) == {"score"}
