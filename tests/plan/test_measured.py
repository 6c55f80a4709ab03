"""Predicted peak memory against that of processes which train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tldr.config import ModelSpec, Precision
from tldr.plan.hardware import hardware
from tldr.plan.memory import Options, Training, training_memory
from tldr.plan.models import model_config
from tldr.plan.steps import Kind, Shape

VOCAB = 8192
SMALL = {"arch": "gpt_neox", "d_model": 256, "layers": 4, "heads": 4, "context": 512}
LARGE = {"arch": "gpt_neox", "d_model": 512, "layers": 6, "heads": 8, "context": 512}
WIDE = {"rows": 8, "query": 256, "response": 48}
SHORT = {"rows": 24, "query": 96, "response": 32}

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's /proc")


def measured(case: dict[str, Any]) -> int:
    script, root = Path(__file__).with_name("measure.py"), Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(case)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": ""},
    )
    return int(done.stdout.splitlines()[-1])


def predicted(case: dict[str, Any]) -> float:
    shape = Shape(model_config(ModelSpec(**case["spec"]), VOCAB))
    windows = (case["query"], case["options"], case["response"])
    work = Training(case["kind"], shape, *windows, case["rows"] * case["micro_batches"], counted=case["rows"])
    options = Options(bf16=case["precision"] == "bf16", cuda=False, checkpointing=case["checkpointing"])
    return training_memory(work, options, case["rows"], hardware().assumed).total


def case_of(
    kind: Kind,
    spec: dict[str, Any],
    shape: dict[str, int],
    micro_batches: int = 1,
    precision: Precision = "fp32",
    checkpointing: bool = False,
) -> dict[str, Any]:
    work = {"kind": kind, "spec": spec, "options": 2 if kind == "reward" else 1}
    return {
        **work,
        **shape,
        "micro_batches": micro_batches,
        "precision": precision,
        "checkpointing": checkpointing,
    }


def check(case: dict[str, Any]) -> None:
    expected, found = predicted(case), measured(case)
    told = f"predicted {expected / 2**20:.0f} MiB, measured {found / 2**20:.0f} MiB"
    print(f"{case['kind']} {case['spec']['d_model']} {case['rows']}x{case['micro_batches']}: {told}")
    assert abs(expected / found - 1) < 0.1, told


@pytest.mark.slow
def test_peak_memory_of_a_training_process_is_predicted() -> None:
    check(case_of("response", SMALL, {"rows": 8, "query": 128, "response": 32}, 2))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [WIDE, SHORT], ids=["wide", "short"])
@pytest.mark.parametrize("spec", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("kind", ["response", "reward", "ppo"])
def test_peak_memory_of_every_stage(kind: Kind, spec: dict[str, Any], shape: dict[str, int]) -> None:
    check(case_of(kind, spec, shape))
