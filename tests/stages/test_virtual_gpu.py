"""Every stage on a GPU made of the CPU, which refuses what a GPU refuses (see `virtual`)."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.stages import lab as laboratory
from tests.stages import virtual
from tests.stages.test_resume import figures
from tldr.records import Sample, read_records
from tldr.train.checkpoint import hash_folder

pytestmark = [
    pytest.mark.skipif(virtual.compiler() is None, reason="no C++ compiler for the virtual GPU"),
    pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has CUDA: there is a real one"),
]
ROOT = Path(__file__).resolve().parents[2]
Job = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Starts a job of `on_virtual_gpu` in a process of its own."""
    library = virtual.build(tmp_path_factory.mktemp("virtual"))

    def start(*words: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.stages.on_virtual_gpu", *map(str, words)],
            cwd=ROOT,
            env=os.environ | {virtual.VARIABLE: str(library)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def done(process: subprocess.Popen[str]) -> str:
    """What a job printed, once it has ended well."""
    out = process.communicate()[0]
    assert process.returncode == 0, out[-3000:]
    return out


@pytest.fixture(scope="module")
def device_lab(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The laboratory, made on the virtual GPU in fp32."""
    root = tmp_path_factory.mktemp("device-lab")
    done(job("every_stage", root, "fp32"))
    return root


def test_the_virtual_gpu_refuses_what_a_gpu_refuses(job: Job) -> None:
    assert done(job("faults")).count("refused") == 9


def test_every_stage_on_the_device_gives_the_cpus_figures(lab: Path, device_lab: Path) -> None:
    for stage in laboratory.TRAINED:
        here, there = figures(lab / stage), figures(device_lab / stage)
        assert len(here) == len(there)
        for one, other in zip(here, there, strict=True):
            assert other == pytest.approx(one, rel=1e-3, abs=1e-4), stage
    for stage in ("sample", "best_of_n"):
        texts = [
            [sample.text for sample in read_records(root / stage / "samples.jsonl", Sample)]
            for root in (lab, device_lab)
        ]
        # Attention adds up in another order on a GPU: a draw between two tokens may fall the other way.
        equal = sum(one == other for one, other in zip(*texts, strict=True))
        assert equal >= 0.9 * len(texts[0]) > 10, stage


@pytest.mark.slow
def test_settings_that_put_tensors_elsewhere_run_on_the_device_in_bf16(
    job: Job, device_lab: Path, tmp_path: Path
) -> None:
    finished = done(job("variants", device_lab, tmp_path)).count("done ")
    runs = sorted(path.name for path in tmp_path.iterdir())
    assert finished == len(runs) > 10
    for name in runs:
        rows = figures(tmp_path / name)
        assert rows and all(math.isfinite(value) for row in rows for value in row.values()), name
        if "first_ratio" in rows[0]:
            assert all(abs(row["first_ratio"] - 1) < 1e-6 for row in rows), name
            assert all(0 < row["sampler_gap"] < 0.05 for row in rows), name  # a bf16 copy samples
    for stage in ("pretrain", "sft", "reward"):
        assert figures(tmp_path / stage)[0]["loss"] == pytest.approx(
            figures(device_lab / stage)[0]["loss"], rel=0.02
        )


@pytest.mark.slow
def test_every_architecture_runs_on_the_device_in_bf16(job: Job, device_lab: Path, tmp_path: Path) -> None:
    assert done(job("architectures", device_lab, tmp_path)).count("done ") == 3 * 5


def test_a_killed_run_on_the_device_goes_on_to_the_same_bits(
    job: Job, device_lab: Path, tmp_path: Path
) -> None:
    log = tmp_path / "metrics.jsonl"
    process = job("one", "ppo", device_lab, tmp_path, 3)
    while process.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") >= 2):
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert not (tmp_path / "checkpoint").exists(), "ended before the kill"
    done(job("one", "ppo", device_lab, tmp_path))
    assert hash_folder(tmp_path / "checkpoint") == hash_folder(device_lab / "ppo" / "checkpoint")
    assert figures(tmp_path) == figures(device_lab / "ppo")


def test_episodes_left_on_the_cpu_are_refused(job: Job, device_lab: Path, tmp_path: Path) -> None:
    process = job("misplaced", device_lab, tmp_path)
    out = process.communicate()[0]
    assert process.returncode == 1 and "WrongDevice" in out


@pytest.mark.slow
def test_the_gpu_script_runs_on_the_device(job: Job, tmp_path: Path) -> None:
    done(job("script", tmp_path))
    agreed = [json.loads(line) for line in (tmp_path / "agreement.jsonl").read_text().splitlines()]
    rows = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert len(agreed) == len(rows) == 3 and all(row["within"] for row in agreed)
    assert {row["device"] for row in rows} == {"virtual"}
