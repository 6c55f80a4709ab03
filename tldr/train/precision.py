"""Number formats and device settings: fast where the result stays what it says, checked not assumed."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import torch

from tldr.errors import UsageError
from tldr.settings.base import Precision

Resolved = Literal["fp32", "bf16"]
"""Weights and optimizer are float32 in both; bf16 is autocast."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h

_PRODUCT_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""oneDNN's cache of products by shape, and that of torch's layer above it; read at the first product."""
KEPT_PRODUCTS = 256
"""Instead of 1024: each shape takes 0.6 MiB in the two caches (0.6 GiB where lengths vary), and a
millisecond to make again."""


def resolve_precision(precision: Precision, device: torch.device) -> Resolved:
    """What "auto" means on this device: bf16 where the hardware multiplies in it, else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and cpu_has_bf16()
    return "bf16" if native else "fp32"


def cpu_has_bf16() -> bool:
    """Whether this CPU has bf16 dot products (AVX512-BF16 or AMX)."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def prepare_cpu() -> None:
    """Threads from the environment, memory kept, oneDNN products (about 1.5x) where they are exact.

    The switch to oneDNN ("medium") allows bf16 products too, which it makes use of on CPUs with
    AMX; so a product is tried, and the switch put back if it lost precision. Where there is a GPU, whose
    fp32 products it would make bf16 or tf32 ones, it is left alone.

    Raises:
        UsageError: the thread count in the environment is no positive number.
    """
    for variable in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        if value := os.environ.get(variable):
            if not value.isdigit() or int(value) == 0:
                raise UsageError(f"{value!r} is no number of threads", where=variable)
            torch.set_num_threads(int(value))
            break
    _keep_memory()
    for variable in _PRODUCT_CACHES:
        os.environ.setdefault(variable, str(KEPT_PRODUCTS))
    if torch.cuda.is_available():
        return
    torch.set_float32_matmul_precision("medium")
    if matmul_error() > 1e-5:
        torch.set_float32_matmul_precision("highest")


def _keep_memory() -> None:
    """Have glibc keep what a step frees for the next one: 6 to 11 % of a step's CPU time here."""
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def matmul_error() -> float:
    """Relative error of a float32 product, K = 1024: about 4e-7 in float32, 2e-3 from bf16."""
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 1024, generator=draw) for _ in range(2))
    exact = a.double() @ b.double().T
    return float((torch.nn.functional.linear(a, b) - exact).norm() / exact.norm())


def prepare_cuda() -> None:
    """Deterministic kernels, so that a resumed run equals an uninterrupted one bit for bit.

    What has none warns: sums along rows while sampling, which are float64. Training steps are strict
    (`deterministic`).
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """For a training step: on a GPU nothing inside adds up in an order that may change.

    Where `prepare_cuda` merely warns, torch's fused attention takes its fast backward pass, which does so
    (pytorch/pytorch#101847, #182551); samples and scores have no backward pass.
    """
    if device.type != "cuda":
        yield
        return
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)


@cache
def peak_flops(device: torch.device, precision: Resolved) -> float:
    """FLOP/s of a large matrix product here and now, the best of a few: what utilisation is a share of."""
    n = 8192 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.randn(n, n, device=device, dtype=dtype)
    best = float("inf")
    begun, tries = time.perf_counter(), 0
    while tries < 8 or time.perf_counter() - begun < 0.2:  # long enough for the clock to rise
        start = time.perf_counter()
        (a @ a)[0, 0].item()
        best, tries = min(best, time.perf_counter() - start), tries + 1
    return 2 * n**3 / best
