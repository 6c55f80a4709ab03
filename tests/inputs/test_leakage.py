"""The table of what may share posts, set by set, and the counts of what is shared."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest

from tldr.errors import RecordError, UsageError
from tldr.inputs.leakage import (
    LABELS,
    LEAKS,
    POSTS,
    Collected,
    Overlap,
    PostSet,
    check_leaks,
    collect_folder,
    folder_keys,
    forbidden,
    label_keys,
    overlaps,
    read_set,
)
from tldr.inputs.posts import post_keys
from tldr.records import Article, CandidateSummary, Info, Post, Ranking, write_records
from tldr.stages.data.overlap import collect_study
from tldr.stages.data.settings import FileData

ONLY_REPORT = ("valid2", "test", "validation_valid2", "validation_unmarked")
LEAKING = {
    *((name, place) for name in ("sft", "ppo", "labels/train", "labels/valid1") for place in ONLY_REPORT),
    *(("valid1", place) for place in ONLY_REPORT),
    ("sft", "valid1"), ("sft", "labels/valid1"), ("sft", "labels/valid2"), ("ppo", "valid1"),
    ("labels/train", "valid1"), ("labels/train", "labels/valid1"), ("labels/train", "labels/valid2"),
    ("valid1", "labels/valid2"), ("labels/valid1", "labels/valid2"),
}  # fmt: skip
"""Written out a second time: what the docstring's table says."""


def post(id: str, body: str | None = None) -> Post:
    return Post(id=id, subreddit="s", title="t", post=body or f"body of {id}", summary="s")


