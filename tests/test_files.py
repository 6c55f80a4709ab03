"""Files that appear whole or not at all, and folders walked through links."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tldr import files
from tldr.errors import CheckpointError, UsageError
from tldr.files import (
    by_number,
    distinct,
    drop_abandoned,
    files_below,
    is_disk_full,
    partial_beside,
    replacing,
    replacing_folder,
)
from tldr.records import Judgement, write_json, write_records


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_temporary_names_differ_between_calls_and_fit_the_file_system(tmp_path: Path) -> None:
    path = tmp_path / ("ж" * 120 + ".json")
    assert partial_beside(path) != partial_beside(path)
    assert len(partial_beside(path).name.encode()) <= 255
    write_json(path, {})
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", ["records", "json", "text", "folder"])
def test_a_full_disk_leaves_the_old_file_and_no_partial_one(
    write: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    path.mkdir() if write == "folder" else path.write_text("old")
    rows = [Judgement(id="p", policies=["a", "b"], judge="j", verdict="A")]
    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        if write == "records":
            write_records(path, rows)
        elif write == "json":
            write_json(path, {"a": 1})
        elif write == "text":
            files.write_text(path, "new")
        else:
            with replacing_folder(path) as partial:
                (partial / "weights").write_text("half")
                full_disk()
    assert list(tmp_path.rglob("*")) == [path]
    assert write == "folder" or path.read_text() == "old"


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    assert ended.wait(60) == 0
    host = files.host()[:40]
    dead = tmp_path / f"study.json.{host}-{ended.pid}-0123abcd.partial"
    dead_folder = tmp_path / f"policy.{host}-{ended.pid}-0123abcd.partial"
    elsewhere = tmp_path / f"study.json.another-host-{ended.pid}-0123abcd.partial"
    download = tmp_path / "file.bin.partial"
    living = partial_beside(tmp_path / "study.json")
    for path in (dead, elsewhere, download, living, dead_folder / "weights"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    drop_abandoned(tmp_path)
    assert set(tmp_path.iterdir()) == {elsewhere, download, living}


def test_a_folder_replaces_a_file_a_link_or_a_full_folder(tmp_path: Path) -> None:
    path, other = tmp_path / "policy", tmp_path / "other"
    other.mkdir()
    (other / "kept").write_text("")

    def put(text: str) -> None:
        with replacing_folder(path) as partial:
            (partial / "weights").write_text(text)
        assert [file.name for file in path.iterdir()] == ["weights"]
        assert (path / "weights").read_text() == text

    put("1")
    put("2")
    (path / "weights").unlink()
    path.rmdir()
    path.symlink_to(other)
    put("3")
    assert {file.name for file in tmp_path.iterdir()} == {"policy", "other"}
    assert (other / "kept").exists() and not path.is_symlink()


def test_linked_folders_are_followed_and_loops_are_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "elsewhere" / "b").mkdir(parents=True)
    for place in ("runs/a", "elsewhere/b"):
        (tmp_path / place / "samples.jsonl").write_text("")
    (tmp_path / "runs" / "linked").symlink_to("../elsewhere/b")
    (tmp_path / "runs" / "again").symlink_to("a")
    (tmp_path / "runs" / "nowhere").symlink_to("gone")
    found = files_below(tmp_path / "runs", "samples.jsonl")
    assert [str(path.relative_to(tmp_path / "runs").parent) for path in found] == ["a", "again", "linked"]
    assert [path.parent.name for path in distinct(found)] == ["a", "linked"], "each file once"

    (tmp_path / "elsewhere" / "b" / "up").symlink_to(tmp_path / "runs")
    with pytest.raises(UsageError, match=r"up: this link leads back to .*runs, which contains it\n.*remove"):
        files_below(tmp_path / "runs", "samples.jsonl")


def test_labels_10_comes_after_labels_9() -> None:
    names = ["labels-s0-r10-00", "labels-s0-r2-00", "labels-s0-00", "labels-s0-r9-00", "fold-10", "fold-2"]
    assert [path.name for path in sorted(map(Path, names), key=by_number)] == [
        "fold-2", "fold-10", "labels-s0-00", "labels-s0-r2-00", "labels-s0-r9-00", "labels-s0-r10-00",
    ]  # fmt: skip


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_recognised_through_other_errors(code: int) -> None:
    def hidden() -> None:
        try:
            raise OSError(code, "told by the system")
        except OSError as error:
            raise CheckpointError("the state cannot be saved") from error

    with pytest.raises(CheckpointError) as told:
        hidden()
    assert is_disk_full(told.value)
    assert is_disk_full(RuntimeError("SafetensorError: No space left on device (os error 28)"))
    assert is_disk_full(RuntimeError("database or disk is full"))
    assert not is_disk_full(OSError(errno.EACCES, "Permission denied"))


def test_a_failed_block_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("refusal", [None, errno.EXDEV, errno.EPERM])
def test_a_linked_folder_has_the_files_of_the_other_or_copies_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int | None
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for place, text in ((source / "a", "one"), (source / "below" / "b", "two"), (target / "old", "gone")):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def refuse(*_: object) -> None:
        raise OSError(refusal, "no link")

    if refusal is not None:
        monkeypatch.setattr(os, "link", refuse)
    files.link_folder(source, target)
    assert [path.relative_to(target).as_posix() for path in files.files_below(target)] == ["a", "below/b"]
    assert (target / "a").samefile(source / "a") == (refusal is None)
    (source / "below" / "b").unlink()
    assert (target / "below" / "b").read_text() == "two" and (target / "a").read_text() == "one"


def test_a_full_disk_is_no_reason_to_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_text("one")
    monkeypatch.setattr(os, "link", full_disk)
    with pytest.raises(OSError, match="No space left"):
        files.link_folder(tmp_path / "source", tmp_path / "target")
    assert not (tmp_path / "target").exists() and len(list(tmp_path.iterdir())) == 1
