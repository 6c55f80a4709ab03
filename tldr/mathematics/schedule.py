"""The learning rate as a function of the update's index, so there is no state to save or restore."""

from __future__ import annotations

import math
from typing import Literal

from tldr.errors import UsageError


def lr_multiplier(
    update: int,
    updates: int,
    *,
    schedule: Literal["cosine", "linear", "constant"],
    warmup: float = 0.0,
    final: float = 0.0,
) -> float:
    """The learning rate of one update, as a fraction of the peak.

    W warm-up updates use 1/W, 2/W, ..., 1 (InstructGPT's "10 iterations from 0.1x" is W = 10). The
    multiplier then falls from 1 towards `final`, which it would reach at index `updates`, one past the
    last (as in lm-human-preferences and N+).

    Args:
        update: index of the update, from 0.
        updates: number of updates in the run.
        schedule: shape of the decay; "constant" stays at 1 and ignores `final`.
        warmup: a fraction of all updates if below 1, otherwise a number of updates.
        final: multiplier at the end, in [0, 1].

    Returns:
        The multiplier, in [0, 1].

    Raises:
        UsageError: the index is outside the run, the warm-up is longer than the run, or the schedule
            is unknown.
    """
    if not 0 <= update <= updates or updates < 1:
        raise UsageError(
            f"update {update} of {updates}",
            where="update",
            remedy="use an index from 0 to the number of updates",
        )
    warm = round(warmup * updates if warmup < 1 else warmup)
    if not 0 <= warm <= updates:
        raise UsageError(
            f"{warm} warm-up updates in a run of {updates}",
            where="optimizer.warmup",
            remedy="shorten the warm-up, or give it as a fraction below 1",
        )
    if update < warm:
        return (update + 1) / warm
    progress = (update - warm) / max(1, updates - warm)
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return final + (1 - final) * (1 - progress)
    if schedule == "cosine":
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))
    raise UsageError(
        f"unknown schedule {schedule!r}", where="optimizer.schedule", remedy="use cosine, linear or constant"
    )
