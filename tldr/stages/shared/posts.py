"""Posts of a data folder, and their queries in tokens."""

from __future__ import annotations

from pathlib import Path

from tldr.errors import UsageError
from tldr.records import Post, read_records


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
