"""Divide the validation posts by the split that the comparisons mark.

OpenAI published one file of 6,447 validation posts. Only the splits of the comparisons tell which of them
selected models and which were reported on (P App. A: 1,913 posts selected, and are excluded from reports).
A post of valid1

- with labels of valid1 only is used to select,
- with labels of valid2 only is used to report,
- with labels of both is used to select, and its valid2 labels are set aside,
- without such labels stays in valid1.

Labels of other posts keep their split. A label belongs to a post with the same id or the same body.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tldr.errors import UsageError
from tldr.inputs.posts import body_hash
from tldr.records import Article, Info, Post, Ranking

Named = tuple[str | None, str]
"""What identifies a post: its id, or None, and its `posts.body_hash`."""
Mark = Literal["valid1", "valid2", "both", "unmarked"]


def named(record: Post | Article | Info) -> Named:
    """What identifies a record's post."""
    return record.id, body_hash(record)


@dataclass(frozen=True)
class Marks:
    """Which validation posts the comparisons mark valid1, and which valid2.

    Posts with one body are one post here, whatever their ids.

    Attributes:
        ids: id -> body hash of every validation post.
        bodies: body hashes of every validation post.
        valid1, valid2: body hashes of the posts marked so; a post with both marks is in both.
    """

    ids: Mapping[str | None, str]
    bodies: frozenset[str]
    valid1: frozenset[str]
    valid2: frozenset[str]

    @classmethod
    def of(cls, posts: Iterable[Named], valid1: Iterable[Named], valid2: Iterable[Named]) -> Marks:
        """The marks of the posts, given what the labels of both splits are about."""
        posts = list(posts)
        unmarked = cls(
            {id: body for id, body in posts if id is not None},
            frozenset(body for _, body in posts),
            frozenset(),
            frozenset(),
        )
        first, second = (
            frozenset(body for label in labels for body in unmarked.about(label))
            for labels in (valid1, valid2)
        )
        return cls(unmarked.ids, unmarked.bodies, first, second)

    def about(self, label: Named) -> set[str]:
        """Body hashes of the validation posts that have the label's id or its body."""
        id, body = label
        return ({body} & self.bodies) | ({self.ids[id]} if id in self.ids else set())

    def mark(self, post: Named) -> Mark:
        """The mark of a validation post."""
        first, second = post[1] in self.valid1, post[1] in self.valid2
        if first:
            return "both" if second else "valid1"
        return "valid2" if second else "unmarked"

    def reports(self, post: Named) -> bool:
        """Whether the post leaves valid1 because it is only for reporting."""
        return self.mark(post) == "valid2"

    def sets_aside(self, label: Named) -> bool:
        """Whether a valid2 label is set aside because its post is used to select."""
        return not self.valid1.isdisjoint(self.about(label))


@dataclass(frozen=True)
class Divided:
    """The records of a study, with its validation posts divided.

    Attributes:
        posts: ``valid1``, and the posts that left it: as ``valid2`` if that was the same set of posts,
            else as ``validation_valid2``. Sets that are not named stay unchanged.
        rankings, set_aside: the labels that are used, and those that are not.
        counts: number of validation posts, of posts by mark, and of labels set aside.
    """

    posts: dict[str, list[Post]]
    rankings: list[Ranking]
    set_aside: list[Ranking]
    counts: dict[str, int]


def divide(valid1: Sequence[Post], valid2: Sequence[Post], rankings: Sequence[Ranking]) -> Divided | None:
    """Divide the posts of valid1; None if none of them has a valid2 label.

    Raises:
        UsageError: no post is left to select on.
    """
    labels = [(row, named(row.info)) for row in rankings]
    splits = ([name for row, name in labels if row.split == split] for split in ("valid1", "valid2"))
    marks = Marks.of(map(named, valid1), *splits)
    if not marks.valid2:
        return None
    selecting, reporting = (
        [post for post in valid1 if marks.reports(named(post)) == wanted] for wanted in (False, True)
    )
    if not selecting:
        raise UsageError(
            "the comparisons mark every post of valid1 as valid2: none is left to select on",
            where="data.valid1",
            remedy="give posts that the comparisons mark valid1, or do not mark",
        )
    posts = {"valid1": selecting}
    if reporting:
        same = set(map(named, valid1)) == set(map(named, valid2))
        posts["valid2" if same else "validation_valid2"] = reporting
    aside = [row.split == "valid2" and marks.sets_aside(name) for row, name in labels]
    found = Counter(marks.mark(named(post)) for post in valid1)
    counts = {"posts": len(valid1)} | {mark: found[mark] for mark in ("valid1", "valid2", "both", "unmarked")}
    return Divided(
        posts,
        [row for row, left in zip(rankings, aside, strict=True) if not left],
        [row for row, left in zip(rankings, aside, strict=True) if left],
        counts | {"labels_set_aside": sum(aside)},
    )
