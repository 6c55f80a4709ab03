"""Hashes of files and of code."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from tldr.study import hashes
from tldr.study.hashes import PACKAGE, FileHashes, code_of, sha256
from tldr.study.registry import STAGES

Refusal = Callable[[Callable[[], object]], str]

FILES = {
    "__init__.py": "",
    "settings.py": "X = 1\n",
    "base.py": "def deep():\n    return 1\n",
    "parts/__init__.py": '"""Parts."""\n',
    "parts/one.py": "from ..base import deep\n",
    "parts/two.py": "def lazy():\n    from tldr import lone\n    return lone\n",
    "lone.py": "import json\n",
    "stage.py": "import tldr.settings\nfrom tldr.parts import one, two\n\n\ndef run():\n    return one\n",
    "other.py": "",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "tldr"
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_known_sha256() -> None:
    assert sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("name", ["stage.py", "base.py", "parts/one.py", "parts/two.py", "lone.py"])
def test_an_edit_anywhere_in_the_imports_changes_the_version(package: Path, name: str) -> None:
    before = code_of("tldr.stage", package=package)
    with (package / name).open("a") as out:
        out.write("\nEDITED = True\n")
    assert code_of("tldr.stage", package=package) != before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("other.py", "print()\n"),  # not imported
        ("settings.py", "X = 2\n"),  # its effect is in the settings
        ("base.py", "# why\ndef deep():\n    '''What it does.'''\n\n    return (1)\n"),
        ("parts/__init__.py", ""),
    ],
)
def test_comments_docstrings_layout_and_strangers_do_not(package: Path, name: str, text: str) -> None:
    before = code_of("tldr.stage", package=package)
    (package / name).write_text(text)
    assert code_of("tldr.stage", package=package) == before


def test_an_unknown_module_is_refused(package: Path, refusal: Refusal) -> None:
    assert "tldr.gone" in refusal(lambda: code_of("tldr.gone", package=package))
    assert "json" in refusal(lambda: code_of("json", package=package))


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_of_the_table_is_there(stage: str) -> None:
    code = code_of(STAGES[stage].module, package=PACKAGE)
    assert STAGES[stage].module in code and {len(digest) for digest in code.values()} == {16}


ALL_SETTLED = -(10**18)
"""As if every file had been written decades ago."""


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were hashed, all of them settled."""
    monkeypatch.setattr(hashes, "SETTLED_NS", ALL_SETTLED)
    names: list[str] = []
    digest = hashlib.file_digest

    def counted(file: BinaryIO, kind: str) -> object:
        names.append(Path(file.name).name)
        return digest(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return names


def test_an_unchanged_file_is_read_once(tmp_path: Path, read: list[str]) -> None:
    path = tmp_path / "file"
    path.write_text("abc")
    files = FileHashes(tmp_path / "hashes.json")
    assert [files.file(path), files.file(path)] == [sha256("abc")] * 2
    files.save()
    assert FileHashes(tmp_path / "hashes.json").file(path) == sha256("abc")
    assert read == ["file"]


def _rewrite(path: Path) -> None:
    path.write_text("abd")


def _replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_text("abd")
    other.replace(path)


@pytest.mark.parametrize("change", [_rewrite, _replace])
def test_a_file_of_the_same_size_and_time_is_read_again(
    change: Callable[[Path], None], tmp_path: Path, read: list[str]
) -> None:
    path = tmp_path / "file"
    path.write_text("abc")
    os.utime(path, ns=(1, 1))
    files = FileHashes(tmp_path / "hashes.json")
    assert files.file(path) == sha256("abc")
    files.save()
    changed = path.stat().st_ctime_ns
    while path.stat().st_ctime_ns == changed:  # until the file system's clock has gone on
        change(path)
        os.utime(path, ns=(1, 1))
    assert files.file(path) == sha256("abd")
    assert FileHashes(tmp_path / "hashes.json").file(path) == sha256("abd")
    assert read == ["file"] * 3


def test_a_file_that_has_just_changed_is_not_remembered(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second change within one tick of the file system's clock would leave all marks as they are."""
    monkeypatch.setattr(hashes, "SETTLED_NS", 10**18)
    path = tmp_path / "file"
    path.write_text("abc")
    files = FileHashes(tmp_path / "hashes.json")
    assert [files.file(path), files.file(path)] == [sha256("abc")] * 2
    files.save()
    assert read == ["file", "file"] and not (tmp_path / "hashes.json").exists()


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("abc")
    files, counted = FileHashes(), hashlib.file_digest

    def interrupted(file: BinaryIO, kind: str) -> object:
        found = counted(file, kind)
        path.write_text("abcd")
        return found

    monkeypatch.setattr(hashlib, "file_digest", interrupted)
    assert files.file(path) == sha256("abc")
    monkeypatch.setattr(hashlib, "file_digest", counted)
    assert files.file(path) == sha256("abcd")


def test_code_of_the_same_size_and_time_is_read_again(package: Path) -> None:
    path = package / "base.py"
    os.utime(path, ns=(1, 1))
    before = code_of("tldr.stage", package=package)
    path.write_text(path.read_text().replace("1", "2"))
    os.utime(path, ns=(1, 1))
    assert code_of("tldr.stage", package=package) != before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', "\x00"])
def test_a_damaged_memory_is_no_harm(tmp_path: Path, text: str) -> None:
    (tmp_path / "hashes.json").write_text(text)
    (tmp_path / "file").write_text("abc")
    assert FileHashes(tmp_path / "hashes.json").file(tmp_path / "file") == sha256("abc")


def test_places(tmp_path: Path, refusal: Refusal) -> None:
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a").write_text("abc")
    files = FileHashes()
    before = files.place(str(folder))
    (folder / "inner" / "a").rename(folder / "inner" / "b")
    assert files.place(str(folder)) != before, "names count"
    assert files.place("org/name") == "org/name"
    for gone in ("./gone", str(tmp_path / "gone"), "~/gone", "a/b/c"):
        assert gone in refusal(lambda gone=gone: files.place(gone))
