"""``data overlap`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.inputs.test_leakage import label, post
from tldr.cli.main import app
from tldr.records import write_records

call = CliRunner().invoke


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A study's data: one SFT post is a labelled valid2 post, whose row has no id."""
    for name in ("ppo", "valid1", "valid2"):
        write_records(tmp_path / f"{name}.jsonl", [post(f"t3_{name}")])
    write_records(tmp_path / "sft.jsonl", [post("t3_ppo"), post("t3_1", "a\n\nb"), post("t3_2")])
    write_records(tmp_path / "rankings.jsonl", [label("train", "t3_2"), label("valid2", None, "a b")])
    return tmp_path


def test_a_data_folder_is_held_to_the_rules(data: Path) -> None:
    found = call(app, ["data", "overlap", str(data)])
    assert found.exit_code == 1
    assert "labels/valid2 and sft (1)" in found.stderr
    row = next(line for line in found.stdout.splitlines() if line.startswith("│ sft"))
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["sft", "3", "-", "1 (1, 1)", "0", "0", "1 (1, 1)", "! 1 (0, 1)"]
    write_records(data / "sft.jsonl", [post("t3_ppo"), post("t3_2")])
    assert call(app, ["data", "overlap", str(data)]).exit_code == 0


def test_files_are_compared_and_pairs_refused(data: Path) -> None:
    files = [f"mine={data / 'sft.jsonl'}", f"labels={data / 'rankings.jsonl'}"]
    told = call(app, ["data", "overlap", *files, "--json"])
    assert told.exit_code == 0
    assert json.loads(told.stdout) == {
        "posts": {"mine": 3, "labels": 2},
        "overlaps": [
            {"first": "mine", "second": "labels", "by_id": 1, "by_body": 2, "either": 2, "leak": False},
            {"first": "labels", "second": "mine", "by_id": 1, "by_body": 2, "either": 2, "leak": False},
        ],
    }
    refused = call(app, ["data", "overlap", *files, "--refuse", "mine:labels"])
    assert refused.exit_code == 1 and "labels and mine (2)" in refused.stderr
    unknown = call(app, ["data", "overlap", *files, "--refuse", "mine:other"])
    assert unknown.exit_code == 2 and "no set 'other'" in unknown.stderr


def test_bad_lines_stop_or_are_counted(data: Path) -> None:
    with (data / "sft.jsonl").open("a") as out:
        out.write('{"id": "t3_9", "id": "t3_8"}\n')
    command = ["data", "overlap", f"a={data / 'sft.jsonl'}", f"b={data / 'valid1.jsonl'}"]
    stopped = call(app, command)
    assert stopped.exit_code == 1 and "sft.jsonl:4: " in stopped.stderr and "occurs twice" in stopped.stderr
    skipped = call(app, [*command, "--on-error", "skip"])
    assert skipped.exit_code == 0
    assert "sft.jsonl: 1 invalid lines skipped, 3 read" in skipped.stderr


def test_a_study_file_is_read_and_a_generated_one_refused(data: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    names = {name: str(data / f"{name}.jsonl") for name in ("sft", "valid1", "valid2")}
    names["comparisons"] = str(data / "rankings.jsonl")
    toy = Path(__file__).parents[2] / "configs" / "toy.yaml"
    lines = [f"base: {toy}", "name: real", "ratings: null", "rounds: []", "data:", "  kind: files"]
    study.write_text("\n".join([*lines, *(f"  {key}: {value}" for key, value in names.items())]))
    found = call(app, ["data", "overlap", str(study), "--json"])
    assert found.exit_code == 1, found.stderr
    assert json.loads(found.stdout)["posts"]["labels/valid2"] == 1
    assert call(app, ["data", "overlap", str(toy)]).exit_code == 2
    assert call(app, ["data", "overlap", "nowhere"]).exit_code == 2
