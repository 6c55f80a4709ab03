"""A study on a file system that is full."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.study.conftest import FAKE, TINY, Lab
from tldr.cli.main import app
from tldr.errors import DiskFullError
from tldr.files import PARTIAL
from tldr.study import folder as folders
from tldr.study.prepare import write_run


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB; skipped where it cannot be mounted."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(place: Path) -> None:
    with (place / "filling").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC


@pytest.mark.slow
def test_a_truly_full_disk_is_told_by_every_process_and_leaves_nothing_half(
    tmpfs: Path, lab: Lab, tmp_path: Path
) -> None:
    small = Lab(lab.config, tmpfs / "runs" / "tiny")
    small.behave()
    study, runs = small.load()
    folder = write_run(runs[0], study, small.root)
    (folder / ".lock").touch()
    fill(tmpfs)

    child = subprocess.run([*FAKE, str(folder)], capture_output=True, text=True)
    assert child.returncode == DiskFullError.exit_code and "the disk is full" in child.stdout + child.stderr

    runner = small.runner(only="data")
    assert runner.run() == 1
    assert "the disk is full" in small.screen.getvalue()

    config = tmp_path / "study.yaml"
    config.write_text(TINY)
    command = [sys.executable, "-m", "tldr", "study", "run", str(config), "--runs", str(small.root.parent)]
    told = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert told.returncode in (1, DiskFullError.exit_code)
    assert "the disk is full" in told.stdout + told.stderr, told.stdout + told.stderr
    assert "Traceback" not in told.stdout + told.stderr
    assert not list(tmpfs.rglob(f"*{PARTIAL}"))


def test_a_stage_on_a_full_disk_ends_with_a_code_that_says_so(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, runs = lab.load()
    folder = write_run(runs[0], study, lab.root)
    write = folders.write_json

    def full(path: Path, data: object) -> Path:
        if path.name in ("FAILED", "environment.json"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, data)

    monkeypatch.setattr(folders, "write_json", full)
    monkeypatch.setattr("tldr.study.folder.check_code", lambda _: None)
    result = CliRunner().invoke(app, ["_run", str(folder)])
    assert result.exit_code == DiskFullError.exit_code
    assert "the disk is full" in result.output and "free disk space and run again" in result.output


def test_a_command_on_a_full_disk_says_so(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    result = CliRunner().invoke(app, ["study", "run", str(lab.config), "--runs", str(lab.root.parent)])
    assert result.exit_code == DiskFullError.exit_code
    assert "the disk is full" in result.output and "run the same command again" in result.output
    assert not list(lab.root.rglob(f"*{PARTIAL}"))
