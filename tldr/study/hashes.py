"""What runs depend on, as hashes: files, folders, and the code of a stage."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import tldr
from tldr.errors import UsageError
from tldr.records import write_json

PACKAGE = Path(tldr.__file__).parent
TRANSPORT = ("tldr.sources.hub.download", "tldr.sources.hub.listing", "tldr.sources.hub.fetch")
"""What brings files here: their content is in the names of the runs that read them."""
DECLARATIONS = ("tldr.errors", "tldr.stages.shared.declaration", "tldr.stages.shared.context")
TOY = "tldr.toy"


def counts(module: str, *, toy: bool) -> bool:
    """Whether a module's text is part of the code that a run is made by.

    Settings count by their values, and declarations by the inputs that a run names. Neither a stage's cost
    nor the words of an error change what it writes.

    Args:
        toy: whether the run's data are the toy world's.
    """
    parts = module.split(".")
    if (
        len(parts) == 1
        or parts[-1] in ("settings", "cost")
        or module.startswith(("tldr.settings", *TRANSPORT))
    ):
        return False
    if module in DECLARATIONS or (parts[1] == "stages" and len(parts) <= 3):
        return False
    return toy or not module.startswith(TOY)


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


def code_of(module: str, *, toy: bool = True, package: Path = PACKAGE) -> dict[str, str]:
    """The code that a module runs on: itself and all that it imports, directly or not, inside its package.

    Comments, docstrings and layout do not count. An import inside a function does. A module that does not
    count (`counts`) is not followed either.

    Args:
        module: dotted name, ``tldr.stages.sft.stage``.
        toy: whether the run's data are the toy world's; its code counts only then.
        package: folder of the top-level package.

    Returns:
        module -> a hash of its code.

    Raises:
        UsageError: the module is not in the package.
    """
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _module_file(name, package)
        if name in found or path is None or not counts(name, toy=toy):
            continue
        stat = path.stat()
        code, imports = _read_code(path, name, stat.st_mtime_ns, stat.st_size)
        found[name] = sha256(code)[:16]
        waiting += imports
        waiting.append(name.rpartition(".")[0])  # Importing a module runs its package first.
    if module not in found:
        raise UsageError(f"no module '{module}'", where=package)
    return dict(sorted(found.items()))


def changed_code(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """The modules in which two versions of a stage's code differ, in words; "" where they are equal."""
    names = sorted(name for name in {**before, **now} if before.get(name) != now.get(name))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


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
