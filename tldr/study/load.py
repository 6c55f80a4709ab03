"""Read a study file as a `Study`: merge its bases, apply overrides, and report every mistake by its place."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tldr.errors import UsageError, nearest
from tldr.settings.base import Settings
from tldr.strict_yaml import line_of, parse_yaml, read_yaml
from tldr.study.settings import Study
from tldr.study.vocabularies import unlike

S = TypeVar("S", bound=Settings)
Tree = dict[str, Any]


@dataclass(frozen=True)
class Places:
    """Where a study's settings are written: its file, the bases below it, and ``--set`` above it."""

    files: tuple[Path, ...]
    overrides: Tree

    def of(self, place: tuple[str, ...]) -> str:
        """``FILE:LINE: dotted.key`` in the file that contains the key, or the longest part of it."""
        inner: Any = self.overrides
        for part in place:
            inner = inner.get(part) if isinstance(inner, Mapping) else None
        found = [(*line_of(file, place), file) for file in self.files]
        depth, line, file = max(found, key=lambda entry: entry[0])  # the first of equals: the top file
        if place and inner is not None:
            where = f"{self.files[0]} with --set"
        else:
            where = f"{file}:{line}" if depth else str(self.files[0])
        return ": ".join(filter(None, (where, ".".join(place))))


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """Read a study file, its ``base:`` files below it and ``a.b=value`` overrides on top.

    A base is a path relative to the file that names it; of several, each is laid over those before it.
    Mappings are merged key by key; any other value, a list too, replaces that of the base. null removes the
    base's value of an optional setting.

    Args:
        overrides: the arguments of ``--set``; their values are YAML.

    Raises:
        UsageError: with the file, the dotted key, and the value expected there.
    """
    path = Path(path)
    tree, files = _with_bases(path, ())
    where = Places(files, _with_overrides({}, overrides))
    tree = _with_rounds(_with_variants(_with_overrides(tree, overrides), where))
    study = read_settings(Study, tree, where=where)
    try:
        study = study.chosen()
    except ValueError as error:
        raise UsageError(str(error), where=where.of(("sizes",)), remedy="change one of them") from None
    for place, which in unlike(study):
        raise UsageError(
            f"a reward model reads the tokens that policies write, but {which} have different tokenizers",
            where=where.of(place),
            remedy="take a size of the same model family, or null: each policy's own size",
        )
    stages = [(name, stage) for name, stage in study if isinstance(stage, Settings)]
    stages += [(f"variants.{name}.set", variant.set) for name, variant in study.variants.items()]
    for number, each in enumerate(study.rounds):
        parts = [(name, part) for name, part in each if isinstance(part, Settings)]
        stages += [(f"rounds.{number}.{name}", part) for name, part in parts]
    for name, stage in stages:
        for size in study.ladder:
            try:
                stage.for_size(size)
            except ValidationError as error:
                raise _explain(error, {}, f"{path}: {name} of size {size}") from None
    return study


def study_tree(path: str | Path) -> Tree:
    """The settings that a study file and its bases state, merged, unchecked and with its sweeps as written.

    Raises:
        UsageError: a file cannot be read as such a mapping.
    """
    return _with_bases(Path(path), ())[0]


def _with_variants(tree: Tree, where: Places) -> Tree:
    """Lay each variant's settings over those of its stage, and replace each sweep by one variant per value.

    A variant set to null (by a file that has a base, or by an override) is removed.
    """
    variants = tree.get("variants")
    if not isinstance(variants, dict):
        return tree
    whole: Tree = {}
    for name, variant in variants.items():
        if not isinstance(variant, dict):
            whole |= {} if variant is None else {name: variant}
            continue
        kind = str(variant.get("kind"))
        stage = tree.get(kind) or {}
        if kind == "reward" and isinstance(stage, dict):  # the variant says itself of which sizes it is
            stage = {key: value for key, value in stage.items() if key != "size"}
        for title, changes in _swept(name, variant, where):
            if title in whole or (title != name and variants.get(title) is not None):
                raise UsageError(
                    f"two variants are called '{title}'",
                    where=_place(where, ("variants", name, "sweep")),
                    remedy="rename one of them, or take the value out of the sweep",
                )
            settings = _merge(stage, _merge(variant.get("set") or {}, changes))
            kept = {key: value for key, value in variant.items() if key != "sweep"}
            whole[title] = kept | {"set": settings}
    return tree | {"variants": whole}


