"""Strict YAML: the core schema of YAML 1.2, no duplicate keys, and only values that JSON has.

PyYAML by itself reads ``5e-3`` as text and ``no`` as False, and accepts duplicate keys. ruamel.yaml
gets these right, but also reads dates, sets, binary data, recursive aliases and keys that are not text.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml

from tldr.errors import UsageError

_CORE = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+", list("-+0123456789")),
    "float": (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: Any = {}  # noqa: RUF012
    yaml_constructors: ClassVar[Any] = {}

    def mapping(self, node: yaml.MappingNode) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not (isinstance(key, yaml.ScalarNode) and key.tag == "tag:yaml.org,2002:str"):
                raise _Refused("a key must be text: put it in quotes", key.start_mark)
            if key.value in seen:
                raise _Refused(f"the key '{key.value}' is given twice", key.start_mark)
            seen.add(key.value)
        return self.construct_mapping(node, deep=True)

    def sequence(self, node: yaml.SequenceNode) -> list[Any]:
        return self.construct_sequence(node, deep=True)

    def integer(self, node: yaml.ScalarNode) -> int:
        return int(self.construct_scalar(node))

    def number(self, node: yaml.ScalarNode) -> float | int:
        """``1e6`` is an integer, so that it can be a count; ``1.0`` and ``5e-3`` are floats."""
        text = self.construct_scalar(node)
        value = float(text)
        return int(value) if "e" in text.lower() and value.is_integer() else value


class _Refused(yaml.MarkedYAMLError):
    def __init__(self, problem: str, mark: yaml.Mark):
        super().__init__(problem=problem, problem_mark=mark)


for _name, (_pattern, _first) in _CORE.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), _first)
_CONSTRUCTORS: dict[str, Any] = {
    "null": _Loader.construct_yaml_null,
    "bool": _Loader.construct_yaml_bool,
    "int": _Loader.integer,
    "float": _Loader.number,
    "str": _Loader.construct_yaml_str,
    "map": _Loader.mapping,
    "seq": _Loader.sequence,
}
for _name, _construct in _CONSTRUCTORS.items():
    _Loader.add_constructor(f"tag:yaml.org,2002:{_name}", _construct)
_Loader.yaml_constructors[None] = _Loader.construct_undefined


def parse_yaml(text: str, where: str | Path) -> Any:
    """The value of one YAML document, which consists of JSON's types only.

    Raises:
        UsageError: invalid YAML, a duplicate key, or a key that is not text; with line and column.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
        raise UsageError(f"broken YAML: {error.problem}", where=place, remedy="fix this line") from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"broken YAML: {first}", where=where) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UsageError: the file is missing, is not UTF-8 or not valid YAML, or does not hold a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"invalid UTF-8 at byte {error.start}", where=path) from None
    except OSError as error:
        raise UsageError(error.strerror or "cannot be read", where=path, remedy="check the path") from None
    data = parse_yaml(text, path)
    if not isinstance(data, dict):
        raise UsageError("holds no settings", where=path, remedy="write `key: value` lines")
    return data


def line_of(path: Path, place: Sequence[str]) -> tuple[int, int]:
    """How many steps of `place` (keys, list positions) the file contains, and the line of the last of them.

    Args:
        path: a file that `read_yaml` can read.
    """
    node, depth, line = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=_Loader), 0, 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == part]
        elif isinstance(node, yaml.SequenceNode):
            found = [(item, item) for index, item in enumerate(node.value) if str(index) == part]
        else:
            found = []
        if not found:
            break
        ((key, node),) = found
        depth, line = depth + 1, key.start_mark.line + 1
    return depth, line
