"""Damage as disks, networks and editors do it, from a seed."""

from __future__ import annotations

import random

import pytest

COUNTS = [100, pytest.param(10_000, marks=pytest.mark.slow)]
"""Damaged inputs of each reader: a sample in every run, and many in the slow one."""


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The data with one to three places changed; never the data itself."""
    while True:
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            _change(changed, rng)
        if changed != data:
            return bytes(changed)


def _change(data: bytearray, rng: random.Random) -> None:
    how = rng.randrange(9)
    at = rng.randrange(len(data) + 1)
    size = rng.choice((1, 1, 2, 8, 64))
    if how <= 1 and data:
        data[at % len(data)] ^= 1 << rng.randrange(8)
    elif how == 2:
        del data[at:]
    elif how == 3:
        del data[at : at + size]
    elif how == 4:
        data[at:at] = rng.randbytes(size)
    elif how == 5:
        data += rng.choice((rng.randbytes(size), bytes(size), bytes(data[:size]), bytes(data[-size:])))
    elif how == 6:
        data[at : at + size] = bytes(len(data[at : at + size]))
    elif how == 7:
        there = rng.randrange(len(data) + 1)
        data[at:at] = data[there : there + size]
    else:
        data[at : at + 1] = rng.choice(
            (b"\n", b"\xff", b"\xef\xbb\xbf", b'"', b"{", b": ", b"&a ", b"*a", b"-")
        )
