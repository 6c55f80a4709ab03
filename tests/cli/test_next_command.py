"""The next command that a command prints can be typed as it stands."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tldr.cli import study as commands
from tldr.cli.main import app

STUDY = "name: tiny\ndata: {kind: toy}\nladder: {s: {context: 700}}\npretrain: {steps: 1}\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "my studies" / "tiny & small.yaml"
    path.parent.mkdir()
    path.write_text(STUDY)
    return path


def test_the_next_command_is_quoted_and_complete(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands.Runner, "run", lambda self: 0)
    options = [
        "--set",
        "seeds=[0, 1]",
        "--set",
        'description=it\'s "quoted"',
        "--runs",
        str(config.parent / "r"),
    ]
    result = CliRunner().invoke(app, ["study", "run", str(config), *options])
    assert result.exit_code == 0, result.output
    shown = result.stdout.strip().splitlines()[-1].removeprefix("all done; next: ")
    assert shlex.split(shown) == ["tldr-lab", "report", str(config), *options]
    for name in ("report", "study status"):
        plain = commands.command(name, Path("configs/toy.yaml"), [], commands.RUNS)
        assert plain == f"tldr-lab {name} configs/toy.yaml"


def test_a_study_that_was_not_run_names_the_command_that_runs_it(config: Path) -> None:
    options = ["--set", "seeds=[3]", "--runs", str(config.parent / "r")]
    result = CliRunner().invoke(app, ["report", str(config), *options])
    assert result.exit_code == 2
    shown = " ".join(result.output.split("-> ")[1].split("\n"))
    assert shlex.split(shown) == ["tldr-lab", "study", "run", str(config), *options]


def test_a_cluster_that_is_none_names_the_command_that_runs_the_study_here(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tldr.study.slurm.shutil.which", lambda name: None)
    options = ["--set", "seeds=[3]", "--runs", str(config.parent / "r")]
    result = CliRunner().invoke(app, ["study", "submit", str(config), *options])
    assert result.exit_code == 2
    shown = " ".join(result.output.split("to run here: ")[1].split("\n"))
    assert shlex.split(shown) == ["tldr-lab", "study", "run", str(config), *options]
