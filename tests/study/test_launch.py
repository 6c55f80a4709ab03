"""Runs in several processes: the configs, who is launched how, and whose error is told."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType
from typer.testing import CliRunner

from tests.study.conftest import Lab
from tldr.cli.main import app
from tldr.errors import LabError, UsageError
from tldr.study.folder import FAILED, _failure_noted, last_error
from tldr.study.launch import Launch

CONFIGS = Path(__file__).parents[2] / "configs" / "accelerate"
EXPECTED = {
    "1gpu": (1, 1, DistributedType.NO),
    "8gpu-ddp": (8, 1, DistributedType.MULTI_GPU),
    "8gpu-fsdp2": (8, 1, DistributedType.FSDP),
    "8gpu-zero2": (8, 1, DistributedType.FSDP),
    "16gpu-fsdp2-multinode": (16, 2, DistributedType.FSDP),
    "2cpu-ddp": (2, 1, DistributedType.MULTI_GPU),
    "2cpu-fsdp2": (2, 1, DistributedType.FSDP),
}


def test_every_config_is_one_that_accelerate_reads() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(EXPECTED)
    for name, (processes, machines, kind) in EXPECTED.items():
        path = CONFIGS / f"{name}.yaml"
        config = load_config_from_file(str(path))
        assert (config.num_processes, config.num_machines, config.distributed_type) == EXPECTED[name]
        assert config.mixed_precision == "no"  # or it would be set in two places
        assert Launch.read(path) == Launch(path, processes, machines)
        assert Launch.read(path).per_machine == processes // machines
        if kind == DistributedType.FSDP:
            assert config.fsdp_config["fsdp_version"] == 2
            assert config.fsdp_config["fsdp_reshard_after_forward"] is (name != "8gpu-zero2")
            # With it the processes but the first would start from weights that were never loaded.
            assert config.fsdp_config["fsdp_cpu_ram_efficient_loading"] is False


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_machines: 1", "num_processes: found None"),
        ("num_machines: 1\nnum_processes: two", "num_processes: found 'two'"),
        ("num_machines: 3\nnum_processes: 8", "8 processes cannot be divided among 3 machines"),
    ],
)
def test_a_config_without_counts_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "launch.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        Launch.read(path)


def test_only_stages_that_compute_are_launched(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[str, tuple[list[str], dict[str, str]]] = {}

    def popen(command: list[str], env: dict[str, str], **_: Any) -> None:
        calls[Path(command[-1]).name] = (command, env)

    runner = lab.runner(jobs=1)
    runner.command, runner.launch = (), Launch(CONFIGS / "2cpu-ddp.yaml", 2, 1)
    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(runner._nursery, "start", lambda folder, env: calls.update({folder.name: ([], env)}))
    for run in runner.runs:
        (lab.root / run.name).mkdir(parents=True, exist_ok=True)
        runner._spawn(run, lab.root / run.name, 0)
    for run in runner.runs:
        command, env = calls[run.name]
        launched = run.stage != "data"
        assert bool(command) is launched
        # The run's own description says its threads.
        assert env.get("OMP_NUM_THREADS") == (os.environ.get("OMP_NUM_THREADS") if launched else None)
        if launched:
            assert command[1:5] == [
                "-m",
                "accelerate.commands.launch",
                "--config_file",
                str(runner.launch.config),
            ]
            assert command[5:] == ["-m", "tldr", "_run", str(lab.root / run.name)]


def test_the_first_error_of_several_processes_is_the_one_told(tmp_path: Path) -> None:
    with pytest.raises(LabError), _failure_noted(tmp_path):
        raise LabError("the reward is nan")
    with pytest.raises(RuntimeError), _failure_noted(tmp_path):
        raise RuntimeError("Connection closed by peer")
    assert last_error(tmp_path) == "the reward is nan"


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    with (
        pytest.raises(LabError, match=r"No space left on device(.|\n)*free disk space"),
        _failure_noted(tmp_path),
    ):
        raise OSError(28, "No space left on device", "metrics.jsonl")
    assert "cannot be written" in (tmp_path / FAILED).read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--launch", str(CONFIGS / "2cpu-ddp.yaml"), "--jobs", "2"],
            "more than one cannot be combined with --launch",
        ),
        (
            ["--launch", str(CONFIGS / "16gpu-fsdp2-multinode.yaml")],
            "needs 2 machines, but a study runs on one",
        ),
    ],
)
def test_what_a_study_cannot_launch_is_refused(options: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["study", "run", "nowhere.yaml", *options])
    assert result.exit_code == 2 and message in result.output
