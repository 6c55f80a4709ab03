"""The labels that a reward model trains on and is selected by, where the settings name a part of them."""

from __future__ import annotations

from collections.abc import Sequence

from tldr.errors import UsageError
from tldr.inputs.posts import body_hash
from tldr.records import Ranking

MIDDLE = 5
"""Of the slider from 1 to 9."""


def of_batches(rankings: list[Ranking], batches: Sequence[str] | None) -> list[Ranking]:
    """The rankings of some batches, in their order; None: all.

    Raises:
        UsageError: a batch has no ranking.
    """
    if batches is None:
        return rankings
    known = {ranking.batch for ranking in rankings}
    if absent := sorted(set(batches) - known):
        raise UsageError(
            f"no training label is of batch {', '.join(absent)}",
            where="reward.batches",
            remedy=f"those with training labels are {', '.join(sorted(known))}",
        )
    return [ranking for ranking in rankings if ranking.batch in batches]


def in_part(rankings: Sequence[Ranking], part: tuple[float, float]) -> list[Ranking]:
    """The rankings of a part of all posts, in their order.

    A post has a place between 0 and 1 by the hash of its text (`body_hash`), wherever it comes from, so parts
    that do not overlap share no post.

    Args:
        part: from which place to below which; (0, 1) are all.

    Raises:
        UsageError: there is none.
    """
    low, high = part
    places = (int(body_hash(ranking.info)[:13], 16) / 16**13 for ranking in rankings)
    found = [ranking for ranking, place in zip(rankings, places, strict=True) if low <= place < high]
    if not found:
        raise UsageError(
            f"no training ranking is about a post of the part {[low, high]}",
            where="reward.posts",
            remedy="give a larger part",
        )
    return found


def confident(rankings: list[Ranking], least: int | None) -> list[Ranking]:
    """The rankings whose labeler moved the slider at least so far from its middle; None: all.

    Raises:
        UsageError: there is none.
    """
    if least is None:
        return rankings
    kept = [
        ranking
        for ranking in rankings
        if ranking.extra.confidence is not None and abs(ranking.extra.confidence - MIDDLE) >= least
    ]
    if not kept:
        raise UsageError(
            f"no label of valid1 has a confidence at least {least} from the middle of the slider",
            where="reward.select_confidence",
            remedy="take a smaller number, or null to select on all labels",
        )
    return kept
