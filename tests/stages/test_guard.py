"""The leakage guard where stages meet it, and that nothing is chosen on what is reported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.inputs.test_leakage import label, post
from tests.stages import lab as laboratory
from tldr.errors import RecordError, UsageError
from tldr.inputs.posts import load_comparisons, load_posts
from tldr.records import Ranking, write_records
from tldr.settings.base import Settings
from tldr.stages.data import stage as data_stage
from tldr.stages.data.settings import DataSettings, FileData, TokenizerSpec
from tldr.stages.labels import LabelsInputs
from tldr.stages.labels import stage as labels_stage
from tldr.stages.labels.settings import LabelsSettings
from tldr.stages.shared.context import RunContext
from tldr.stages.shared.corpus import read_corpus
from tldr.train.checkpoint import hash_folder

FOLDS = [label("valid2", f"t3_label{number}") for number in range(40)]


def context(folder: Path, settings: Settings, data: Path) -> RunContext[Any, Any]:
    folder.mkdir(exist_ok=True)
    return RunContext(settings=settings, folder=folder, inputs=LabelsInputs(data=data))


def given(folder: Path, *labels: Ranking) -> Path:
    """A data folder with a post a set, and labels: SFT's are of train, valid1's and valid2's of theirs."""
    for name in ("sft", "ppo", "valid1", "valid2"):
        write_records(folder / f"{name}.jsonl", [post(f"t3_{name}")])
    own = [label("train", "t3_sft"), label("valid1", "t3_valid1"), label("valid2", "t3_valid2")]
    write_records(folder / "rankings.jsonl", [*own, *labels])
    return folder


def test_labels_of_their_own_posts_pass(tmp_path: Path) -> None:
    data = given(tmp_path / "data", label("train", "t3_ppo"))
    labels_stage.run(context(tmp_path / "out", LabelsSettings(), data))
    rows = load_comparisons(tmp_path / "out" / "train.jsonl")
    assert [row.info.id for row in rows] == ["t3_sft", "t3_ppo"]


def released(folder: Path, *labels: Ranking, **posts: list[str]) -> FileData:
    """Posts and labels that overlap as the release's do: one file of validation posts, with both marks.

    Args:
        labels: further labels.
        posts: ids of further posts by set.
    """
    ids = {
        "sft": ["t3_sft"],
        "valid1": [f"t3_{n}" for n in range(1, 10)],
        "valid2": ["t3_test1", "t3_test2"],
    }
    files = {
        name: str(write_records(folder / f"{name}.jsonl", map(post, [*own, *posts.get(name, [])])))
        for name, own in ids.items()
    }
    if "ppo" in posts:
        files["ppo"] = str(write_records(folder / "ppo.jsonl", map(post, posts["ppo"])))
    marks = [("valid1", "t3_1"), ("valid1", "t3_2"), ("valid2", "t3_3"), ("valid2", "t3_4")]
    marks += [("valid2", "t3_5"), ("valid1", "t3_6"), ("valid2", "t3_6"), ("valid2", "t3_3")]
    outside = [("train", "t3_sft"), ("train", "t3_a"), ("valid1", "t3_b"), ("valid2", "t3_c")]
    nameless = label("valid2", None, "body  of\nt3_7")
    rows = [label(split, id) for split, id in marks + outside]
    files["comparisons"] = str(write_records(folder / "comparisons.jsonl", [*rows, nameless, *labels]))
    return FileData.model_validate(files)


def both_stages(source: FileData, folder: Path) -> dict[str, Any]:
    """Run the data stage into ``data`` and the labels stage into ``labels``; the data's manifest."""
    settings = DataSettings(data=source, tokenizer=TokenizerSpec(vocab_size=300))
    folder.mkdir(exist_ok=True)
    data_stage.run(context(folder / "data", settings, folder))
    labels_stage.run(context(folder / "labels", LabelsSettings(), folder / "data"))
    manifest: dict[str, Any] = json.loads((folder / "data" / "manifest.json").read_text())
    return manifest


def post_ids(file: Path) -> list[str]:
    return [row.id for row in load_posts(file)]


def labelled(file: Path) -> list[str]:
    """Ids of the labels' posts, without those made for labels that have none."""
    return [row.info.id or "" for row in load_comparisons(file) if not (row.info.id or "").startswith("h_")]


