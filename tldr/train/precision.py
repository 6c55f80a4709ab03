"""Number formats and device settings: as fast as possible without losing precision, which is measured."""

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

ResolvedPrecision = Literal["fp32", "bf16"]
"""Weights and optimizer state are float32 in both; "bf16" means autocast."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h

_PRODUCT_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""Capacities of oneDNN's cache of matrix products by shape and of torch's cache above it; both are read
at the first product."""
KEPT_PRODUCTS = 256
"""Capacity, instead of 1024: each shape takes 0.6 MiB in the two caches (0.6 GiB in all when lengths vary),
and one millisecond to recreate."""


def resolve_precision(precision: Precision, device: torch.device) -> ResolvedPrecision:
    """Resolve "auto" on this device: bf16 if the hardware multiplies in bf16, otherwise fp32."""
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
    """Set the number of threads, keep freed memory, and use oneDNN (about 1.5x faster) if it is exact.

    The setting for oneDNN ("medium") also allows bf16 products, which CPUs with AMX then use. So one
    product is tried, and the setting is reverted if it lost precision. With a GPU the setting does not
    change, because it would turn the GPU's fp32 products into bf16 or tf32.

    Raises:
        UsageError: the thread count in the environment is not a positive integer.
    """
    for variable in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        if value := os.environ.get(variable):
            if not value.isdigit() or int(value) == 0:
                raise UsageError(f"{value!r} is not a valid number of threads", where=variable)
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
    """Make glibc keep memory that a step frees for the next one: saves 6 to 11 % of a step's CPU time."""
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def matmul_error() -> float:
    """Relative error of a float32 product, K = 1024: about 4e-7 in float32, 2e-3 with bf16."""
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 1024, generator=draw) for _ in range(2))
    exact = a.double() @ b.double().T
    return float((torch.nn.functional.linear(a, b) - exact).norm() / exact.norm())


def prepare_cuda() -> None:
    """Use deterministic kernels, so that a resumed run equals an uninterrupted one bit for bit.

    Operations without a deterministic kernel warn: only the float64 row sums in sampling. In training
    steps they are errors (`deterministic`).
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """For a training step: inside, every sum on a GPU has a fixed order.

    With `prepare_cuda` alone, which only warns, torch's fused attention uses its fast nondeterministic
    backward pass (pytorch/pytorch#101847, #182551). Sampling and scoring have no backward pass.
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
def peak_flops(device: torch.device, precision: ResolvedPrecision) -> float:
    """Measured FLOP/s of a large matrix product, the best of several: the reference for utilisation."""
    n = 8192 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.randn(n, n, device=device, dtype=dtype)
    best = float("inf")
    begun, tries = time.perf_counter(), 0
    # long enough to reach full clock speed; a CPU that emulates bf16 takes seconds for one product
    while tries < 3 or time.perf_counter() - begun < 0.2:
        start = time.perf_counter()
        (a @ a)[0, 0].item()
        best, tries = min(best, time.perf_counter() - start), tries + 1
    return 2 * n**3 / best
