"""Split the posts of one file into the sets of a study by a hash of their ids: more data moves no post."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence, Set

from tldr.errors import UsageError
from tldr.inputs.posts import post_keys
from tldr.records import Post

SETS = ("sft", "valid1", "valid2")


def place_of(id: str) -> float:
    """The hash of an id as a number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:8], "big") / 2**64


def split_posts(
    posts: Sequence[Post], *, valid1: float, valid2: float, apart: Set[str] = frozenset()
) -> dict[str, list[Post]]:
    """The posts for training (sft), for selection (valid1) and for reporting (valid2).

    Args:
        valid1, valid2: shares.
        apart: `post_keys` of posts to leave out of all three, such as those of labels.

    Raises:
        UsageError: the shares leave nothing to train on, or a set is empty.
    """
    if not 0 < valid1 + valid2 < 1:
        raise UsageError(f"shares {valid1:g} and {valid2:g} leave no set to train on or none to report on")
    sets: dict[str, list[Post]] = {name: [] for name in SETS}
    for post in posts:
        if post_keys([post]) & apart:
            continue
        place = place_of(post.id)
        sets["valid1" if place < valid1 else "valid2" if place < valid1 + valid2 else "sft"].append(post)
    if empty := [name for name, rows in sets.items() if not rows]:
        raise UsageError(
            f"{len(posts)} posts leave none for {', '.join(empty)}", remedy="give more posts or larger shares"
        )
    return sets
