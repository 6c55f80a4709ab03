"""The leakage guard: which sets of a study may share posts, and which may not.

Two posts are the same if their ids or their bodies are equal (`posts.body_hash`: copies of the data differ in
white space, and some rows have no id). The use of a set decides what it may share:

===============  =============  =======  ==========================================================
set              shared with    verdict  why, and the source of the rule
===============  =============  =======  ==========================================================
sft              valid1,        leak     trained on the posts that choose and report (P App. A:
                 reporting               about 5 % of the posts are held out)
sft              labels/valid*  leak     reward models start from SFT, which was trained on the
                                         references, and those are among the labelled summaries
                                         (P B.1)
ppo              valid1,        leak     the policy is optimised on its evaluation posts (P App. A:
                 reporting               held out)
ppo              labels/valid*  normal   prompts carry no label, and no reward model learns from
                                         them; PPO's samples are reported on valid2 (this project)
labels/train     valid1,        leak     the reward model scores the samples of these posts
                 reporting               (this project)
labels/train     labels/valid*  leak     its accuracy would be that on its training posts (OAI
                                         README: train, valid1 and valid2 are splits)
valid1           reporting,     leak     it selects (P App. A: 1,913 posts selected, and are excluded
                 labels/valid2           from what is reported; OAI README: final evaluation used
                                         valid2 only)
labels/valid1    reporting,     leak     it selects and must not report (OAI README)
                 labels/valid2
sft              ppo            normal   the SFT posts are PPO posts too (P App. A)
sft, ppo         labels/train   normal   the paper labels summaries of its training posts (P 3.3)
valid1           labels/valid1  normal   the labels are about these posts
reporting        reporting,     normal   the labels are about these posts; all these sets only
                 labels/valid2           report
===============  =============  =======  ==========================================================

"reporting" are ``valid2``, ``test``, and the validation posts that leave valid1: ``validation_valid2`` and
``validation_unmarked``, which the comparisons mark valid2 or not at all (`tldr.inputs.validation`). A study
whose labels do not overlap so has none of the last two.
With cross-validation the labels of each fold (``labels/fold-2/train``) are held to the same table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tldr.errors import UsageError
from tldr.files import by_number
from tldr.inputs.posts import check_disjoint, comparison_or_ranking, post_keys
from tldr.inputs.validation import UNMARKED, Named, named
from tldr.records import Article, Comparison, Info, OnError, Post, Ranking, ReadReport, Record, iter_records

LABELS = ("labels/train", "labels/valid1", "labels/valid2")
REPORTING = ("valid2", "test", "validation_valid2", UNMARKED)
"""The sets of posts that only report."""
EVALUATION = ("valid1", *REPORTING)
"""The sets of posts that select or report."""
LEAKS: Mapping[str, tuple[str, ...]] = {
    "sft": (*EVALUATION, "labels/valid1", "labels/valid2"),
    "ppo": EVALUATION,
    "labels/train": (*EVALUATION, "labels/valid1", "labels/valid2"),
    "valid1": (*REPORTING, "labels/valid2"),
    "labels/valid1": (*REPORTING, "labels/valid2"),
}
"""Set -> the sets that must not share a post with it."""
Reader = Callable[..., Iterable[Record]]
"""Reads a file of records, called as `records.iter_records`."""
POSTS = ("sft", "ppo", *EVALUATION)
_FOLD = re.compile(r"(?<=^labels/)(fold-\d+)/")


def check_leaks(keys: Mapping[str, Set[str]]) -> None:
    """Refuse sets that share posts they must not share.

    Args:
        keys: name (as in `LEAKS`) -> `posts.post_keys`; absent sets are not checked.

    Raises:
        UsageError: naming the sets and one key they share.
    """
    for first, others in LEAKS.items():
        if first in keys:
            check_disjoint({first: keys[first]}, {name: keys[name] for name in others if name in keys})


def folder_keys(folder: Path, names: Sequence[str] = POSTS) -> dict[str, frozenset[str]]:
    """The `post_keys` of the post files in a data folder."""
    files = {name: folder / f"{name}.jsonl" for name in names}
    return {name: post_keys(iter_records(file, Post)) for name, file in files.items() if file.is_file()}


def label_keys(splits: Mapping[str, Sequence[Ranking]]) -> dict[str, frozenset[str]]:
    """The `post_keys` of labels by split, under the names of `LEAKS`."""
    return {f"labels/{split}": post_keys(rows) for split, rows in splits.items()}


@dataclass(frozen=True)
class PostSet:
    """The different posts of some records."""

    posts: frozenset[Named]

    @classmethod
    def of(cls, records: Iterable[Post | Article | Info]) -> PostSet:
        """The posts of records."""
        return cls(frozenset(map(named, records)))

    @property
    def ids(self) -> set[str]:
        """Ids of the posts that have one."""
        return {id for id, _ in self.posts if id is not None}

    @property
    def bodies(self) -> set[str]:
        """Hashes of the bodies."""
        return {body for _, body in self.posts}


@dataclass(frozen=True)
class Overlap:
    """What two sets share.

    Attributes:
        by_id, by_body: number of distinct ids and of distinct bodies in both.
        either: number of posts of `first` whose id or body is in `second`.
        leak: the two must not share a post.
    """

    first: str
    second: str
    by_id: int
    by_body: int
    either: int
    leak: bool = False


@dataclass
class Collected:
    """Sets by name, and the reports of reading them."""

    sets: dict[str, PostSet] = field(default_factory=dict)
    reports: list[ReadReport] = field(default_factory=list)


def overlaps(sets: Mapping[str, PostSet], rules: Mapping[str, Sequence[str]] = LEAKS) -> list[Overlap]:
    """The overlap of every ordered pair of different sets."""
    ids = {name: found.ids for name, found in sets.items()}
    bodies = {name: found.bodies for name, found in sets.items()}
    return [
        Overlap(
            a,
            b,
            len(ids[a] & ids[b]),
            len(bodies[a] & bodies[b]),
            sum(id in ids[b] or body in bodies[b] for id, body in sets[a].posts),
            forbidden(a, b, rules) or forbidden(b, a, rules),
        )
        for a in sets
        for b in sets
        if a != b
    ]


def forbidden(first: str, second: str, rules: Mapping[str, Sequence[str]] = LEAKS) -> bool:
    """Whether the rules name this pair in this order; labels of two folds do not meet."""
    folds = {found[1] for name in (first, second) if (found := _FOLD.search(name))}
    first, second = (name if name in rules else _FOLD.sub("", name) for name in (first, second))
    return len(folds) < 2 and _FOLD.sub("", second) in rules.get(first, ())


def collect_folder(folder: Path, into: Collected, on_error: OnError = "stop") -> None:
    """The sets of a data folder (``sft.jsonl``, ...) or of a folder of labels (``train.jsonl``, ...).

    Raises:
        UsageError: the folder holds neither.
    """
    posts = [name for name in POSTS if (folder / f"{name}.jsonl").is_file()]
    folds = sorted(folder.glob("fold-*/train.jsonl"), key=by_number)
    if "sft" in posts:
        for name in posts:
            read_set(name, folder / f"{name}.jsonl", into, on_error)
        if (folder / "rankings.jsonl").is_file():
            read_labels(folder / "rankings.jsonl", into, on_error)
    elif folds or (folder / "train.jsonl").is_file():
        for place in [path.parent for path in folds] or [folder]:
            prefix = f"labels/{place.name}" if folds else "labels"
            for split in ("train", "valid1", "valid2"):
                read_set(f"{prefix}/{split}", place / f"{split}.jsonl", into, on_error)
    else:
        raise UsageError(
            "holds neither posts (sft.jsonl, ...) nor labels (train.jsonl, ...)",
            where=folder,
            remedy="name a data run's or a labels run's folder, or files as NAME=FILE",
        )


def read_set(
    name: str, path: str | Path, into: Collected, on_error: OnError = "stop", read: Reader = iter_records
) -> None:
    """Add the posts of a file of posts, articles, labels or ratings as the set `name`.

    Args:
        read: `records.iter_records`, or a function that also reads known sources.

    Raises:
        UsageError: no such file, or no post in it.
        RecordError: a bad line, with on_error "stop".
    """
    report = ReadReport(Path(path))
    into.reports.append(report)
    rows = read(path, record_of_a_post, on_error=on_error, report=report)
    posts = (getattr(row, "info", row) for row in rows)
    into.sets[name] = PostSet.of(post for post in posts if isinstance(post, Post | Article | Info))
    if not into.sets[name].posts:
        raise UsageError("the file holds no post", where=path, remedy="check that it is the right file")


def record_of_a_post(data: dict[str, Any]) -> Post | Article | Info:
    if "info" in data:
        return Info.model_validate(data["info"])
    return (Article if "article" in data else Post).model_validate(data)


def read_labels(path: Path, into: Collected, on_error: OnError, read: Reader = iter_records) -> None:
    """Add the posts of a file of labels, one set per split, named as in `LABELS`.

    Raises:
        UsageError: the file holds other records.
        RecordError: a bad line, with on_error "stop".
    """
    report = ReadReport(path)
    into.reports.append(report)
    rows: dict[str, list[Info]] = {}
    for row in read(path, comparison_or_ranking, on_error=on_error, report=report):
        if not isinstance(row, Comparison | Ranking):
            raise UsageError(f"holds {type(row).__name__} records, not comparisons", where=path)
        rows.setdefault(f"labels/{row.split}", []).append(row.info)
    into.sets.update({name: PostSet.of(rows[name]) for name in LABELS if name in rows})
