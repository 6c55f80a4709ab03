"""Locks that name their holder, and that reading commands look at without taking them."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from tldr import locks
from tldr.errors import UsageError
from tldr.files import host
from tldr.locks import Busy, holder, lock_beside, locked


def test_the_second_is_told_who_the_first_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.05)
    lock = tmp_path / ".lock"
    assert holder(lock) is None
    with locked(lock, "filtering into this folder", where=tmp_path):
        assert holder(lock) == f"process {os.getpid()} on {host()}"
        with (
            pytest.raises(Busy, match=rf"process {os.getpid()} on .* is filtering into this folder") as told,
            locked(lock, "filtering into this folder", where=tmp_path),
        ):
            pass
        assert told.value.exit_code == 75
    assert holder(lock) is None
    assert lock.read_text() == "", "a name of the past would mislead"


def test_the_second_can_wait_and_says_for_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.05)
    lock, inside, said, order = tmp_path / ".lock", threading.Event(), list[str](), list[str]()

    def first() -> None:
        with locked(lock, "adding"):
            inside.set()
            while not said:
                time.sleep(0.01)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(60)
    with locked(lock, "adding", waiting=said.append):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
    assert said == [f"{lock}: process {os.getpid()} on {host()} is adding; waiting for it"]


def test_a_look_at_a_lock_writes_nothing_and_turns_nobody_away(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    assert holder(lock) is None and not lock.exists()
    handle = os.open(lock, os.O_RDONLY | os.O_CREAT)
    import fcntl

    fcntl.flock(handle, fcntl.LOCK_SH)  # another command looks at this moment
    looker = threading.Timer(0.1, os.close, [handle])
    looker.start()
    assert holder(lock) is None, "two that look are no holders"
    with locked(lock, "starting"):
        pass
    looker.join()


def test_a_lock_of_a_folder_that_is_moved_away_guards_nothing(tmp_path: Path) -> None:
    folder, moved = tmp_path / "run", tmp_path / "moved"
    folder.mkdir()
    inside, seen = threading.Event(), list[str]()

    def second() -> None:
        inside.wait(60)
        try:
            with locked(folder / ".lock", "working", waiting=seen.append):
                seen.append("got it")
        except FileNotFoundError:
            seen.append("gone")

    thread = threading.Thread(target=second)
    thread.start()
    with locked(folder / ".lock", "setting aside"):
        inside.set()
        time.sleep(0.1)
        folder.rename(moved)
    thread.join(60)
    assert seen[-1] == "gone"


def test_what_cannot_be_locked_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("filelock.FileLock.acquire", read_only)
    with pytest.raises(UsageError, match="cannot be locked: Read-only"), locked(tmp_path / ".lock", "w"):
        pass


def test_a_link_to_a_folder_has_the_folders_lock(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "link").symlink_to("deep/out")
    assert lock_beside(tmp_path / "link") == lock_beside(tmp_path / "deep" / ".." / "deep" / "out")
    assert not (tmp_path / "deep" / "out").exists()