def test_trap_validation_posts_marked_valid2_only_report(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = both_stages(released(tmp_path), tmp_path / "out")
    data, labels = tmp_path / "out" / "data", tmp_path / "out" / "labels"
    assert post_ids(data / "valid1.jsonl") == ["t3_1", "t3_2", "t3_6"]
    assert post_ids(data / "validation_unmarked.jsonl") == ["t3_8", "t3_9"]
    assert post_ids(data / "validation_valid2.jsonl") == ["t3_3", "t3_4", "t3_5", "t3_7"]
    assert post_ids(data / "valid2.jsonl") == ["t3_test1", "t3_test2"]
    assert labelled(labels / "train.jsonl") == ["t3_sft", "t3_a"]
    assert labelled(labels / "valid1.jsonl") == ["t3_1", "t3_2", "t3_6", "t3_b"]
    assert labelled(labels / "valid2.jsonl") == ["t3_3", "t3_4", "t3_5", "t3_3", "t3_c"]
    assert len(load_comparisons(labels / "valid2.jsonl")) == 6  # and the one without an id
    aside = load_comparisons(data / "rankings_set_aside.jsonl")
    assert [(row.info.id, row.split) for row in aside] == [("t3_6", "valid2")]
    counts = {"posts": 9, "valid1": 2, "valid2": 4, "both": 1, "unmarked": 2, "labels_set_aside": 1}
    assert manifest["validation"] == counts | {"paper_selected": 1913}
    files = {"sft": 1, "ppo": 1, "valid1": 3, "valid2": 2, "validation_valid2": 4, "validation_unmarked": 2}
    assert manifest["records"] == files | {"rankings": 12, "rankings_set_aside": 1}
    assert "of 9 validation posts, the comparisons mark 2 valid1 and 1 both" in caplog.text
    assert "the paper selected on 1913 of 6447" in caplog.text and "(these report apart)" in caplog.text


def test_one_file_of_validation_posts_given_as_both_sets_is_divided(tmp_path: Path) -> None:
    source = released(tmp_path)
    whole = {"valid2": source.valid1, "test": source.valid2, "report_unmarked": True}
    manifest = both_stages(source.model_copy(update=whole), tmp_path / "out")
    data = tmp_path / "out" / "data"
    assert post_ids(data / "valid1.jsonl") == ["t3_1", "t3_2", "t3_6"]
    assert post_ids(data / "valid2.jsonl") == ["t3_3", "t3_4", "t3_5", "t3_7"]
    assert post_ids(data / "validation_unmarked.jsonl") == ["t3_8", "t3_9"]
    assert post_ids(data / "test.jsonl") == ["t3_test1", "t3_test2"]
    assert not (data / "validation_valid2.jsonl").exists()
    assert manifest["records"]["test"] == 2


def test_a_study_that_reports_on_unmarked_posts_needs_some(tmp_path: Path) -> None:
    source = released(tmp_path, label("valid1", "t3_8"), label("valid2", "t3_9"))
    asked = source.model_copy(update={"report_unmarked": True})
    with pytest.raises(UsageError, match="no validation post is left unmarked") as error:
        both_stages(asked, tmp_path / "out")
    assert error.value.where == "data.report_unmarked"


LEAKS_OF_A_RELEASE: dict[str, tuple[list[Ranking], dict[str, list[str]], str]] = {
    "SFT on a post that only reports": ([], {"sft": ["t3_3"]}, "'validation_valid2' are in 'sft'"),
    "SFT on a post that selects": ([], {"sft": ["t3_6"]}, "'valid1' are in 'sft'"),
    "PPO on a post that only reports": ([], {"ppo": ["t3_4"]}, "'validation_valid2' are in 'ppo'"),
    "SFT on a test post": ([], {"sft": ["t3_test1"]}, "'valid2' are in 'sft'"),
    "SFT on a labelled post outside": ([], {"sft": ["t3_c"]}, "'labels/valid2' are in 'sft'"),
    "training labels of a post that reports": (
        [label("train", "t3_5")],
        {},
        "'validation_valid2' are in 'la",
    ),
    "training labels of a post with both marks": (
        [label("train", "t3_6")],
        {},
        "'valid1' are in 'labels/train'",
    ),
    "training labels of an unmarked post": (
        [label("train", "t3_8")],
        {},
        "'validation_unmarked' are in 'labels/train'",
    ),
    "both marks on a post outside": ([label("valid1", "t3_c")], {}, "'labels/valid2' are in 'labels/valid1'"),
    "a test post marked valid1": ([label("valid1", "t3_test2")], {}, "'valid2' are in 'labels/valid1'"),
    "SFT on an unmarked post": ([], {"sft": ["t3_9"]}, "'validation_unmarked' are in 'sft'"),
    "a post that selects among the test posts": ([], {"valid2": ["t3_6"]}, "'valid2' are in 'valid1'"),
}


@pytest.mark.parametrize("leak", LEAKS_OF_A_RELEASE)
def test_what_leaks_in_a_release_is_refused(tmp_path: Path, leak: str) -> None:
    labels, posts, told = LEAKS_OF_A_RELEASE[leak]
    with pytest.raises(UsageError, match=told):
        both_stages(released(tmp_path, *labels, **posts), tmp_path / "out")
    assert not (tmp_path / "out" / "labels" / "train.jsonl").exists()


def test_sets_that_do_not_overlap_are_written_as_given(tmp_path: Path) -> None:
    folder = given(tmp_path / "given")
    files = {name: str(folder / f"{name}.jsonl") for name in ("sft", "ppo", "valid1", "valid2")}
    source = FileData.model_validate(files | {"comparisons": str(folder / "rankings.jsonl")})
    manifest = both_stages(source, tmp_path / "out")
    assert set(manifest) == {"records", "ppo_posts_are_sft_posts", "white_space"}
    written = {path.name for path in (tmp_path / "out" / "data").glob("*.jsonl")}
    assert written >= {"sft.jsonl", "ppo.jsonl", "valid1.jsonl", "valid2.jsonl", "rankings.jsonl"}
    for name in ("sft", "ppo", "valid1", "valid2", "rankings"):
        given_bytes = (folder / f"{name}.jsonl").read_bytes()
        assert (tmp_path / "out" / "data" / f"{name}.jsonl").read_bytes() == given_bytes
    assert not written & {"validation_valid2.jsonl", "rankings_set_aside.jsonl"}


@pytest.mark.parametrize("split", ["valid1", "valid2"])
def test_trap_labels_to_train_on_may_not_be_of_the_studys_evaluation_posts(
    tmp_path: Path, split: str
) -> None:
    """... even where no labelled post is in two splits of the labels, and the rows have no ids."""
    data = given(tmp_path / "data", label("train", None, f"body  of\nt3_{split}"))
    rows = [row for row in load_comparisons(data / "rankings.jsonl") if row.info.id != f"t3_{split}"]
    write_records(data / "rankings.jsonl", [*rows, label(split, "t3_unseen")])
    with pytest.raises(UsageError, match=f"'{split}' are in 'labels/train'"):
        labels_stage.run(context(tmp_path / "out", LabelsSettings(), data))
    assert not (tmp_path / "out" / "train.jsonl").exists()


def test_labels_in_folds_are_held_against_the_posts_too(tmp_path: Path) -> None:
    data = given(tmp_path / "data")
    write_records(data / "rankings.jsonl", FOLDS)
    labels_stage.run(context(tmp_path / "apart", LabelsSettings(folds=2), data))
    assert (tmp_path / "apart" / "fold-1" / "train.jsonl").is_file()
    for name in ("sft", "valid1"):  # sooner or later in valid2 of a fold, and in train of another
        write_records(data / "rankings.jsonl", [*FOLDS, label("valid2", f"t3_{name}")])
        with pytest.raises(UsageError, match="evaluation posts are trained on"):
            labels_stage.run(context(tmp_path / name, LabelsSettings(folds=2), data))
    write_records(data / "rankings.jsonl", [*FOLDS, label("valid2", "t3_ppo")])
    labels_stage.run(context(tmp_path / "ppo", LabelsSettings(folds=2), data))


def test_bad_lines_of_a_studys_files_stop_it_or_are_counted(tmp_path: Path) -> None:
    data = given(tmp_path / "given")
    whole = (data / "sft.jsonl").read_bytes()
    (data / "sft.jsonl").write_bytes(whole + b'{"id": NaN}\n[]\n')
    with (data / "rankings.jsonl").open("ab") as out:
        out.write(b'{"info": {}}\n')
    named = {name: str(data / f"{name}.jsonl") for name in ("sft", "valid1", "valid2")}
    named["comparisons"] = str(data / "rankings.jsonl")

    def collect(folder: Path, **changes: str) -> None:
        files = FileData.model_validate({**named, **changes})
        settings = DataSettings(data=files, tokenizer=TokenizerSpec(vocab_size=300))
        data_stage.run(context(folder, settings, folder))

    with pytest.raises(RecordError, match=r"sft\.jsonl:2: "):
        collect(tmp_path / "stop")
    collect(tmp_path / "skip", on_error="skip")
    manifest = json.loads((tmp_path / "skip" / "manifest.json").read_text())
    assert manifest["bad_lines"] == {"sft": 2, "ppo": 2, "rankings": 1}
    lines = (tmp_path / "skip" / "bad_lines.txt").read_text().splitlines()
    broken = [*(f"sft.jsonl:{number}" for number in (2, 3, 2, 3)), "rankings.jsonl:4"]
    assert [line.split(": ")[0].rsplit("/", 1)[1] for line in lines] == broken
    assert (tmp_path / "skip" / "sft.jsonl").read_bytes() == whole


def test_a_corpus_line_may_hold_any_character_but_broken_json(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_bytes('{"text": "a \u2028 b \x85 c"}\n'.encode())
    assert read_corpus(tmp_path) == [{"text": "a \u2028 b \x85 c"}]
    for line in (b'{"text": "\xff"}', b'{"text": ""}', b"[]", b'{"text": "a", "text": "b"}'):
        (tmp_path / "corpus.jsonl").write_bytes(b'{"text": "a"}\n' + line)
        with pytest.raises(UsageError, match=r"corpus\.jsonl:2: not a corpus document"):
            read_corpus(tmp_path)


def test_labels_from_elsewhere_are_held_against_the_posts_by_the_reward_stage(
    lab: Path, tmp_path: Path
) -> None:
    shutil.copytree(lab / "labels", tmp_path / "labels")
    rows = load_comparisons(lab / "labels" / "train.jsonl")
    rows.append(load_comparisons(lab / "labels" / "valid2.jsonl")[0])
    write_records(tmp_path / "labels" / "train.jsonl", rows)
    inputs = {"policy": lab / "sft", "labels": tmp_path / "labels", "data": lab / "data"}
    with pytest.raises(UsageError, match="'valid2' are in 'labels/train'"):
        laboratory.run(laboratory.context("reward", lab, tmp_path / "out", inputs=inputs), "reward")
    shutil.copytree(lab / "data", tmp_path / "data")
    shutil.copy(lab / "data" / "sft.jsonl", tmp_path / "data" / "validation_valid2.jsonl")
    inputs |= {"labels": lab / "labels", "data": tmp_path / "data"}
    with pytest.raises(UsageError, match="'validation_valid2' are in 'labels/train'"):
        laboratory.run(laboratory.context("reward", lab, tmp_path / "out", inputs=inputs), "reward")


def test_trap_nothing_is_chosen_on_valid2(lab: Path, tmp_path: Path) -> None:
    """SFT's weights and the epoch chosen among them are the same without valid2, a reward model's with every
    valid2 label turned round."""
    shutil.copytree(lab / "data", tmp_path / "data")
    (tmp_path / "data" / "valid2.jsonl").unlink()
    settings = laboratory.SETTINGS["sft"].model_copy(update={"select": "valid_loss", "epochs": 2})
    for name, data in (("with", lab / "data"), ("without", tmp_path / "data")):
        inputs = {"policy": lab / "pretrain", "data": data}
        ctx = laboratory.context("sft", lab, tmp_path / name, settings=settings, inputs=inputs)
        laboratory.run(ctx, "sft")
    assert hash_folder(tmp_path / "with" / "checkpoint") == hash_folder(tmp_path / "without" / "checkpoint")

    ctx = laboratory.context("epoch", lab, tmp_path / "epoch")
    laboratory.run(laboratory.rewired(ctx, data=tmp_path / "data"), "epoch")
    for name in ("evaluation.json", "epoch_samples.jsonl"):
        assert (tmp_path / "epoch" / name).read_bytes() == (lab / "epoch" / name).read_bytes()

    shutil.copytree(lab / "labels", tmp_path / "labels")
    rows = load_comparisons(lab / "labels" / "valid2.jsonl")
    turned = [row.model_copy(update={"rank": row.rank[::-1]}) for row in rows]
    write_records(tmp_path / "labels" / "valid2.jsonl", turned)
    inputs = {"policy": lab / "sft", "labels": tmp_path / "labels", "data": lab / "data"}
    laboratory.run(laboratory.context("reward", lab, tmp_path / "reward", inputs=inputs), "reward")
    weights = [folder / "reward" / "checkpoint" / "model.safetensors" for folder in (lab, tmp_path)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    mine, theirs = (
        json.loads((folder / "reward" / "evaluation.json").read_text()) for folder in (lab, tmp_path)
    )
    assert mine["valid1_accuracy"] == theirs["valid1_accuracy"]
    assert mine["valid2_accuracy"] != theirs["valid2_accuracy"]
