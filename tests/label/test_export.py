"""Labels as records, and through other tools' files and back."""

from __future__ import annotations

import html
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.label.kit import ANSWERS, Bench, an_item, bench
from tldr.errors import RecordError, UsageError
from tldr.inputs.posts import load_comparisons, load_posts
from tldr.label.argilla import read_argilla, user_id, write_argilla
from tldr.label.desk import Sent
from tldr.label.export import write_labels
from tldr.label.foreign import ForeignLabel, from_fields, take_in, to_fields
from tldr.label.given import GivenLabel, read_labels
from tldr.label.items import LabelItem
from tldr.label.label_studio import config_xml, read_label_studio, write_label_studio
from tldr.label.potato import read_potato, write_potato
from tldr.records import Comparison, Ranking, Rating, read_records

HOSTILE = "</script><script>alert(1)</script> \"'&<b> {{7*7}} \u2028 \u202e \U0001f600"


def items() -> list[LabelItem]:
    kinds = ("comparison", "ranking", "rating", "demonstration", "comparison")
    found = [an_item(n, kind) for n, kind in enumerate(kinds)]  # type: ignore[arg-type]
    found.append(an_item(5, role="calibration", known={"confidence": 9}))
    found.append(an_item(6, role="training", known={"confidence": 9}))
    return found


@pytest.fixture
def labeled(tmp_path: Path) -> Bench:
    """Two labelers on every item, with hostile notes; one of them skips the fifth."""
    made = bench(tmp_path / "folder", items(), labelers_per_item=2, calibration=0.95)
    for number, who in enumerate(made.people):
        while (shown := made.desk.next(who)) is not None:
            made.clock.now += 20
            sent = Sent(shown.ticket, f"answer-{shown.ticket}", 12.5, 3.0)
            if shown.item.id == "item-4" and number:
                made.desk.skip(who, sent, "cannot-tell", HOSTILE)
            else:
                notes = [f"{HOSTILE} {n}" for n in range(len(shown.item.summaries))]
                made.desk.answer(who, sent, {**ANSWERS[shown.item.kind], "notes": notes})
    return made


