"""What runs depend on, as hashes: files, folders, and the code of a stage."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import tldr
from tldr.errors import UsageError
from tldr.records import write_json

PACKAGE = Path(tldr.__file__).parent
OUTSIDE = frozenset({"tldr.settings", "tldr.errors"})
"""Modules not part of a code version: their effect is in the settings, or in messages only."""


def sha256(text: str) -> str:
    """Hex sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


class FileHashes:
    """sha256 of files, remembered with their size and time so that nothing is read twice.

    Args:
        path: where it is kept between commands; None keeps it in memory.
    """

    def __init__(self, path: Path | None = None):
        self._path = path
        self._known: dict[str, list[Any]] = {}
        self._new = False
        if path is None:
            return
        # No more than a memory: what is lost is computed again.
        with contextlib.suppress(OSError, ValueError, TypeError):
            self._known = dict(json.loads(path.read_text(encoding="utf-8")))

    def file(self, path: Path) -> str:
        """sha256 of a file's bytes; read again only if its size or time has changed.

        Raises:
            UsageError: it cannot be read.
        """
        try:
            stat = path.stat()
            name, mark = str(path.resolve()), [stat.st_size, stat.st_mtime_ns]
            known = self._known.get(name)
            if not (isinstance(known, list) and known[:2] == mark):
                with path.open("rb") as file:
                    known = [*mark, hashlib.file_digest(file, "sha256").hexdigest()]
                self._known[name], self._new = known, True
            return str(known[2])
        except OSError as error:
            reason = error.strerror or "cannot be read"
            raise UsageError(reason, where=path, remedy="check the path") from None

    def data(self, name: str) -> str:
        """What a data setting stands for: a file's content, or that of ``NAME@SPLIT``.

        Raises:
            UsageError: there is no such file, source or split, or it cannot be had.
        """
        from tldr.sources.place import identity_at  # here, as it brings transformers

        return identity_at(name, self.file)

    def place(self, name: str) -> str:
        """The content hash of a local file or folder; a hub name stands for itself.

        Raises:
            UsageError: a path (not a hub name) that leads nowhere.
        """
        path = Path(name)
        if path.is_dir():
            inner = sorted(file for file in path.rglob("*") if file.is_file())
            return sha256(json.dumps([[str(file.relative_to(path)), self.file(file)] for file in inner]))
        if path.exists():
            return self.file(path)
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise UsageError(
                "no such file or folder", where=name, remedy="check the path; a hub name is org/name"
            )
        return name

    def save(self) -> None:
        """Keep what was learnt for the next command."""
        if self._new and self._path is not None:
            write_json(self._path, self._known)
            self._new = False


def code_version(module: str, package: Path = PACKAGE) -> str:
    """sha256 over the code of a module and of all it imports, directly or not, inside its package.

    Comments, docstrings and layout do not count; an import inside a function does.

    Args:
        module: dotted name, ``tldr.stages.sft.stage``.
        package: folder of the top-level package.

    Raises:
        UsageError: the module is not in the package.
    """
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _module_file(name, package)
        if name in found or name in OUTSIDE or path is None:
            continue
        stat = path.stat()
        code, imports = _read_code(path, name, stat.st_mtime_ns, stat.st_size)
        found[name] = code
        waiting += imports
        if "." in name:
            waiting.append(name.rpartition(".")[0])  # Importing a module runs its package first.
    if module not in found:
        raise UsageError(f"no module '{module}'", where=package)
    return sha256(json.dumps(sorted(found.items())))


def _module_file(name: str, package: Path) -> Path | None:
    top, *rest = name.split(".")
    if top != package.name:
        return None
    path = package.joinpath(*rest)
    candidates = (path / "__init__.py", path.with_suffix(".py") if rest else path / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


@lru_cache(maxsize=1024)
def _read_code(path: Path, module: str, mtime_ns: int, size: int) -> tuple[str, tuple[str, ...]]:
    """A file's code without comments and docstrings, and the names it may import."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    imports = tuple(_imports(tree, package))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [one for one in body if not _is_text(one)] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree), imports


def _is_text(node: ast.AST) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Every module a file may import: in ``from a import b``, `b` may be one too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