def _with_rounds(tree: Tree) -> Tree:
    """Lay each earlier round's settings over those of the study."""
    rounds = tree.get("rounds")
    if not isinstance(rounds, list):
        return tree
    stages = {name: tree.get(name) or {} for name in ("labels", "reward", "ppo")}
    return tree | {"rounds": [_merge(stages, each) if isinstance(each, dict) else each for each in rounds]}


def _swept(name: str, variant: Tree, where: Places) -> list[tuple[str, Tree]]:
    """The variants ``kl-0.1`` and ``kl-0`` of a variant ``kl`` with ``sweep: {beta: [0.1, 0]}``.

    Raises:
        UsageError: a sweep that is not one key with a list of different values.
    """
    sweep = variant.get("sweep")
    if sweep is None:
        return [(name, {})]
    lists = list(sweep.values()) if isinstance(sweep, dict) else []
    if len(lists) != 1 or not isinstance(lists[0], list) or not lists[0]:
        raise UsageError(
            f"found {json.dumps(sweep)}, expected one key with a list of values, at least one",
            where=_place(where, ("variants", name, "sweep")),
            remedy="write it as sweep: {beta: [0.1, 0.05]}",
        )
    ((key, values),) = sweep.items()
    short = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    # Values that differ only behind the sixth digit are written out.
    texts = [str(value) if short.count(text) > 1 else text for text, value in zip(short, values, strict=True)]
    if any(values.count(value) > 1 for value in values) or len(set(texts)) < len(texts):
        raise UsageError(
            f"{json.dumps(sweep)} has a value twice",
            where=_place(where, ("variants", name, "sweep")),
            remedy="take it out once: each value makes one variant",
        )
    return [(f"{name}-{text}", _nested(key, value)) for text, value in zip(texts, values, strict=True)]


def resolved(study: Study) -> Tree:
    """All settings with their values, including defaults, in types that JSON and YAML have."""
    return study.model_dump(mode="json")


def read_settings(kind: type[S], tree: Tree, overrides: Sequence[str] = (), *, where: str | Places = "") -> S:
    """Settings of one class from a tree of plain values and ``a.b=value`` overrides.

    Values of another type, such as a number in quotes, are refused and never converted.

    Raises:
        UsageError: an unknown key, a wrong type or value, or values that contradict each other.
    """
    tree = _with_overrides(tree, overrides)
    _check_keys(kind, tree, (), where)
    try:
        # JSON mode: strict about types, yet a tuple may be written as a list.
        return kind.model_validate_json(json.dumps(tree), strict=True)
    except ValidationError as error:
        raise _explain(error, tree, where) from None


def _with_overrides(tree: Tree, overrides: Sequence[str]) -> Tree:
    for override in overrides:
        tree = _merge(tree, _nested(*_parse_override(override)))
    return tree


def _nested(key: str, value: Any) -> Any:
    """``a.b`` and a value as ``{a: {b: value}}``."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _parse_override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not all(part.strip() == part != "" for part in key.split(".")):
        raise UsageError(
            f"'{text}' is not an override", where="--set", remedy="write it as key=value, as in ppo.beta=0.1"
        )
    return key, parse_yaml(value, f"--set {key}")


def _with_bases(path: Path, above: tuple[Path, ...]) -> tuple[Tree, tuple[Path, ...]]:
    """A file's tree merged over those of its bases, and the files, the top one first."""
    here = path.resolve()
    if here in above:
        chain = " -> ".join(file.name for file in (*above, here))
        raise UsageError(
            f"the bases form a circle: {chain}", where=f"{path}: base", remedy="remove one of them"
        )
    tree = read_yaml(path)
    base = tree.pop("base", None)
    if base is None:
        return tree, (path,)
    bases = [base] if isinstance(base, str) else base
    if not (isinstance(bases, list) and bases and all(isinstance(one, str) for one in bases)):
        raise UsageError(
            f"found {base!r}, expected the path of a study file, or a list of them", where=f"{path}: base"
        )
    merged: Tree = {}
    files: tuple[Path, ...] = ()
    for one in bases:
        below, found = _with_bases(path.parent / one, (*above, here))
        merged, files = _merge(merged, below), (*found, *files)
    return _merge(merged, tree), (path, *files)


def _merge(under: Any, over: Any) -> Any:
    """Merge `over` into `under`, mapping by mapping; a mapping of another `kind` replaces the whole one."""
    if not (isinstance(under, dict) and isinstance(over, dict)):
        return over
    if under.get("kind", over.get("kind")) != over.get("kind", under.get("kind")):
        return over
    return under | {key: _merge(under.get(key), value) for key, value in over.items()}


