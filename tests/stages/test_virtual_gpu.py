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
def device_lab(job: Job, lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every run of the laboratory, made on the virtual GPU in fp32 from what the CPU's run read.

    A device adds up in another order, so a draw between two tokens may fall the other way. With AVX2 kernels
    one label of 96 was another one, and what trains on it has other figures.
    """
    root = tmp_path_factory.mktemp("device-lab")
    done(job("every_stage", lab, root, "fp32"))
    return root


def test_the_virtual_gpu_refuses_what_a_gpu_refuses(job: Job) -> None:
    assert done(job("faults")).count("refused") == 9


def differing(here: Path, there: Path) -> list[tuple[dict[str, float], dict[str, float]]]:
    """The rows of two runs' figures that differ by more than the order in which a device adds up."""
    ours, theirs = figures(here), figures(there)
    assert len(ours) == len(theirs) > 0
    pairs = zip(ours, theirs, strict=True)
    return [(one, other) for one, other in pairs if other != pytest.approx(one, rel=1e-3, abs=1e-4)]


@pytest.mark.parametrize("stage", [stage for stage in laboratory.TRAINED if stage != "ppo"])
def test_a_stage_that_trains_on_the_device_has_the_cpus_figures(
    lab: Path, device_lab: Path, stage: str
) -> None:
    assert differing(lab / stage, device_lab / stage) == []


def test_ppo_on_the_device_has_the_cpus_figures(
    job: Job, lab: Path, device_lab: Path, tmp_path: Path
) -> None:
    """With one of four training seeds: with another, one of its 3,000 draws may fall the other way."""

    def agree(seed: int) -> bool:
        here, there = tmp_path / f"cpu-{seed}", tmp_path / f"device-{seed}"
        laboratory.run(laboratory.context("ppo", lab, here, seed), "ppo")
        done(job("one", "ppo", lab, there, seed))
        return not differing(here, there)

    first = differing(lab / "ppo", device_lab / "ppo")
    assert not first or any(map(agree, (1, 2, 3))), first


@pytest.mark.parametrize("stage", ["sample", "best_of_n"])
def test_a_device_draws_the_cpus_texts(lab: Path, device_lab: Path, stage: str) -> None:
    texts = [
        [sample.text for sample in read_records(root / stage / "samples.jsonl", Sample)]
        for root in (lab, device_lab)
    ]
    equal = sum(one == other for one, other in zip(*texts, strict=True))
    assert equal >= 0.9 * len(texts[0]) > 10


@pytest.mark.slow
def test_settings_that_put_tensors_elsewhere_run_on_the_device_in_bf16(
    job: Job, lab: Path, device_lab: Path, tmp_path: Path
) -> None:
    finished = done(job("variants", lab, tmp_path)).count("done ")
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
    job: Job, lab: Path, device_lab: Path, tmp_path: Path
) -> None:
    log = tmp_path / "metrics.jsonl"
    process = job("one", "ppo", lab, tmp_path, 0, 3)
    while process.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") >= 2):
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert not (tmp_path / "checkpoint").exists(), "ended before the kill"
    done(job("one", "ppo", lab, tmp_path, 0))
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
