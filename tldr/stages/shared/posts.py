"""Posts of a data folder, and the first of them in a shuffled order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tldr.errors import UsageError
from tldr.records import Post, read_records
from tldr.train.rng import permutation


def read_posts(place: Path, name: str, *, references: bool = False) -> list[Post]:
    """The posts of a data folder's ``<name>.jsonl``.

    Raises:
        UsageError: the file is missing or empty, or a reference is asked for and absent.
    """
    path = Path(place) / f"{name}.jsonl"
    posts = read_records(path, Post)
    if not posts:
        raise UsageError("holds no posts", where=path, remedy="give a file with at least one Post a line")
    if references:
        for number, post in enumerate(posts, start=1):
            if not (post.summary or "").strip():
                raise UsageError(
                    f"post {post.id} has no reference summary",
                    where=f"{path}:{number}",
                    remedy="posts without a summary belong in the PPO file",
                )
    return posts


def first_shuffled(posts: Sequence[Post], limit: int | None, *, seed: int, stage: str) -> list[Post]:
    """The first `limit` of the posts in a shuffled order; None: all.

    The order depends on the stage, the seed and the number of posts alone, so a smaller limit gives a part of
    what a larger one gives. The chosen posts stay in the order of their file: all of them by a limit are what
    all without one are.

    Args:
        stage: whose setting `limit` it is.

    Raises:
        UsageError: there are fewer posts than `limit`.
    """
    if limit is None:
        return list(posts)
    if limit > len(posts):
        raise UsageError(
            f"{limit:,} posts are asked for, but there are {len(posts):,}",
            where=f"{stage}.limit",
            remedy=f"lower it to at most {len(posts)}, or leave it out to use all",
        )
    chosen = sorted(permutation(len(posts), seed, stage, "limit")[:limit].tolist())
    return [posts[place] for place in chosen]
