"""Files and functions stay small enough to be read."""

from __future__ import annotations

import ast
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def test_files_and_functions_stay_small() -> None:
    """A file past 420 lines wants to be two; a function past 70 wants helpers."""
    for path in [*(REPOSITORY / "tldr").rglob("*.py"), *(REPOSITORY / "eval").rglob("*.py")]:
        text = path.read_text()
        assert text.count("\n") <= 420, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= 70, f"{path}: {node.name} has {length} lines"
