"""What `eval` may import: of tldr records, errors, measures, what a judge is asked and the strict readers.

Never torch.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import eval as package

FOLDER = Path(package.__file__).parent
MODULES = sorted(path for path in FOLDER.rglob("*.py") if path.parent.name != "rouge_metric")
ALLOWED = ("records", "errors", "files", "judge", "measures", "strict_json", "strict_yaml")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_imports_only_the_lowest_floor_of_tldr(path: Path) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    ours = {name for name in imported if name.split(".")[0] == "tldr"}
    assert {name for name in ours if name.split(".")[1] not in ALLOWED} == set()
    assert not {name for name in imported if name.split(".")[0] in ("torch", "transformers")}


def test_no_torch_and_no_pyplot_are_loaded() -> None:
    names = ", ".join(
        ".".join(path.relative_to(FOLDER.parent).with_suffix("").parts)
        for path in MODULES
        if path.stem != "__init__"
    )
    unwanted = ("torch", "transformers", "matplotlib.pyplot")
    code = f"import {names}, sys; print([name for name in {unwanted} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=FOLDER.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
