"""Hashes of files and of code."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

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


def test_files_are_read_again_only_when_they_changed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("abc")
    os.utime(path, ns=(1, 1))
    files = FileHashes(tmp_path / "hashes.json")
    assert files.file(path) == sha256("abc")
    files.save()

    path.write_text("abd")
    os.utime(path, ns=(1, 1))
    remembered = FileHashes(tmp_path / "hashes.json")
    assert remembered.file(path) == sha256("abc"), "same size and time: not read"
    os.utime(path, ns=(2, 2))
    assert remembered.file(path) == sha256("abd")


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
