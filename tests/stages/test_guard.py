"""The leakage guard where stages meet it, and that nothing is chosen on what is reported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.data.test_leakage import label, post
from tests.stages import lab as laboratory
from tldr.config import DataStage, FileData, Labels, Settings, TokenizerSpec
from tldr.data.sources import load_comparisons
from tldr.errors import RecordError, UsageError
from tldr.records import Ranking, write_records
from tldr.stages import data as data_stage
from tldr.stages import labels as labels_stage
from tldr.stages.context import RunContext
from tldr.train.checkpoint import hash_folder

FOLDS = [label("valid2", f"t3_label{number}") for number in range(40)]


def context(folder: Path, settings: Settings, data: Path) -> RunContext[Any]:
    folder.mkdir(exist_ok=True)
    return RunContext(settings=settings, folder=folder, inputs={"data": data})


def given(folder: Path, *labels: Ranking) -> Path:
    """A data folder with a post a set, and labels: SFT's are of train, valid1's and valid2's of theirs."""
    for name in ("sft", "ppo", "valid1", "valid2"):
        write_records(folder / f"{name}.jsonl", [post(f"t3_{name}")])
    own = [label("train", "t3_sft"), label("valid1", "t3_valid1"), label("valid2", "t3_valid2")]
    write_records(folder / "rankings.jsonl", [*own, *labels])
    return folder


def test_labels_of_their_own_posts_pass(tmp_path: Path) -> None:
    data = given(tmp_path / "data", label("train", "t3_ppo"))
    labels_stage.run(context(tmp_path / "out", Labels(), data))
    rows = load_comparisons(tmp_path / "out" / "train.jsonl")
    assert [row.info.id for row in rows] == ["t3_sft", "t3_ppo"]


@pytest.mark.parametrize("split", ["valid1", "valid2"])
def test_trap_labels_to_train_on_may_not_be_of_the_studys_evaluation_posts(
    tmp_path: Path, split: str
) -> None:
    """... even where no labelled post is in two splits of the labels, and the rows have no ids."""
    data = given(tmp_path / "data", label("train", None, f"body  of\nt3_{split}"))
    rows = [row for row in load_comparisons(data / "rankings.jsonl") if row.info.id != f"t3_{split}"]
    write_records(data / "rankings.jsonl", [*rows, label(split, "t3_unseen")])
    with pytest.raises(UsageError, match=f"'{split}' are in 'labels/train'"):
        labels_stage.run(context(tmp_path / "out", Labels(), data))
    assert not (tmp_path / "out" / "train.jsonl").exists()


def test_labels_in_folds_are_held_against_the_posts_too(tmp_path: Path) -> None:
    data = given(tmp_path / "data")
    write_records(data / "rankings.jsonl", FOLDS)
    labels_stage.run(context(tmp_path / "apart", Labels(folds=2), data))
    assert (tmp_path / "apart" / "fold-1" / "train.jsonl").is_file()
    for name in ("sft", "valid1"):  # sooner or later in valid2 of a fold, and in train of another
        write_records(data / "rankings.jsonl", [*FOLDS, label("valid2", f"t3_{name}")])
        with pytest.raises(UsageError, match="evaluation posts are trained on"):
            labels_stage.run(context(tmp_path / name, Labels(folds=2), data))
    write_records(data / "rankings.jsonl", [*FOLDS, label("valid2", "t3_ppo")])
    labels_stage.run(context(tmp_path / "ppo", Labels(folds=2), data))


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
        settings = DataStage(data=files, tokenizer=TokenizerSpec(vocab_size=300))
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
    assert data_stage.read_corpus(tmp_path) == [{"text": "a \u2028 b \x85 c"}]
    for line in (b'{"text": "\xff"}', b'{"text": ""}', b"[]", b'{"text": "a", "text": "b"}'):
        (tmp_path / "corpus.jsonl").write_bytes(b'{"text": "a"}\n' + line)
        with pytest.raises(UsageError, match=r"corpus\.jsonl:2: not a corpus document"):
            data_stage.read_corpus(tmp_path)


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


def test_trap_nothing_is_chosen_on_valid2(lab: Path, tmp_path: Path) -> None:
    """SFT's weights are the same without valid2, a reward model's with every valid2 label turned round."""
    shutil.copytree(lab / "data", tmp_path / "data")
    (tmp_path / "data" / "valid2.jsonl").unlink()
    settings = laboratory.SETTINGS["sft"].model_copy(update={"select": "valid_loss", "epochs": 2})
    for name, data in (("with", lab / "data"), ("without", tmp_path / "data")):
        inputs = {"policy": lab / "pretrain", "data": data}
        ctx = laboratory.context("sft", lab, tmp_path / name, settings=settings, inputs=inputs)
        laboratory.run(ctx, "sft")
    assert hash_folder(tmp_path / "with" / "checkpoint") == hash_folder(tmp_path / "without" / "checkpoint")

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
