"""Number formats: what auto means, and the fast products only where they are exact."""

from __future__ import annotations

import pytest
import torch

from tldr.errors import UsageError
from tldr.train import precision
from tldr.train.precision import matmul_error, peak_flops, prepare_cpu, resolve_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _put_back():
    before, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    yield
    torch.set_float32_matmul_precision(before)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("has, resolved", [("avx512_bf16", "bf16"), ("amx_bf16", "bf16"), ("avx2", "fp32")])
def test_auto_on_cpu(monkeypatch: pytest.MonkeyPatch, has: str, resolved: str) -> None:
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "amx_bf16": False, has: True}
    )
    assert resolve_precision("auto", CPU) == resolved


@pytest.mark.parametrize("native, resolved", [(True, "bf16"), (False, "fp32")])
def test_auto_on_cuda_wants_no_emulation(
    monkeypatch: pytest.MonkeyPatch, native: bool, resolved: str
) -> None:
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native
    )
    assert resolve_precision("auto", CUDA) == resolved


def test_what_is_asked_for_is_given() -> None:
    assert resolve_precision("fp32", CUDA) == "fp32"
    assert resolve_precision("bf16", CPU) == "bf16"
    assert resolve_precision("auto", torch.device("mps")) == "fp32"


def test_fast_products_are_kept_only_when_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_cpu()
    assert matmul_error() < 1e-5  # whatever the switch is now
    monkeypatch.setattr(precision, "matmul_error", lambda: 4e-7)
    prepare_cpu()
    assert torch.get_float32_matmul_precision() == "medium"
    monkeypatch.setattr(precision, "matmul_error", lambda: 2e-3)
    prepare_cpu()
    assert torch.get_float32_matmul_precision() == "highest"


def test_bf16_products_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    linear = torch.nn.functional.linear
    monkeypatch.setattr(
        torch.nn.functional, "linear", lambda a, b: linear(a.bfloat16().float(), b.bfloat16().float())
    )
    assert matmul_error() > 1e-3


def test_threads_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    prepare_cpu()
    assert torch.get_num_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    prepare_cpu()
    assert torch.get_num_threads() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "two")
    with pytest.raises(UsageError, match="OMP_NUM_THREADS: 'two'"):
        prepare_cpu()


def test_peak_is_that_of_the_fastest_of_several_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three products of 1024 x 1024 by a clock that reads 2 s for one of them and 4 s for the others."""
    ticks = [0.0]  # the start, then the start and the end of each product and a look at the whole
    for seconds in (4.0, 2.0, 4.0):
        ticks += [ticks[-1], ticks[-1] + seconds]
    clock = iter([*ticks, ticks[-1]])
    monkeypatch.setattr(precision.time, "perf_counter", lambda: next(clock))
    assert peak_flops.__wrapped__(CPU, "fp32") == 2 * 1024**3 / 2.0
    assert next(clock, None) is None
