"""The posts whose labels a reward model learns from: chosen by a hash, and noted beside the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tldr.errors import UsageError
from tldr.files import write_text
from tldr.inputs.posts import body_hash
from tldr.records import Ranking

TRAINED_ON = "trained_on.txt"
"""In a reward model's folder: a line for each post whose labels it learned from, the hash of its body."""


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


def write_trained_on(folder: Path, rankings: Sequence[Ranking]) -> None:
    """Note the posts of a reward model's training rankings."""
    hashes = sorted({body_hash(ranking.info) for ranking in rankings})
    write_text(folder / TRAINED_ON, "".join(f"{one}\n" for one in hashes))


def posts_trained_on(place: Path) -> frozenset[str] | None:
    """The hashes that `write_trained_on` noted in a run's folder; None where there is no note.

    Args:
        place: a run's folder, or the checkpoint in it.
    """
    for folder in (place, place.parent):
        if (file := folder / TRAINED_ON).is_file():
            return frozenset(file.read_text(encoding="utf-8").split())
    return None
