"""Commands that read a study, on a study that cannot be written to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eval.common.runs import StudyRuns
from tests.read_only import read_only
from tests.study.conftest import Lab
from tldr.cli.main import app
from tldr.records import Post, Sample, write_records
from tldr.study.folder import LOCK
from tldr.study.status import write_listing


@pytest.fixture
def made(lab: Lab) -> Lab:
    """A study with some finished runs, one of which has samples, as a killed runner leaves it."""
    lab.make(only="pretrain")
    study, runs = lab.load()
    write_listing(study, runs, lab.root)
    for path in lab.root.glob(f"*/{LOCK}"):
        assert path.exists()
    posts = [Post(id=f"p{n}", subreddit="r", title="t", post="a post", summary="a summary") for n in range(3)]
    write_records(lab.folder("data") / "valid2.jsonl", posts)
    rows = [Sample(id=post.id, policy="sft", run="r", text="a text", tokens=2) for post in posts]
    write_records(lab.folder("pretrain-s-s0") / "samples.jsonl", rows)
    return lab


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[StudyRuns]:
    """What a report is built from; building it takes half a minute, and reads only."""
    seen: list[StudyRuns] = []

    def build(runs: StudyRuns, out: Path, **_: object) -> Path:
        seen.append(runs)
        return out

    monkeypatch.setattr("eval.report.build.build_report", build)
    return seen


@pytest.mark.parametrize("command", ["status", "report", "evaluate", "doctor", "clean"])
def test_reading_commands_work_on_a_read_only_study(
    made: Lab, reported: list[StudyRuns], tmp_path: Path, command: str
) -> None:
    out = ["--out", tmp_path / "elsewhere"]
    runs = ["--runs", made.root.parent]
    arguments = {
        "status": ["study", "status", made.config, *runs],
        "report": ["report", made.config, *out, *runs],
        "evaluate": ["evaluate", made.root, *out, "--draws", "10"],
        "doctor": ["doctor", made.config, *runs],
        "clean": ["study", "clean", made.config, *runs],
    }[command]
    with read_only(made.root) as tried:
        result = CliRunner().invoke(app, list(map(str, arguments)))
    assert "Read-only" not in result.output, result.output
    assert result.exit_code in ((0, 1) if command == "doctor" else (0,)), result.output
    if command != "status":  # its memory of hashes is for the next command, if it can be kept
        assert not tried


def test_a_report_elsewhere_shows_the_runs_of_today_and_leaves_the_study_alone(
    made: Lab, reported: list[StudyRuns], tmp_path: Path
) -> None:
    listing = made.root / "study.json"
    listing.write_text(json.dumps({"runs": []}))
    arguments = ["report", made.config, "--out", tmp_path / "elsewhere", "--runs", made.root.parent]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    assert json.loads(listing.read_text()) == {"runs": []}
    finished = [run.run for run in reported[0].runs if run.finished]
    assert finished == [made.folder(title).name for title in ("data", "pretrain-s-s0", "pretrain-m-s0")]
