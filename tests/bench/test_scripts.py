"""The scripts under benchmarks/: the GPU one at a tiny size, and how the comparison with peers counts."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tldr.bench.agree import BOUNDS, agreement
from tldr.bench.measure import Case
from tldr.bench.run import STAGES, cases
from tldr.stages.sft.settings import SFTSettings
from tldr.study.load import load_study

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def script(name: str) -> ModuleType:
    path = BENCHMARKS / name
    spec = importlib.util.spec_from_file_location(f"benchmarks_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.slow
def test_the_gpu_script_runs_at_a_tiny_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script("gpu.py").main(["--tiny", "--rounds", "1", "--out", str(tmp_path)]) == 0
    agreed = [json.loads(line) for line in (tmp_path / "agreement.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in agreed] == list(STAGES) and all(row["within"] for row in agreed)
    rows = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows] == list(STAGES) and all(row["mfu"] > 0 for row in rows)
    assert "1M in" in capsys.readouterr().out


def test_a_step_that_is_wrong_in_bf16_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(script("gpu.py").TINY)
    case = next(one for one in cases(load_study(path), ["sft"], 1, 1) if isinstance(one, Case))
    from tldr.bench import agree, work

    def planted(settings: SFTSettings, setting: work.Setting) -> work.Work:
        made = work.work_of(settings, setting)
        if setting.precision == "bf16":  # one matrix of the second run is another one
            with torch.no_grad():
                next(p for p in made.stepper.modules["policy"].parameters() if p.ndim == 2).mul_(1.5)
        return made

    monkeypatch.setattr(agree, "work_of", planted)
    found = agreement(case)
    assert not found["within"] and found["cosine"] < 1 - (1 - BOUNDS["cosine"]) / 2


def test_useful_flops_count_a_pairs_query_once() -> None:
    run = script("peers/run.py")
    token, pair = run.useful_flops("sft", "small"), run.useful_flops("reward", "small")
    matrices = 6 * 12 * 512 * 512  # layers, 12 d^2 each
    assert 6 * matrices < token < 1.4 * 6 * matrices
    assert pair / token == pytest.approx(298 + 2 * 36, rel=0.15)  # tokens of a pair, its query once


def test_ratios_are_of_neighbouring_rounds() -> None:
    run = script("peers/run.py")
    speeds = {run.OURS: [10.0, 30.0, 20.0], "trl": [2.0, 5.0, 5.0]}
    rows = [
        {"name": name, "tokens_per_s": speed, "flops_per_s": 1e9 * speed, "gemm": 1e11}
        for name, found in speeds.items()
        for speed in found
    ]
    ours, trl = run.told("sft", rows)
    assert "| 20 (10-30) tokens/s | 20 % of 100 GFLOP/s |" in ours
    assert trl.endswith("| 5.00 (4.00-6.00) |")


def test_peers_run_without_the_project() -> None:
    """Their environments have none of it, and nothing of it could slow or help them."""
    for name in ("rounds.py", "trl_common.py", "trl_supervised.py", "trl_ppo.py"):
        tree = ast.parse((BENCHMARKS / "peers" / name).read_text())
        names = {one.name for node in ast.walk(tree) if isinstance(node, ast.Import) for one in node.names}
        names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not [found for found in names if found.split(".")[0] in ("tldr", "eval")]
