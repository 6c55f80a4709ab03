"""Proof that a change left every bit as it was: hashes of a small study's files, and the tests' assertions.

::

    tldr-lab study run tests/golden/toy-small.yaml --jobs 2     # before the change, and after it
    python tests/golden/golden.py files runs/toy-small > after.json
    python tests/golden/golden.py compare tests/golden/files.json after.json
    python tests/golden/golden.py assertions > tests.json       # test id -> number of assertions

Names of runs hold a hash of their settings, so they are blanked: ``ppo-s-s0-0123456789`` counts as
``ppo-s-s0``. The bits depend on the CPU, the thread count and torch's version: compare what one machine made.
``files.json`` says which machine made it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
from pathlib import Path

KEY = re.compile(rb"-[0-9a-f]{10}(?=\b)")


def file_hashes(root: Path) -> dict[str, str]:
    """``run/file`` -> sha256 of every output of every finished run of a study, run names blanked."""
    hashes = {}
    for done in sorted(root.glob("*/DONE")):
        title = KEY.sub(b"", done.parent.name.encode()).decode()
        for name in json.loads(done.read_text(encoding="utf-8"))["outputs"]:
            content = (done.parent / name).read_bytes()
            if not name.endswith(".safetensors"):
                content = KEY.sub(b"", content)
            hashes[f"{title}/{name}"] = hashlib.sha256(content).hexdigest()
    return hashes


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What is new, gone or changed, a line each."""
    lines = [f"gone     {name}" for name in before if name not in after]
    lines += [f"new      {name}" for name in after if name not in before]
    return lines + [f"changed  {name}" for name in before if name in after and before[name] != after[name]]


def assertions(tests: Path) -> dict[str, int]:
    """``file::test`` -> its ``assert`` statements and ``pytest.raises`` blocks."""
    counts: dict[str, int] = {}
    for path in sorted(tests.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                inner = list(ast.walk(node))
                raises = sum(isinstance(n, ast.Attribute) and n.attr in ("raises", "warns") for n in inner)
                name = f"{path.relative_to(tests).as_posix()}::{node.name}"
                counts[name] = raises + sum(isinstance(n, ast.Assert) for n in inner)
    return counts


def main(command: str, *arguments: str) -> int:
    """Run one of the commands of this file's head; the exit code is 1 where two files differ."""
    if command == "files":
        print(json.dumps(file_hashes(Path(arguments[0])), indent=0))
    elif command == "assertions":
        print(json.dumps(assertions(Path(__file__).parents[1]), indent=0))
    else:
        before, after = (json.loads(Path(name).read_text(encoding="utf-8")) for name in arguments)
        before, after = before.get("files", before), after.get("files", after)
        lines = differences(before, after)
        print("\n".join([*lines, f"{len(before)} before, {len(after)} after, {len(lines)} differ"]))
        return bool(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
