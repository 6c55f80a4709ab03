"""Divide the validation posts by the split that the comparisons mark.

OpenAI published one file of 6,447 validation posts. Only the splits of the comparisons tell which of them
selected models and which were reported on. A post of valid1

- with labels of valid1 only is used to select (OAI README: valid1 selected models in training);
- with labels of valid2 only is used to report (OAI README: the final evaluation used valid2 only);
- with labels of both is used to select, and its valid2 labels are set aside (a rule of this project: the
  source does not say, and a post that chose may not report);
- without such labels is used to report, in a set of its own, ``validation_unmarked`` (P App. A: 1,913 posts
  selected and all others may be reported on; that the 1,913 are the valid1 posts is inferred).

Where the comparisons mark no post valid1, the unmarked ones select. Labels of other posts keep their split. A
label belongs to a post with the same id or the same body.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tldr.errors import UsageError
from tldr.inputs.posts import body_hash
from tldr.records import Article, Info, Post, Ranking

Named = tuple[str | None, str]
"""What identifies a post: its id, or None, and its `posts.body_hash`."""
Mark = Literal["valid1", "valid2", "both", "unmarked"]
MARKS: tuple[Mark, ...] = ("valid1", "valid2", "both", "unmarked")
UNMARKED = "validation_unmarked"
"""The set of validation posts that no comparison marks."""
PAPER_SELECTED, PAPER_VALIDATION = 1_913, 6_447
"""Validation posts on which the paper selected models (P App. A), and all of them."""


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

    def use(self, post: Named) -> Literal["select", "report", "report apart"]:
        """What a validation post is used for; "report apart" are the unmarked ones."""
        mark = self.mark(post)
        if mark == "unmarked":
            return "report apart" if self.valid1 else "select"
        return "report" if mark == "valid2" else "select"

    def sets_aside(self, label: Named) -> bool:
        """Whether a valid2 label is set aside because its post is used to select."""
        return not self.valid1.isdisjoint(self.about(label))


@dataclass(frozen=True)
class Divided:
    """The records of a study, with its validation posts divided.

    Attributes:
        posts: ``valid1``, and the posts that left it: marked ones as ``valid2`` if that was the same set of
            posts, else as ``validation_valid2``; unmarked ones as `UNMARKED`. Sets that are not named stay
            unchanged.
        rankings, set_aside: the labels that are used, and those that are not.
        counts: number of validation posts, of posts by mark, and of labels set aside.
    """

    posts: dict[str, list[Post]]
    rankings: list[Ranking]
    set_aside: list[Ranking]
    counts: dict[str, int]


def reporting_name(valid1: Collection[Named], valid2: Collection[Named]) -> str:
    """The set of the posts marked valid2: ``valid2`` itself where one set of posts is given as both."""
    return "valid2" if set(valid1) == set(valid2) else "validation_valid2"


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
    uses: dict[str, list[Post]] = {"select": [], "report": [], "report apart": []}
    for post in valid1:
        uses[marks.use(named(post))].append(post)
    if not uses["select"]:
        raise UsageError(
            "the comparisons mark every post of valid1 as valid2: none is left to select on",
            where="data.valid1",
            remedy="give posts that the comparisons mark valid1, or do not mark",
        )
    reporting = reporting_name([named(post) for post in valid1], [named(post) for post in valid2])
    sets = {"valid1": uses["select"], reporting: uses["report"], UNMARKED: uses["report apart"]}
    aside = [row.split == "valid2" and marks.sets_aside(name) for row, name in labels]
    found = Counter(marks.mark(named(post)) for post in valid1)
    counts = {"posts": len(valid1)} | {mark: found[mark] for mark in MARKS}
    return Divided(
        {name: posts for name, posts in sets.items() if posts},
        [row for row, left in zip(rankings, aside, strict=True) if not left],
        [row for row, left in zip(rankings, aside, strict=True) if left],
        counts | {"labels_set_aside": sum(aside)},
    )
