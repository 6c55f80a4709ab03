"""The sets of posts of a study's own files, as `data overlap` compares them."""

from __future__ import annotations

from pathlib import Path

from tldr.inputs.leakage import Collected, PostSet, read_labels, read_set
from tldr.inputs.validation import Marks
from tldr.sources.place import records_at
from tldr.stages.data.settings import FileData


def collect_study(data: FileData, into: Collected) -> None:
    """The sets of a study whose data are files, labels by their own splits; divided as by the data stage."""
    files = {"sft": data.sft, "ppo": data.ppo or data.sft, "valid1": data.valid1, "valid2": data.valid2}
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
    reporting = frozenset(post for post in posts if marks.reports(post))
    if reporting:
        name = "valid2" if sets["valid2"].posts == posts else "validation_valid2"
        sets |= {"valid1": PostSet(posts - reporting), name: PostSet(reporting)}
    used = frozenset(label for label in labels[1] if not marks.sets_aside(label))
    if used != labels[1]:
        sets["labels/valid2"] = PostSet(used)
