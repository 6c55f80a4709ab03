"""The validation posts, divided by what the comparisons mark them as.

OpenAI published one file of 6,447 validation posts. Which of them chose models and which were reported on
is told by the splits of the comparisons alone (P App. A: 1,913 posts chose, and are excluded from what is
reported). So a post of valid1

- that only labels of valid1 are about selects,
- that only labels of valid2 are about reports and nothing else,
- that labels of both are about selects, and its valid2 labels are set aside,
- that no such label is about stays in valid1.

Labels about other posts keep their split. A label is about a post by its id or by its body.
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
"""A post by its id, where it has one, and its `sources.body_hash`."""
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
        """Whether the post leaves valid1, since it only reports."""
        return self.mark(post) == "valid2"

    def sets_aside(self, label: Named) -> bool:
        """Whether a valid2 label is set aside, since its post selects."""
        return not self.valid1.isdisjoint(self.about(label))


@dataclass(frozen=True)
class Divided:
    """The records of a study, with its validation posts divided.

    Attributes:
        posts: ``valid1``, and the posts that left it: under ``valid2`` where that was the same set of
            posts, else under ``validation_valid2``. What is not named stays as it was.
        rankings, set_aside: the labels to use, and those that are not used.
        counts: validation posts, how many have which mark, and the labels set aside.
    """

    posts: dict[str, list[Post]]
    rankings: list[Ranking]
    set_aside: list[Ranking]
    counts: dict[str, int]


def divide(valid1: Sequence[Post], valid2: Sequence[Post], rankings: Sequence[Ranking]) -> Divided | None:
    """Divide the posts of valid1; None where no valid2 label is about one of them.

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
