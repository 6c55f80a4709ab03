"""Public names: no two classes or type aliases of the project share one."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]


def public_types(source: str) -> Iterator[str]:
    """The public classes and type aliases that a module defines at its top level."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            name = node.name
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and _is_type(node.value):
            (target,) = node.targets
            name = target.id if isinstance(target, ast.Name) and not target.id.isupper() else "_"
        elif isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation).endswith("TypeAlias"):
            name = ast.unparse(node.target)
        else:
            continue
        if name[0].isupper():
            yield name


def _is_type(value: ast.expr) -> bool:
    """Whether an expression can stand for a type: a name, a subscript, or a union of such."""
    if isinstance(value, ast.BinOp):
        sides = (value.left, value.right)
        return isinstance(value.op, ast.BitOr) and all(_is_type(side) or _is_none(side) for side in sides)
    return isinstance(value, ast.Name | ast.Attribute | ast.Subscript)


def _is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None


def test_what_counts_as_a_public_type() -> None:
    source = (
        "class Post: ...\nclass _Hidden: ...\nRow = dict[str, int]\nSource = Post | None\n"
        "Text: TypeAlias = 'Post'\nHome = pathlib.Path\nLIMITS = table['a']\nR = TypeVar('R')\n"
        "names = list[str]\ndef f() -> None:\n    Inner = dict[str, int]\n"
    )
    assert list(public_types(source)) == ["Post", "Row", "Source", "Text", "Home"]


def test_no_two_public_types_share_a_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for folder in ("tldr", "eval"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for name in public_types(path.read_text(encoding="utf-8")):
                places[name].append(str(path.relative_to(ROOT)))
    shared = {name: where for name, where in places.items() if len(where) > 1}
    assert shared == {}
    assert {"Post", "PPO", "Run", "Section"} <= places.keys(), "the names were read"
