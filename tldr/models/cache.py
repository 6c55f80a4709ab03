"""A key-value cache with its whole room from the start: a step of the decode loop copies nothing old.

Queries of different lengths can be encoded a few at a time, each few into their own rows (`rows_of`), so that
no pass is padded to the longest query of all.
"""

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

    def fill(self, chosen: Tensor, total: int, end: int, key_states: Tensor, value_states: Tensor) -> None:
        """Put (B,H,m,d) into the `chosen` of `total` rows, to end at position `end`; before them, 0."""
        if not self._buffers:
            self._make_room(key_states[:1].expand(total, -1, -1, -1), end)
        start = end - key_states.shape[2]
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[chosen, :, :start] = 0  # under a mask, but 0 times what was there could be NaN
            buffer[chosen, :, start:end] = new.to(buffer.dtype)
        self._show(end)


class _Rows(DynamicLayer):
    """Some rows of a layer, filled by one forward pass."""

    def __init__(self, whole: _Layer, chosen: Tensor, total: int, end: int):
        super().__init__()  # type: ignore[no-untyped-call]
        self._whole, self._chosen, self._total, self._end = whole, chosen, total, end

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keep (B,H,m,d), and give them back: they are all keys and values so far."""
        self._whole.fill(self._chosen, self._total, self._end, key_states, value_states)
        return key_states, value_states


def cache_width(config: PreTrainedConfig) -> int:
    """Numbers that a layer keeps of a token: its keys and values, of heads that share them once."""
    heads = int(config.num_attention_heads)
    share = int(getattr(config, "num_key_value_heads", None) or heads) / heads
    return round(2 * int(config.hidden_size) * share)


def preallocated_cache(config: PreTrainedConfig, room: int) -> Cache:
    """An empty cache for `room` positions a row.

    Under autocast it holds what the attention reads: its dtype.
    """
    return Cache(layers=[_Layer(room) for _ in range(int(config.num_hidden_layers))])


def rows_of(cache: Cache, chosen: Tensor, total: int, end: int) -> Cache:
    """What one forward pass over left-padded queries is given, to fill some rows of a `preallocated_cache`.

    Args:
        chosen: int64, the rows.
        total: rows of the cache.
        end: positions that every row has after it, padding on its left included.
    """
    return Cache(
        layers=[_Rows(layer, chosen, total, end) for layer in cache.layers if isinstance(layer, _Layer)]
    )
