"""The posts whose labels a reward model learned from, noted beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tldr.files import write_text
from tldr.inputs.posts import body_hash
from tldr.records import Ranking

TRAINED_ON = "trained_on.txt"
"""In a reward model's folder: a line for each post whose labels it learned from, the hash of its body."""


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