def test_records_have_openais_fields_and_our_readers_take_them(labeled: Bench, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert write_labels(read_labels(labeled.project.database), out) == {
        "comparisons.jsonl": 3,
        "rankings.jsonl": 2,
        "ratings.jsonl": 2,
        "demonstrations.jsonl": 2,
        "calibration/comparisons.jsonl": 2,
        "skipped.jsonl": 1,
    }
    first = json.loads((out / "comparisons.jsonl").read_text().strip("\n").split("\n")[0])
    assert set(first) == {"info", "summaries", "choice", "worker", "batch", "split", "extra"}
    assert first["worker"] == "worker-00" and first["split"] == "train" and first["batch"] == "b1"
    swapped = first["extra"]["order"] == [1, 0]
    assert (first["choice"], first["extra"]["confidence"]) == ((0, 2) if swapped else (1, 8))
    assert first["summaries"][0]["note"] == f"{HOSTILE} {int(swapped)}"
    assert first["extra"] | {"order": 0, "at": 0, "confidence": 0} == {
        "item": "item-0", "seconds": 12.5, "idle": 3.0, "order": 0, "at": 0, "confidence": 0,
    }  # fmt: skip
    assert [row.worker for row in read_records(out / "comparisons.jsonl", Comparison)] == [
        "worker-00", "worker-01", "worker-00",
    ]  # fmt: skip
    assert {row.summary.axes.accuracy for row in read_records(out / "ratings.jsonl", Rating)} == {7}
    assert {sum(row.rank) for row in read_records(out / "rankings.jsonl", Ranking)} == {5}
    assert len(load_comparisons(out / "comparisons.jsonl")) == 3
    (post, again) = load_posts(out / "demonstrations.jsonl")
    assert post.id == again.id == "post-3" and post.summary == "a summary of three"
    (skipped,) = (json.loads(line) for line in (out / "skipped.jsonl").read_text().strip("\n").split("\n"))
    assert (skipped["reason"], skipped["note"], skipped["worker"]) == ("cannot-tell", HOSTILE, "worker-01")
    assert "name 0" not in "".join(file.read_text() for file in out.rglob("*.jsonl")), (
        "names stay with the owner"
    )


def test_an_export_is_the_same_again_and_marks_labelers(labeled: Bench, tmp_path: Path) -> None:
    def files(name: str, **more: Any) -> dict[str, bytes]:
        write_labels(read_labels(labeled.project.database), tmp_path / name, **more)
        return {
            str(f.relative_to(tmp_path / name)): f.read_bytes() for f in (tmp_path / name).rglob("*.jsonl")
        }

    before = files("one")
    assert before == files("two")
    labeled.project.labelers.set_status("worker-01", "dropped")
    after = files("one")
    assert after.keys() == before.keys() and b'"labeler": "dropped"' in after["comparisons.jsonl"]
    left = files("one", leave_out=["dropped"])
    assert "skipped.jsonl" not in left and b"worker-01" not in b"".join(left.values())


def core(label: GivenLabel) -> tuple[object, ...]:
    return (label.item.id, label.labeler.worker, label.answer, label.skip, label.seconds)


@pytest.mark.parametrize("tool", ["label-studio", "potato", "argilla"])
def test_a_round_trip_through_another_tool(labeled: Bench, tmp_path: Path, tool: str) -> None:
    """Answers, notes, skips, workers and seconds survive; order shown, idle time and time of day do not.

    Argilla keeps no seconds, and knows workers by a UUID: who has a link here already is known again.
    """
    given = read_labels(labeled.project.database)
    people = [person.worker for person in labeled.project.labelers.all()]
    empty = bench(tmp_path / "empty", items(), people=0)
    out, known = tmp_path / "out", labeled.project.items()
    if tool == "label-studio":
        write_label_studio(known, given, out)
        read = [
            label for file in sorted(out.glob("*-tasks.json")) for label in read_label_studio(file, known)
        ]
    elif tool == "potato":
        write_potato(known, given, out)
        read = list(read_potato(out, known))
    else:
        write_argilla(known, given, out, each=2)
        read = list(read_argilla(out, known, people))
    counts = take_in(empty.project, read)
    assert counts == {"added": 11, "skips": 1, "there already": 0}
    wanted = [core(label) for label in given if label.item.role != "training"]
    if tool == "argilla":
        wanted = [(*kept, 0.0) for *kept, _ in wanted]
    assert [core(label) for label in read_labels(empty.project.database)] == wanted
    assert take_in(empty.project, read) == {"added": 0, "skips": 0, "there already": 12}
    assert take_in(labeled.project, read)["there already"] == 12


def test_label_studios_own_annotations(tmp_path: Path) -> None:
    """As its server exports them: people by number, no field of ours but the item."""
    made = bench(tmp_path, [an_item(0), an_item(1, "ranking")], people=0)
    result = [
        {
            "from_name": "confidence",
            "to_name": "post",
            "type": "choices",
            "value": {"choices": ["7"]},
            "id": "x",
        },
        {"from_name": "note_1", "to_name": "summary_1", "type": "textarea", "value": {"text": ["a", "b"]}},
    ]
    ranks = [
        {"from_name": f"rank_{n}", "to_name": f"summary_{n}", "type": "number", "value": {"number": rank}}
        for n, rank in enumerate((1, 2, 2), 1)
    ]
    tasks: list[dict[str, Any]] = [
        {"id": 7, "data": {"item": "item-0"}, "annotations": [
            {"id": 3, "completed_by": 4, "lead_time": 9.5, "result": result, "was_cancelled": False},
            {"id": 4, "completed_by": {"id": 5, "email": "a@b"}, "result": [], "was_cancelled": True},
        ]},
        {"id": 8, "data": {"item": "item-1"}, "annotations": [{"id": 5, "completed_by": 4, "result": ranks}]},
    ]  # fmt: skip
    file = tmp_path / "export.json"
    file.write_text(json.dumps(tasks))
    assert take_in(made.project, read_label_studio(file, made.project.items())) == {
        "added": 2, "skips": 1, "there already": 0,
    }  # fmt: skip
    first, skipped, ranked = read_labels(made.project.database)
    assert first.labeler.worker == "label-studio-4" and first.seconds == 9.5
    assert first.answer is not None and "a\nb" in first.answer.notes
    assert skipped.skip == {"reason": "other", "note": ""}
    assert ranked.answer is not None and sorted(ranked.answer.model_dump()["rank"]) == [1, 2, 2]


def test_argillas_own_answers(tmp_path: Path) -> None:
    """As `dataset.records.to_json` of its SDK writes them: no status, users who are nobody here, no skips."""
    made = bench(tmp_path, [an_item(0), an_item(1, "ranking")], people=1)
    (here,) = [person.worker for person in made.project.labelers.all()]
    known, stranger = made.project.items(), "8f0c8f3e-61a5-4c32-9a6f-0e8a7f1f6a11"
    rank = {f"rank_{n}": [{"value": str(r), "user_id": stranger}] for n, r in enumerate((3, 1, 1), 1)}
    answers: dict[str, Any] = {
        "confidence": [{"value": "7", "user_id": user_id(here)}, {"value": "2", "user_id": stranger}],
        "note_1": [{"value": "long", "user_id": user_id(here)}],
    }
    draft = {"confidence": [{"value": "1", "user_id": "someone", "status": "draft"}]}
    records = [
        {"id": "item-0", "fields": {}, "responses": answers, "status": "completed", "_server_id": "x"},
        {"id": "item-1", "fields": {}, "responses": rank},
        {"id": "item-0", "fields": {}, "responses": draft},
    ]
    file = tmp_path / "records.json"
    file.write_text(json.dumps(records))
    read = list(read_argilla(file, known, [here]))
    assert [(label.item, label.worker) for label in read] == [
        ("item-0", here),
        ("item-0", f"argilla-{stranger}"),
        ("item-1", f"argilla-{stranger}"),
    ]
    assert take_in(made.project, read)["added"] == 3
    taken = {(label.item.id, label.labeler.worker): label for label in read_labels(made.project.database)}
    first, ranked = taken["item-0", here], taken["item-1", f"argilla-{stranger}"]
    assert first.answer is not None and "long" in first.answer.notes
    assert ranked.answer is not None and sorted(ranked.answer.model_dump()["rank"]) == [1, 1, 3]
    for text, wrong in (("{", UsageError), ('{"a": 1}', UsageError), ('[{"id": "item-0"}]', RecordError)):
        file.write_text(text)
        with pytest.raises(wrong):
            list(read_argilla(file, known, []))


def test_argillas_sdk_reads_the_files(labeled: Bench, tmp_path: Path) -> None:
    """Its own classes, without a server: the records, the form and the name of every task."""
    pytest.importorskip("argilla", reason="pip install argilla requests")
    from argilla._models import DatasetModel, FieldModel, QuestionModel
    from argilla.records._io import JsonIO

    items, labels = labeled.project.items(), read_labels(labeled.project.database)
    counts = write_argilla(items, labels, tmp_path, each=2)
    for kind, count in counts.items():
        folder = tmp_path / kind
        records = JsonIO._records_from_json(folder / "records.json")
        assert len(records) == count
        again = tmp_path / f"{kind}-again.json"
        JsonIO.to_json(records, again)
        before, after = (list(read_argilla(file, items, [])) for file in (folder / "records.json", again))
        assert [replace(label, where="") for label in before] == [replace(label, where="") for label in after]
        statuses = {answer.status.value for record in records for answer in record.responses}
        assert "submitted" in statuses and statuses <= {"submitted", "discarded"}
        form = json.loads((folder / ".argilla" / "settings.json").read_text())
        questions = [QuestionModel(**question) for question in form["questions"]]
        assert any(question.required for question in questions)
        asked = {question.name for question in questions}
        assert {one.question_name for record in records for one in record.responses} <= asked
        assert {FieldModel(**field).name for field in form["fields"]} >= set(records[0].fields)
        assert DatasetModel(**json.loads((folder / ".argilla" / "dataset.json").read_text())).name == kind


def test_foreign_files_that_are_wrong(tmp_path: Path) -> None:
    made = bench(tmp_path, [an_item(0)], people=0)
    known, file = made.project.items(), tmp_path / "wrong.json"
    for text in ("{", '{"a": 1}', "\udcff"):
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(UsageError):
            list(read_label_studio(file, known))
    file.write_text('[{"data": {}}]')
    with pytest.raises(RecordError, match="task 0"):
        list(read_label_studio(file, known))
    with pytest.raises(UsageError, match="user_state"):
        list(read_potato(tmp_path, known))
    (tmp_path / "user_state.json").write_text('{"user_id": "a"}')
    with pytest.raises(RecordError, match="user_state"):
        list(read_potato(tmp_path, known))
    good = ForeignLabel("item-0", "w", {"confidence": "3"}, 1.0, "id-1", "file:1")
    for fields, told in (
        ({}, "missing"),
        ({"confidence": "5"}, "no middle"),
        ({"confidence": "x"}, "whole number"),
    ):
        with pytest.raises(RecordError, match=told):
            take_in(made.project, [good, ForeignLabel("item-0", "v", fields, 1.0, "id-2", "file:2")])
    with pytest.raises(RecordError, match="no item 'other'"):
        take_in(made.project, [ForeignLabel("other", "w", {}, 1.0, "id-3", "file:3")])
    assert read_labels(made.project.database) == [], "nothing of a wrong file is added"


def test_fields_and_back(labeled: Bench) -> None:
    for label in read_labels(labeled.project.database):
        if label.answer is not None:
            assert from_fields(label.item, to_fields(label)) == label.answer


def test_other_tools_get_texts_as_text(labeled: Bench, tmp_path: Path) -> None:
    hostile = [an_item(0, info={"id": "p", "title": HOSTILE, "post": HOSTILE})]
    write_potato(hostile, [], tmp_path)
    row = json.loads((tmp_path / "comparison" / "data.jsonl").read_text())
    assert "<script" not in row["text"] and html.escape(HOSTILE) in row["text"]
    config = yaml.safe_load((tmp_path / "comparison" / "config.yaml").read_text())
    assert [scheme["name"] for scheme in config["annotation_schemes"]][:3] == [
        "says_1",
        "says_2",
        "confidence",
    ]
    assert config_xml("ranking", 4).count("<Number") == 4
