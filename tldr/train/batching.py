"""The examples of every update, computed without iterating over earlier updates.

A batch contains examples of similar length, so that little compute is spent on padding: about 1 %
instead of 36 % at batch 8 on TL;DR lengths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from tldr.errors import UsageError
from tldr.train.rng import permutation

T = TypeVar("T")


def epoch_order(
    lengths: Sequence[int], batch: int, seed: int, epoch: int, *, window: int = 512, keep_last: bool = True
) -> list[list[int]]:
    """One epoch's batches of example indices; every example is used exactly once.

    The examples are shuffled, sorted by length within windows of about `window`, and cut into batches;
    then the batches are shuffled. Examples that do not fill a batch are drawn before the sort, so that
    they are not the longest ones. They form the last batch or, without `keep_last`, are left out of
    this epoch.
    """
    order: list[int] = permutation(len(lengths), seed, "examples", epoch).tolist()
    whole = len(order) - len(order) % batch
    order, rest = order[:whole], order[whole:]
    window = max(batch, window - window % batch)
    by_length = [
        index
        for start in range(0, whole, window)
        for index in sorted(order[start : start + window], key=lambda i: lengths[i])
    ]
    batches = [by_length[start : start + batch] for start in range(0, whole, batch)]
    batches = [batches[i] for i in permutation(len(batches), seed, "batches", epoch).tolist()]
    if rest and keep_last:
        batches.append(sorted(rest, key=lambda i: lengths[i]))
    return batches


class BatchPlan:
    """The batches of a whole run, over any number of epochs or a fraction of one.

    Args:
        lengths: tokens of each example; batches are formed by length.
        batch: examples per update, over all processes.
        epochs: length of the run; a fraction is rounded up to whole updates.
        updates: length of the run in updates instead.
        keep_last: end each epoch with the examples that do not fill a batch.
        processes: number of processes that share each batch.

    Raises:
        UsageError: there are too few examples for a batch, or a batch has fewer examples than processes.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch: int,
        seed: int,
        *,
        epochs: float | None = None,
        updates: int | None = None,
        keep_last: bool = True,
        processes: int = 1,
    ):
        if (epochs is None) == (updates is None):
            raise UsageError("give a run's length either in epochs or in updates")
        whole, rest = divmod(len(lengths), batch)
        self.per_epoch = whole + bool(rest and keep_last)
        if self.per_epoch == 0:
            raise UsageError(
                f"{len(lengths)} examples do not fill one batch of {batch}", remedy="lower batch or add data"
            )
        smallest = rest if rest and keep_last else batch
        if smallest < processes:
            raise UsageError(
                f"a batch of {smallest} examples cannot be shared by {processes} processes",
                remedy="change batch, or drop the last batch of each epoch",
            )
        if epochs is not None:
            updates = math.ceil(epochs * self.per_epoch - 1e-9)
        self.total_updates = max(1, updates or 0)
        self._lengths, self._batch, self._seed, self._keep_last = lengths, batch, seed, keep_last
        self._epoch: tuple[int, list[list[int]]] = (-1, [])

    def batch(self, update: int) -> list[int]:
        """The example indices of update `update` (from 0), shortest first."""
        epoch, place = divmod(update, self.per_epoch)
        if self._epoch[0] != epoch:
            batches = epoch_order(self._lengths, self._batch, self._seed, epoch, keep_last=self._keep_last)
            self._epoch = (epoch, batches)
        return self._epoch[1][place]


def micro_batches(
    batch: Sequence[T], size: int | None = None, rank: int = 0, processes: int = 1
) -> list[Sequence[T]]:
    """This process's share of a batch, in micro-batches of at most `size` examples.

    Neighbours stay together, so a batch sorted by length gives micro-batches of similar length. Every
    process gets the same number of micro-batches, none empty (so with `size` 1 some contain two
    examples if `processes` does not divide the batch).

    Raises:
        UsageError: fewer examples than processes.
    """
    if len(batch) < processes:
        raise UsageError(f"{len(batch)} examples cannot be shared by {processes} processes")
    size = size or len(batch)
    rounds = min(math.ceil(len(batch) / (size * processes)), len(batch) // processes)
    parts = rounds * processes
    cuts = [len(batch) * part // parts for part in range(parts + 1)]
    return [batch[start:end] for start, end in pairwise(cuts)][rank::processes]
