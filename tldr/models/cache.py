"""A key-value cache with its whole room from the start: a step of the decode loop copies nothing old."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import Cache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

from tldr.models.attention import multiplied_in


class _Layer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values (B,H,n,d) that are the front of buffers (B,H,room,d)."""

    def __init__(self, room: int):
        super().__init__()  # type: ignore[no-untyped-call]
        self._room = room
        self._buffers: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append (B,H,m,d); the keys and values so far, (B,H,n+m,d) each."""
        old = self.get_seq_length()
        end = old + key_states.shape[2]
        self._make_room(key_states, end)
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, old:end] = new
        return self._show(end)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows."""
        if self._buffers:
            self._buffers = [buffer[indices] for buffer in self._buffers]
            self._show(self.get_seq_length())

    def _make_room(self, states: Tensor, end: int) -> None:
        if not self._buffers:
            self.dtype, self.device, self.is_initialized = multiplied_in(states), states.device, True
            rows, heads, _length, width = states.shape
            shape = (rows, heads, max(self._room, end), width)
            self._buffers = [states.new_empty(shape, dtype=self.dtype) for _ in range(2)]
        elif (missing := end - self._buffers[0].shape[2]) > 0:
            self._buffers = [nn.functional.pad(buffer, (0, 0, 0, missing)) for buffer in self._buffers]

    def _show(self, end: int) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values


def preallocated_cache(config: PreTrainedConfig, room: int) -> Cache:
    """An empty cache for `room` positions a row.

    Under autocast it holds what the attention reads: its dtype.
    """
    return Cache(layers=[_Layer(room) for _ in range(int(config.num_hidden_layers))])
