"""Hashes of what runs depend on: files, folders, and the code of a stage."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import tldr
from tldr.errors import UsageError
from tldr.files import files_below
from tldr.pinned import is_hub_name, is_pinned, pin
from tldr.records import write_json
from tldr.strict_json import parse_object

PACKAGE = Path(tldr.__file__).parent
TRANSPORT = (
    "tldr.pinned",
    "tldr.sources.hub.download",
    "tldr.sources.hub.listing",
    "tldr.sources.hub.fetch",
)
"""Modules that fetch files; they do not count, because run names depend on the files' content."""
DECLARATIONS = ("tldr.errors", "tldr.stages.shared.declaration", "tldr.stages.shared.context")
TOY = "tldr.toy"


def counts(module: str, *, toy: bool) -> bool:
    """Whether a module is part of the code that determines a run's outputs.

    Settings count by their values, and declarations by the inputs that a run names. A stage's cost and
    the error classes do not change its outputs.

    Args:
        toy: whether the run's data come from the toy world.
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


SETTLED_NS = 2_000_000_000
"""Nanoseconds after its last change before a file's hash is remembered. Within a tick of the file system's
clock (2 s on FAT), a second change may leave every mark as it is; git has the same rule."""


PINS = "revisions.json"
"""Beside the hashes: the hub names of a study, each with its commit. Removing an entry takes the newest."""


class FileHashes:
    """sha256 of files, remembered so that a large file is not read for every command; and pinned hub names.

    A hash is remembered with the file's size, inode, and times of modification and change. No program can set
    the time of change, so a file that was replaced, or changed and given its old times, is read again.

    Args:
        path: file of the memory between commands; None: in memory only.
    """

    def __init__(self, path: Path | None = None):
        self._path = path
        self._known: dict[str, list[Any]] = {}
        self._new = False
        self._pins: dict[str, str] = {}
        self._new_pins = False
        if path is None:
            return
        self._pins = _read_pins(path.with_name(PINS))
        # Only a memory: lost entries are computed again.
        with contextlib.suppress(OSError, ValueError, TypeError):
            self._known = dict(json.loads(path.read_text(encoding="utf-8")))

    def file(self, path: Path) -> str:
        """sha256 of a file's bytes; a file that has not changed since it was read is not read again.

        Raises:
            UsageError: the file cannot be read.
        """
        try:
            name, mark = str(path.resolve()), _mark(path)
            known = self._known.get(name)
            if isinstance(known, list) and known[:-1] == mark:
                return str(known[-1])
            now = time.time_ns()
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if _mark(path) == mark and max(mark[2:]) + SETTLED_NS < now:
                self._known[name], self._new = [*mark, digest], True
            return digest
        except OSError as error:
            reason = error.strerror or "cannot be read"
            raise UsageError(reason, where=path, remedy="check the path") from None

    def data(self, name: str) -> str:
        """The content hash of a data setting: of a file, or of ``NAME@SPLIT``.

        Raises:
            UsageError: there is no such file, source or split, or it is not available.
        """
        from tldr.sources.place import identity_at  # imports transformers, so only when needed

        return identity_at(name, self.file)

    def place(self, name: str) -> str:
        """The content hash of a local file or folder; a hub name becomes `pinned`.

        Raises:
            UsageError: a path (not a hub name) does not exist.
        """
        path = Path(name)
        if path.is_dir():
            inner = [[str(file.relative_to(path)), self.file(file)] for file in files_below(path)]
            return sha256(json.dumps(inner))
        if path.exists():
            return self.file(path)
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise UsageError(
                "no such file or folder", where=name, remedy="check the path; a hub name is org/name"
            )
        return self.pinned(name)

    def pinned(self, name: str) -> str:
        """A hub name with the commit to which the study is pinned: the one found when it was first asked for.

        Other texts are returned unchanged, as is a name whose commit cannot be known (yet).
        """
        if not is_hub_name(name) or is_pinned(name):
            return name
        if name not in self._pins:
            if not is_pinned(pinned := pin(name)):
                return pinned
            self._pins[name], self._new_pins = pinned, True
        return self._pins[name]

    def save(self) -> None:
        """Save the cache for the next command, if it can be written: a study may be read-only."""
        if self._new and self._path is not None:
            with contextlib.suppress(OSError):
                write_json(self._path, self._known)
                self._new = False
        if self._new_pins and self._path is not None:
            with contextlib.suppress(OSError):
                write_json(self._path.with_name(PINS), self._pins)
                self._new_pins = False


def _read_pins(path: Path) -> dict[str, str]:
    """The names that a study has pinned.

    Raises:
        UsageError: the file holds something else.
    """
    try:
        text = path.read_bytes()
    except OSError:
        return {}
    remedy = "remove it: names are resolved again"
    try:
        pins = parse_object(text)
    except ValueError as error:
        raise UsageError(f"not valid: {error}", where=path, remedy=remedy) from None
    if odd := sorted(name for name, pinned in pins.items() if not is_pinned(str(pinned))):
        raise UsageError(f"no commit for {odd[0]}", where=path, remedy=remedy)
    return pins


def _mark(path: Path) -> list[int]:
    """What changes with a file: size, inode, and times of modification and change in nanoseconds."""
    stat = path.stat()
    return [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]


def code_of(module: str, *, toy: bool = True, package: Path = PACKAGE) -> dict[str, str]:
    """The code of a module and of everything that it imports from its package, directly or indirectly.

    Comments, docstrings and layout do not count. Imports inside functions do. The imports of a module that
    does not count (`counts`) are not followed.

    Args:
        module: dotted name, ``tldr.stages.sft.stage``.
        toy: whether the run's data come from the toy world; only then its code counts.
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
        code, imports = _read_code(path.read_bytes(), path.name == "__init__.py", name)
        found[name] = sha256(code)[:16]
        waiting += imports
        waiting.append(name.rpartition(".")[0])  # Importing a module runs its package first.
    if module not in found:
        raise UsageError(f"there is no module '{module}'", where=package)
    return dict(sorted(found.items()))


def changed_code(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """The modules in which two versions of a stage's code differ, as text; "" if they are equal."""
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
def _read_code(source: bytes, is_package: bool, module: str) -> tuple[str, tuple[str, ...]]:
    """The code of a module without comments and docstrings, and the modules that it may import."""
    tree = ast.parse(source, module)
    package = module if is_package else module.rpartition(".")[0]
    imports = tuple(_imports(tree, package))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [child for child in body if not _is_text(child)] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree), imports


def _is_text(node: ast.AST) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Every module that a file may import: in ``from a import b``, `b` may be a module too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