def _check_keys(annotation: Any, value: Any, place: tuple[str, ...], where: str | Places) -> None:
    """Refuse the first key that its settings class does not know, following the types downwards."""
    if isinstance(value, list):
        members = [get_args(option)[0] for option in _options(annotation) if get_origin(option) is list]
        for number, inner in enumerate(value if members else ()):
            _check_keys(members[0], inner, (*place, str(number)), where)
        return
    kind = _settings_class(annotation, value)
    if kind is None or not isinstance(value, dict):
        return
    if not issubclass(kind, Settings):
        for key, inner in value.items():
            _check_keys(_dict_values(annotation), inner, (*place, key), where)
        return
    for key, inner in value.items():
        if key not in kind.model_fields:
            raise UsageError(
                f"unknown key '{key}'{nearest(key, kind.model_fields)}",
                where=_place(where, (*place, key)),
                remedy=f"known here: {', '.join(kind.model_fields)}",
            )
        _check_keys(kind.model_fields[key].annotation, inner, (*place, key), where)


def _options(annotation: Any) -> list[Any]:
    """The members of a union, without Annotated and None."""
    if get_origin(annotation) is Annotated:
        return _options(get_args(annotation)[0])
    if isinstance(annotation, type) or get_origin(annotation) in (dict, list, tuple):
        return [] if annotation is NoneType else [annotation]
    return [option for member in get_args(annotation) for option in _options(member)]


def _dict_values(annotation: Any) -> Any:
    return next(get_args(option)[1] for option in _options(annotation) if get_origin(option) is dict)


def _settings_class(annotation: Any, value: Any) -> type | None:
    """The settings class (by its `kind`, if there are several) or `dict` that `value` should be."""
    options = _options(annotation)
    classes = [option for option in options if isinstance(option, type) and issubclass(option, Settings)]
    if len(classes) > 1:
        kind = value.get("kind") if isinstance(value, dict) else None
        classes = [option for option in classes if option.model_fields["kind"].default == kind]
    if classes:
        return classes[0]
    return dict if any(get_origin(option) is dict for option in options) else None


def _explain(error: ValidationError, tree: Tree, where: str | Places) -> UsageError:
    """The error for the first key that pydantic refused, with all that it reports about that key."""
    found = [(_dotted(detail["loc"], tree), detail) for detail in error.errors(include_url=False)]
    place, group = next(groupby(found, key=lambda pair: pair[0]))
    details = [detail for _, detail in group]
    # A number out of range is not a mapping of sizes either: report only what is wrong with the number.
    bounds = [detail for detail in details if not detail["type"].endswith(("_type", "_parsing"))]
    first = (bounds or details)[0]
    if first["type"] == "value_error":
        return UsageError(str(first["ctx"]["error"]), where=_place(where, place), remedy="change one of them")
    if first["type"] == "missing":
        return UsageError("this key is missing", where=_place(where, place), remedy="add it")
    expected = " or ".join(dict.fromkeys(_expected(detail) for detail in bounds or details))
    value = json.dumps(first["input"], default=str)
    shown = value if len(value) <= 80 else value[:77] + "..."
    return UsageError(f"found {shown}, expected {expected}", where=_place(where, place), remedy="change it")


def _expected(detail: ErrorDetails) -> str:
    if detail["type"].startswith("union_tag"):
        return f"a mapping whose kind is {detail['ctx'].get('expected_tags', 'named')}"
    if detail["msg"] == "Input should be a valid dictionary":
        return "one value for each size of the ladder"
    return detail["msg"].removeprefix("Input should be ").replace("String should match", "text to match")


def _dotted(loc: Iterable[str | int], tree: Any) -> tuple[str, ...]:
    """Pydantic's location without the names of union members that it contains."""
    place: list[str] = []
    parts = list(loc)
    for index, part in enumerate(parts):
        inside = isinstance(tree, Mapping) and part in tree
        if inside or (isinstance(tree, list) and isinstance(part, int) and part < len(tree)):
            tree = tree[part]
        elif index < len(parts) - 1 or part == "[key]" or not isinstance(tree, Mapping | list):
            continue
        place.append(str(part))
    return tuple(place)


def _place(where: str | Places, place: tuple[str, ...]) -> str:
    if isinstance(where, Places):
        return where.of(place)
    return ": ".join(filter(None, (where, ".".join(place))))