def label(split: str, id: str | None, body: str | None = None) -> Ranking:
    return Ranking(
        info=Info(id=id, subreddit="s", title="t", post=body or f"body of {id}"),
        summaries=[CandidateSummary(text=" a", policy="p"), CandidateSummary(text=" b", policy="q")],
        rank=[1, 2],
        worker="w",
        batch="b",
        split=split,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(("first", "second"), list(permutations((*POSTS, *LABELS), 2)))
def test_each_pair_of_sets_is_a_leak_or_normal(first: str, second: str) -> None:
    shared = post_keys([post("t3_shared")])
    sets = {name: post_keys([post(f"t3_{name}")]) for name in (*POSTS, *LABELS)}
    check_leaks(sets)
    sets[first] |= shared
    sets[second] |= shared
    if {(first, second), (second, first)} & LEAKING:
        with pytest.raises(UsageError, match=f"'({first}|{second})' are in '({first}|{second})'"):
            check_leaks(sets)
    else:
        check_leaks(sets)
    assert (forbidden(first, second) or forbidden(second, first)) == bool(
        {(first, second), (second, first)} & LEAKING
    )


def test_trap_reward_labels_of_evaluation_posts_are_refused_by_id_or_body() -> None:
    valid2 = post_keys([post("t3_a", "The  dog\n\nran.")])
    for leaking in (label("train", "t3_a", "other"), label("train", None, "The dog ran.")):
        with pytest.raises(UsageError, match=r"'valid2' are in 'labels/train'"):
            check_leaks({"valid2": valid2} | label_keys({"train": [leaking]}))
    check_leaks({"valid2": valid2} | label_keys({"train": [label("train", "t3_b")]}))


def test_overlaps_count_ids_bodies_and_posts() -> None:
    a = PostSet.of([post("1"), post("2"), post("3", "same"), Info(id=None, post="nameless"), post("9")])
    b = PostSet.of([post("1"), post("2", "changed"), post("4", "same"), Article(id="5", article="nameless")])
    rows = {(row.first, row.second): row for row in overlaps({"sft": a, "valid2": b, "mine": b})}
    # ids 1 and 2; bodies of 1, "same" and "nameless"; so four posts of a's five
    assert rows["sft", "valid2"] == Overlap("sft", "valid2", 2, 3, 4, leak=True)
    assert rows["valid2", "sft"] == Overlap("valid2", "sft", 2, 3, 4, leak=True)
    assert not rows["sft", "mine"].leak
    assert overlaps({"a": PostSet.of([post("1"), post("1", "x")]), "b": PostSet.of([post("1")])}) == [
        Overlap("a", "b", 1, 1, 2),
        Overlap("b", "a", 1, 1, 1),
    ]


def test_labels_of_two_folds_may_share_posts() -> None:
    assert forbidden("labels/fold-0/train", "labels/fold-0/valid2")
    assert not forbidden("labels/fold-0/train", "labels/fold-1/valid2")
    assert forbidden("labels/fold-0/train", "valid2") and forbidden("sft", "labels/fold-3/valid1")
    assert forbidden("mine", "yours", {**LEAKS, "mine": ["yours"]})


def test_a_data_folder_its_labels_and_folds_are_read(tmp_path: Path) -> None:
    data, labels, folds = tmp_path / "data", tmp_path / "labels", tmp_path / "folds"
    for name in POSTS:
        write_records(data / f"{name}.jsonl", [post(f"t3_{name}")])
    write_records(data / "rankings.jsonl", [label("train", "t3_x"), label("valid2", "t3_y")])
    for split in ("train", "valid1", "valid2"):
        write_records(labels / f"{split}.jsonl", [label(split, f"t3_{split}")])
        write_records(folds / "fold-1" / f"{split}.jsonl", [label(split, f"t3_{split}")])
    found = Collected()
    collect_folder(data, found)
    assert set(found.sets) == {*POSTS, "labels/train", "labels/valid2"}
    assert found.sets["labels/train"].ids == {"t3_x"}
    assert folder_keys(data)["ppo"] == post_keys([post("t3_ppo")])
    collect_folder(labels, found)
    assert found.sets["labels/train"].ids == {"t3_train"}
    collect_folder(folds, found)
    assert found.sets["labels/fold-1/valid2"].ids == {"t3_valid2"}
    with pytest.raises(UsageError, match="holds neither posts"):
        collect_folder(tmp_path, found)


def test_a_studys_files_are_read_and_bad_lines_counted(tmp_path: Path) -> None:
    names = {}
    for name in ("sft", "valid1", "valid2"):
        names[name] = str(write_records(tmp_path / f"{name}.jsonl", [post(f"t3_{name}")]))
    with (tmp_path / "sft.jsonl").open("a") as out:
        out.write("{broken\n")
    with pytest.raises(RecordError, match=r"sft\.jsonl:2: "):
        collect_study(FileData(**names), Collected())
    found = Collected()
    collect_study(FileData(**names, on_error="skip"), found)
    assert found.sets["sft"] == found.sets["ppo"]
    assert [len(report.bad) for report in found.reports] == [1, 1, 0, 0]
    with pytest.raises(UsageError, match="holds no post"):
        read_set("empty", write_records(tmp_path / "empty.jsonl", []), found)


def test_a_studys_validation_posts_are_divided_before_they_are_compared(tmp_path: Path) -> None:
    names = {"sft": ["t3_sft"], "valid1": ["t3_1", "t3_2", "t3_both", "t3_none"], "valid2": ["t3_test"]}
    files = {n: str(write_records(tmp_path / f"{n}.jsonl", map(post, ids))) for n, ids in names.items()}
    marks = [("valid1", "t3_1"), ("valid2", "t3_2"), ("valid1", "t3_both"), ("valid2", "t3_both")]
    labels = [label("train", "t3_sft"), label("valid2", "t3_out"), *(label(*mark) for mark in marks)]
    files["comparisons"] = str(write_records(tmp_path / "comparisons.jsonl", labels))
    found = Collected()
    collect_study(FileData.model_validate(files), found)
    assert found.sets["valid1"].ids == {"t3_1", "t3_both"}
    assert found.sets["validation_unmarked"].ids == {"t3_none"}
    assert found.sets["validation_valid2"].ids == {"t3_2"} and found.sets["valid2"].ids == {"t3_test"}
    assert found.sets["labels/valid1"].ids == {"t3_1", "t3_both"}
    assert found.sets["labels/valid2"].ids == {"t3_2", "t3_out"}
    assert not any(pair.leak and pair.either for pair in overlaps(found.sets))
    one_file = FileData.model_validate(files | {"valid2": files["valid1"], "test": files["valid2"]})
    found = Collected()
    collect_study(one_file, found)
    assert found.sets["valid2"].ids == {"t3_2"} and "validation_valid2" not in found.sets
    assert found.sets["validation_unmarked"].ids == {"t3_none"} and found.sets["test"].ids == {"t3_test"}
    assert not any(pair.leak and pair.either for pair in overlaps(found.sets))
