"""A GPU made of the CPU: a device "cuda:0" whose tensors no tensor on the CPU may meet.

What breaks on a GPU and works on a CPU is nearly always a tensor, or a generator, left on the other device.
Here it breaks without one: tensors on the device are wrapped ones on the CPU, every operation on them looks
where its arguments are, and then computes with the CPU's kernel, so that the figures can be compared too.
It says nothing of CUDA's own kernels, their speed or their memory.

To be imported before torch, in a process of its own: ``VIRTUAL_GPU=/path/of/the/library python ...``.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SOURCE = Path(__file__).with_name("virtual.cpp")
VARIABLE = "VIRTUAL_GPU"


def torch_folder() -> Path:
    """Where torch lies, without importing it."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def compiler() -> str | None:
    """A C++ compiler, if there is one."""
    return shutil.which("c++") or shutil.which("g++")


def build(folder: Path) -> Path:
    """Compile virtual.cpp against this torch, in some two seconds; the library's path."""
    library, torch_at = folder / "virtual.so", torch_folder()
    command = [compiler() or "c++", "-std=c++20", "-O0", "-shared", "-fPIC", str(SOURCE), "-o", str(library)]
    command += [f"-I{torch_at / 'include'}", f"-L{torch_at / 'lib'}", "-lc10", "-ltorch_cpu"]
    subprocess.run(command, check=True, capture_output=True)
    return library


if VARIABLE in os.environ:
    # Before torch, which asks for its hooks once.
    ctypes.CDLL(str(torch_folder() / "lib" / "libtorch_cpu.so"), ctypes.RTLD_GLOBAL)
    ctypes.CDLL(os.environ[VARIABLE])

import torch  # noqa: E402
from torch.utils._pytree import tree_flatten, tree_map  # noqa: E402

DEVICE = torch.device("cuda", 0)
MEETS = {"aten::copy_", "aten::_to_copy", "aten::index", "aten::index_put_", "aten::_index_put_impl_"}
"""Operations that CUDA, too, lets take tensors from the CPU: copies, and indices."""


class WrongDevice(RuntimeError):
    """Something on the CPU met something on the device."""


class OrderVaries(RuntimeError):
    """Sums would be added up in an order that may change from run to run."""


NO_ORDER = {"aten::bincount", "aten::cumprod", "aten::histc", "aten::kthvalue", "aten::median", "aten::put_"}
"""With `aten::cumsum` of floats: CUDA's kernels vary, so deterministic mode refuses them."""


class VirtualTensor(torch.Tensor):
    """A tensor on the virtual device; its numbers are in `host`, on the CPU."""

    host: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host: torch.Tensor) -> VirtualTensor:
        # Outside inference mode: its own bookkeeping of versions does not reach into wrapped tensors.
        with torch.inference_mode(False):
            made = torch.Tensor._make_wrapper_subclass(
                cls,
                host.size(),
                strides=host.stride(),
                storage_offset=host.storage_offset(),
                dtype=host.dtype,
                layout=host.layout,
                device=DEVICE,
            )
        made.host = host
        return made  # type: ignore[no-any-return]

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"VirtualTensor({self.host})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            copy: Any = self.detach().clone()
            if isinstance(self, torch.nn.Parameter):
                copy = torch.nn.Parameter(copy, self.requires_grad)
            memo[id(self)] = copy.requires_grad_(self.requires_grad)
        return memo[id(self)]

    # What torch does not ask of a subclass itself.
    def tolist(self) -> Any:
        return self.host.tolist()

    def data_ptr(self) -> int:
        return self.host.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.host.untyped_storage()

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        flat, _ = tree_flatten((args, kwargs or {}))
        check(func, flat)
        places = [one for one in flat if isinstance(one, torch.device)]
        stays = all(place.type == "cuda" for place in places)
        out = func(*tree_map(to_host, args), **tree_map(to_host, kwargs or {}))
        if func._schema.name == "aten::copy_":
            return args[0]
        known = {id(one.host): one for one in flat if isinstance(one, VirtualTensor)}

        def wrapped(result: Any) -> Any:
            if not isinstance(result, torch.Tensor) or not stays:
                return result
            return known[id(result)] if id(result) in known else VirtualTensor(result)

        return tree_map(wrapped, out)


