"""Streams of random numbers by name."""

from __future__ import annotations

import hashlib

import torch
from hypothesis import given
from hypothesis import strategies as st

from tldr.train.rng import derive, generator, permutation, seeded

NAMES = st.lists(st.one_of(st.text(max_size=4), st.integers(0, 9)), max_size=3).map(tuple)


def test_derive_is_this_number_forever() -> None:
    digest = hashlib.sha256(b'[7, "dropout", 3, 0]').digest()
    assert derive(7, "dropout", 3, 0) == int.from_bytes(digest[:8], "big") // 2 == 6799544312491320061


@given(st.integers(0, 2**32), NAMES, NAMES)
def test_different_names_give_different_seeds(seed: int, a: tuple, b: tuple) -> None:
    assert 0 <= derive(seed, *a) < 2**63
    assert (derive(seed, *a) == derive(seed, *b)) == (repr(a) == repr(b))
    assert derive(seed, *a) != derive(seed + 1, *a)


def test_trap_seeds_split_per_rank() -> None:
    streams = {
        tuple(torch.rand(4, generator=generator(3, purpose, step, rank)).tolist())
        for purpose in ("sample", "dropout", "minibatch")
        for step in range(4)
        for rank in range(4)
    }
    assert len(streams) == 3 * 4 * 4
    # No sums in the making: the neighbours step+1/rank and step/rank+1 differ too.
    assert derive(3, "sample", 1, 12) != derive(3, "sample", 11, 2)
    assert derive(3, "sample", "1") != derive(3, "sample", 1)


def test_permutation_is_one_and_repeats() -> None:
    order = permutation(100, 1, "examples", 0)
    assert order.sort().values.equal(torch.arange(100)) and order.dtype == torch.int64
    assert order.equal(permutation(100, 1, "examples", 0))
    assert not order.equal(permutation(100, 1, "examples", 1))


def test_seeded_leaves_the_global_stream_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    with seeded(1, "dropout", 4):
        inside = torch.rand(2)
    assert torch.rand(2).equal(expected)
    with seeded(1, "dropout", 4):
        assert torch.rand(2).equal(inside)
    with seeded(1, "dropout", 5):
        assert not torch.rand(2).equal(inside)
