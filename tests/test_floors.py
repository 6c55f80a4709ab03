"""The house stands on its floors: each imports only what lies below it, and there are no circles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FLOORS = [
    ["tldr.errors"],
    ["tldr.records", "tldr.config"],
    ["tldr.data", "tldr.toy", "tldr.mathematics"],
    ["tldr.models"],
    ["tldr.train"],
    ["tldr.stages"],
    ["tldr.study"],
    ["tldr.cli"],
    ["tldr.__main__"],
]
ALLOWED_BESIDE = {("tldr.toy", "tldr.data")}
"""The toy world writes its documents in the real query format."""


def modules() -> list[str]:
    return [
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((REPOSITORY / "tldr").rglob("*.py"))
    ]


def floor(module: str) -> int | None:
    return next((n for n, names in enumerate(FLOORS) for name in names if f"{module}.".startswith(f"{name}.")), None)


def imported(module: str) -> Iterator[str]:
    path = REPOSITORY / Path(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("tldr", "eval"):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in ("tldr", "eval"))


@pytest.mark.parametrize("module", modules())
def test_each_module_imports_only_what_lies_below(module: str) -> None:
    here = floor(module)
    for name in imported(module):
        if name == "tldr":  # the version
            continue
        if name.startswith("eval"):
            assert module.startswith("tldr.cli"), f"{module} imports {name}"
            continue
        there = floor(name)
        assert there is not None and here is not None, f"{module} imports {name}: on no floor"
        same = ".".join(module.split(".")[:2]) == ".".join(name.split(".")[:2])
        beside = (".".join(module.split(".")[:2]), ".".join(name.split(".")[:2])) in ALLOWED_BESIDE
        assert there < here or same or beside, f"{module} (floor {here}) imports {name} (floor {there})"


def test_files_and_functions_stay_small() -> None:
    """A file past 420 lines wants to be two; a function past 70 wants helpers."""
    for path in [*(REPOSITORY / "tldr").rglob("*.py"), *(REPOSITORY / "eval").rglob("*.py")]:
        text = path.read_text()
        assert text.count("\n") <= 420, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= 70, f"{path}: {node.name} has {length} lines"
