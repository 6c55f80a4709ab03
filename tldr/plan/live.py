"""Memory of a training step, measured on the real forward and backward pass without tensor storage.

`FakeTensorMode` runs a model of any size with shapes alone. A dispatch mode adds the bytes of every tensor
that is created and subtracts them when it is freed, as an allocator would. No formula is specific to an
architecture: the tensors that the code keeps are the ones that are counted.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_INDEXING = frozenset(
    getattr(torch.ops.aten, name)
    for name in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put")
)


_LAYER = re.compile(r"^(\w+)\..*?\.(\d+)\.")
"""Module and number of the layer in a parameter's name."""

StepPart = tuple[str, str]
"""A part of the step: the module and the layer whose gradients are being computed."""
FORWARD, BACKWARD = ("", "forward"), ("", "backward")
"""The parts before the first layer's gradients."""


class Peak(NamedTuple):
    """The highest number of bytes alive at once, beyond the model's own parameters.

    Attributes:
        total: of all tensors, including the gradients that exist at that moment.
        working: of all tensors except gradients.
        logits: the part of `working` in tensors whose last dimension is the vocabulary.
    """

    total: float = 0
    working: float = 0
    logits: float = 0


class LiveBytes(TorchDispatchMode):
    """Counts the live bytes of the tensors that are created inside it.

    Args:
        modules: their parameters are not counted, and their gradients are counted separately.
        vocab: width of the logits.

    Masks are assumed to be True everywhere, so the count is that of a batch without padding.
    """

    def __init__(self, modules: nn.ModuleDict, vocab: int):
        super().__init__()  # type: ignore[no-untyped-call]
        self._vocab = vocab
        self._now = self._logits = self._gradients = 0
        self._alive: dict[int, Any] = {}
        self._part = FORWARD
        self.parts: dict[StepPart, Peak] = {}
        learns = [_LAYER.match(name) for name, p in modules.named_parameters() if p.requires_grad]
        self._numbers: dict[str, set[int]] = {}
        for layer in filter(None, learns):  # two modules may differ in depth
            self._numbers.setdefault(layer[1], set()).add(int(layer[2]))
        for name, parameter in modules.named_parameters():
            self._known(parameter)
            if parameter.requires_grad:
                hook: Any = parameter.register_post_accumulate_grad_hook
                hook(partial(self._got_gradient, name))
        for buffer in modules.buffers():
            self._known(buffer)

    def backward(self, loss: Tensor) -> None:
        """Run the backward pass as a separate part: autocast has freed its cached casts by then."""
        self._part = BACKWARD
        loss.backward()  # type: ignore[no-untyped-call]

    def _known(self, tensor: Tensor) -> None:
        self._alive[id(tensor.untyped_storage())] = tensor.untyped_storage()

    def _got_gradient(self, name: str, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self._gradients += parameter.grad.untyped_storage().nbytes()
        if layer := _LAYER.match(name):
            number, numbers = int(layer[2]), self._numbers[layer[1]]
            place = "top" if number == max(numbers) else "bottom" if number == min(numbers) else "middle"
            self._part = (layer[1], place)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function.overloadpacket in _INDEXING:
            args = (args[0], _all_true(args[1]), *args[2:])
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._born(tensor)
        return out

    def _born(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._alive:
            return
        logits = size if tensor.ndim and tensor.shape[-1] == self._vocab else 0

        def died(_: object) -> None:
            self._now, self._logits = self._now - size, self._logits - logits
            del self._alive[key]

        self._alive[key] = weakref.ref(storage, died)
        self._now, self._logits = self._now + size, self._logits + logits
        was, working = self.parts.get(self._part, Peak()), self._now - self._gradients
        self.parts[self._part] = Peak(
            max(was.total, self._now),
            max(was.working, working),
            self._logits if working > was.working else was.logits,
        )


def _all_true(indices: list[Tensor | None]) -> list[Tensor | None]:
    """Boolean masks as the positions of all their elements, since a shape does not say how many are True."""
    out: list[Tensor | None] = []
    for index in indices:
        if index is None or index.dtype != torch.bool:
            out.append(index)
        else:
            out += [torch.zeros(index.numel(), dtype=torch.int64) for _ in range(index.ndim)]
    return out


SHALLOW = (2, 3)
"""Numbers of layers of the two shallow models that are measured."""

CountedStep = tuple[nn.ModuleDict, Callable[[], Tensor]]
"""Modules, and a function that computes the loss of one micro-batch."""


def peaks_of_step(
    build: Callable[[int], CountedStep], layers: int, vocab: int, *, bf16: bool
) -> dict[StepPart, Peak]:
    """The peak in each part of a micro-batch's forward and backward pass (without gradients: forward).

    Args:
        build: makes the modules with a given number of layers each, and their loss.
        bf16: whether autocast is on (the CPU's, whose rules agree with the GPU's for all large tensors here).
    """
    with FakeTensorMode():
        modules, loss = build(layers)
        train = any(parameter.requires_grad for parameter in modules.parameters())
        counter = LiveBytes(modules, vocab)
        with counter, nullcontext() if train else torch.no_grad():
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                value = loss()
            if train:
                counter.backward(value)
    return counter.parts


def peaks_of_depth(
    build: Callable[[int], CountedStep], layers: int, vocab: int, *, bf16: bool
) -> dict[StepPart, Peak]:
    """`peaks_of_step` of a model of many layers that learn, from those of two shallow ones.

    Between the gradients of the top layer and those of the bottom layer, memory changes monotonically. The
    peak therefore lies at one of the two ends, where it grows by the same amount with every layer.
    """
    low, high = SHALLOW
    if layers <= high:
        return peaks_of_step(build, layers, vocab, bf16=bf16)
    few, more = (peaks_of_step(build, depth, vocab, bf16=bf16) for depth in SHALLOW)
    return along(few, more, (layers - low) / (high - low))


def peaks_of_depths(
    build: Callable[[tuple[int, int]], CountedStep], layers: tuple[int, int], vocab: int, *, bf16: bool
) -> dict[StepPart, Peak]:
    """`peaks_of_depth` of a step on two models, of which each has a depth of its own.

    Each model's layers add the same amount whatever the other's depth is, so one is deepened at a time.

    Args:
        build: makes the step with these numbers of layers.
    """
    low, high = SHALLOW

    def peaks(depths: tuple[int, int]) -> dict[StepPart, Peak]:
        return peaks_of_step(lambda _: build(depths), sum(depths), vocab, bf16=bf16)

    few = (_few(layers[0]), _few(layers[1]))
    found = base = peaks(few)
    for number, deeper in zip(layers, ((high, few[1]), (few[0], high)), strict=True):
        if number <= high:
            continue
        more, way = peaks(deeper), (number - low) / (high - low)
        added = along(base, more, way)
        found = {
            part: Peak(*(a + c - b for a, b, c in zip(found[part], base[part], added[part], strict=True)))
            for part in base
        }
    return found


def _few(layers: int) -> int:
    """The depth at which a model is measured: its own, if it is shallow."""
    low, high = SHALLOW
    return layers if layers <= high else low


def along(first: dict[StepPart, Peak], second: dict[StepPart, Peak], way: float) -> dict[StepPart, Peak]:
    """The peaks on the straight line through two others: `way` 0 is the first, 1 the second."""
    return {
        part: Peak(*(a + way * (b - a) for a, b in zip(first[part], second[part], strict=True)))
        for part in first
    }


def highest(parts: Mapping[StepPart, Peak]) -> Peak:
    """The peak over all parts of a step."""
    working = max(parts.values(), key=lambda part: part.working)
    return Peak(max(part.total for part in parts.values()), working.working, working.logits)
