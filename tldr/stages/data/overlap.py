"""The sets of posts of a study's own files, as `data overlap` compares them."""

from __future__ import annotations

from pathlib import Path

from tldr.inputs.leakage import Collected, PostSet, read_labels, read_set
from tldr.inputs.validation import UNMARKED, Marks, Named, reporting_name
from tldr.sources.place import records_at
from tldr.stages.data.settings import FileData


def collect_study(data: FileData, into: Collected) -> None:
    """The sets of a study whose data are files, labels by their own splits; divided as by the data stage."""
    files = data.posts()
    for name, file in files.items():
        read_set(name, file, into, data.on_error, records_at)
    if data.comparisons is not None:
        read_labels(Path(data.comparisons), into, data.on_error, records_at)
        _divide(into.sets)


def _divide(sets: dict[str, PostSet]) -> None:
    """Divide the posts of valid1 in place; see `tldr.inputs.validation.divide`."""
    posts = sets["valid1"].posts
    labels = [
        sets[name].posts if name in sets else frozenset() for name in ("labels/valid1", "labels/valid2")
    ]
    marks = Marks.of(posts, *labels)
    uses: dict[str, set[Named]] = {"select": set(), "report": set(), "report apart": set()}
    for post in posts:
        uses[marks.use(post)].add(post)
    if marks.valid2:
        reporting = reporting_name(posts, sets["valid2"].posts)
        divided = {"valid1": uses["select"], reporting: uses["report"], UNMARKED: uses["report apart"]}
        sets |= {name: PostSet(frozenset(found)) for name, found in divided.items() if found}
    used = frozenset(label for label in labels[1] if not marks.sets_aside(label))
    if used != labels[1]:
        sets["labels/valid2"] = PostSet(used)