def check(func: Any, flat: list[Any]) -> None:
    """Whether CUDA would take these arguments.

    Raises:
        WrongDevice: a tensor of at least one dimension, or a generator, is on the CPU.
        OrderVaries: deterministic mode refuses the operation; or it is attention's backward pass (here made
            of plain operations), which only adds up in a fixed order where that mode does more than warn.
    """
    name, first = func._schema.name, flat[0]
    strict = torch.are_deterministic_algorithms_enabled()
    strict &= not torch.is_deterministic_algorithms_warn_only_enabled()
    if strict and (name in NO_ORDER or (name == "aten::cumsum" and first.is_floating_point())):
        raise OrderVaries(f"{func} has no deterministic kernel")
    if name == "aten::_softmax_backward_data" and not strict:
        raise OrderVaries("attention's backward pass outside deterministic mode")
    for one in flat:
        if isinstance(one, torch.Generator) and one.device.type != "cuda":
            raise WrongDevice(f"{func}: a generator on the CPU for numbers on the device")
        if name in MEETS or not isinstance(one, torch.Tensor) or isinstance(one, VirtualTensor):
            continue
        if one.dim():
            raise WrongDevice(f"{func}: a tensor on the CPU, {tuple(one.shape)}, beside one on the device")


_generators: dict[torch.Generator, torch.Generator] = {}


def to_host(one: Any) -> Any:
    """An argument as the CPU's kernel takes it."""
    if isinstance(one, VirtualTensor):
        return one.host
    if isinstance(one, torch.device):
        return torch.device("cpu")
    if isinstance(one, torch.Generator):
        if one not in _generators:
            _generators[one] = torch.Generator().manual_seed(one.initial_seed())
        return _generators[one]
    return one


def _empty(size: Any, *, dtype: Any = None, memory_format: Any = None, **_: Any) -> VirtualTensor:
    form = memory_format or torch.contiguous_format
    return VirtualTensor(torch.empty(size, dtype=dtype, memory_format=form))


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> VirtualTensor:
    return VirtualTensor(torch.empty_strided(size, stride, dtype=dtype))


def _copy(to: VirtualTensor, source: torch.Tensor, non_blocking: bool = False) -> VirtualTensor:
    to.host.copy_(to_host(source))
    return to


def install() -> torch.library.Library:
    """Make torch believe in the device; keep what comes back."""
    kernels = torch.library.Library("aten", "IMPL")
    kernels.impl("empty.memory_format", _empty, "CUDA")
    kernels.impl("empty_strided", _empty_strided, "CUDA")
    kernels.impl("copy_", _copy, "CUDA")
    facts = {"is_available": True, "is_initialized": True, "device_count": 1, "current_device": 0}
    facts |= {"max_memory_allocated": 0, "get_device_name": "virtual", "is_bf16_supported": True}
    facts |= dict.fromkeys(("_lazy_init", "set_device", "synchronize", "empty_cache", "manual_seed"))
    facts |= dict.fromkeys(("manual_seed_all", "reset_peak_memory_stats", "set_rng_state"))
    for name, value in facts.items():
        setattr(torch.cuda, name, lambda *_, _value=value, **__: _value)
    properties = SimpleNamespace(name="virtual", total_memory=80 << 30)
    torch.cuda.get_device_properties = lambda *_: properties  # type: ignore[assignment]
    torch._C._cuda_getCurrentRawStream = lambda *_: 0  # type: ignore[attr-defined]
    torch.cuda.get_rng_state = lambda *_: torch.get_rng_state()  # type: ignore[assignment]
    # Weights that move become other objects; swapped, so that tied ones stay tied.
    torch.__future__.set_swap_module_params_on_conversion(True)
    return kernels
