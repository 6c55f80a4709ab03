"""A preallocated key-value cache: a decoding step copies no earlier keys or values.

Queries of different lengths can be encoded in groups, each into its own rows (`rows_of`), so that no pass is
padded to the longest query of all.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import Cache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

from tldr.models.attention import multiplied_in


class _Layer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values (B,H,n,d): the first n positions of buffers (B,H,room,d)."""

    def __init__(self, room: int):
        super().__init__()  # type: ignore[no-untyped-call]
        self._room = room
        self._buffers: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append (B,H,m,d); returns all keys and values so far, (B,H,n+m,d) each."""
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
        """Write (B,H,m,d) into the `chosen` of `total` rows, ending at position `end`, with 0 before."""
        if not self._buffers:
            self._make_room(key_states[:1].expand(total, -1, -1, -1), end)
        start = end - key_states.shape[2]
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[chosen, :, :start] = 0  # masked, but 0 times an uninitialised value could be NaN
            buffer[chosen, :, start:end] = new.to(buffer.dtype)
        self._show(end)


class _Rows(DynamicLayer):
    """Some rows of a layer, filled by one forward pass."""

    def __init__(self, whole: _Layer, chosen: Tensor, total: int, end: int):
        super().__init__()  # type: ignore[no-untyped-call]
        self._whole, self._chosen, self._total, self._end = whole, chosen, total, end

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Store (B,H,m,d) and return them: they are all keys and values so far."""
        self._whole.fill(self._chosen, self._total, self._end, key_states, value_states)
        return key_states, value_states


def cache_width(config: PreTrainedConfig) -> int:
    """Numbers that a layer caches per token: keys and values; heads that share them count once."""
    heads = int(config.num_attention_heads)
    share = int(getattr(config, "num_key_value_heads", None) or heads) / heads
    return round(2 * int(config.hidden_size) * share)


def preallocated_cache(config: PreTrainedConfig, room: int) -> Cache:
    """An empty cache for `room` positions per row.

    Under autocast it has the dtype that the attention computes in.
    """
    return Cache(layers=[_Layer(room) for _ in range(int(config.num_hidden_layers))])


def rows_of(cache: Cache, chosen: Tensor, total: int, end: int) -> Cache:
    """A cache for one forward pass over left-padded queries; it fills some rows of a `preallocated_cache`.

    Args:
        chosen: int64, the rows to fill.
        total: number of rows in the cache.
        end: positions in every row after the pass, left padding included.
    """
    return Cache(
        layers=[_Rows(layer, chosen, total, end) for layer in cache.layers if isinstance(layer, _Layer)]
    )
