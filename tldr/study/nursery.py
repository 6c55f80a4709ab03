"""Runs as forked processes: torch and transformers are imported once per study, not once per run.

Importing them takes about five seconds of one core, and many of the toy study's forty runs are shorter
than that. A server process (multiprocessing's forkserver) imports them and forks for each run. Before the
fork, no thread has been started and no GPU used.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from tldr.errors import DiskFullError, LabError, Waiting
from tldr.files import is_disk_full
from tldr.study.folder import LOG
from tldr.study.registry import STAGES


class Forked:
    """A run's process, with the part of `subprocess.Popen`'s interface that the runner uses."""

    def __init__(self, process: ForkServerProcess):
        self._process = process

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The current `returncode`."""
        return self._process.exitcode

    def terminate(self) -> None:
        """SIGTERM: the run saves its state and ends."""
        self._process.terminate()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()


class Nursery:
    """Starts runs by forking.

    Args:
        env: environment of the server, which every run inherits (threads, allocator).
    """

    def __init__(self, env: Mapping[str, str]):
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__, *(stage.module for stage in STAGES.values())])
        self._env = dict(env)

    def start(self, folder: Path, env: Mapping[str, str]) -> Forked:
        """Run the run in `folder`; `env` is added to its environment."""
        before = dict(os.environ)
        os.environ.update(self._env)  # The server inherits it when the first process is started.
        try:
            process = self._context.Process(target=_work, args=(str(folder), dict(env)))
            process.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        return Forked(process)


def _work(place: str, env: dict[str, str]) -> None:
    """The child process: its own session, since Ctrl-C is for the runner, and output in the run's log."""
    from tldr.study.folder import execute

    os.setsid()
    os.environ.update(env)
    folder = Path(place)
    try:
        with (folder / LOG).open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        execute(folder)
    except Waiting as error:
        print(error, flush=True)
        sys.exit(error.exit_code)
    except LabError as error:
        _log_traceback()
        sys.exit(error.exit_code)
    except OSError as error:
        _log_traceback()
        sys.exit(DiskFullError.exit_code if is_disk_full(error) else 1)


def _log_traceback() -> None:
    """Print the traceback into the log, if the disk has room for it."""
    try:
        traceback.print_exc()
        sys.stderr.flush()
    except OSError:  # what is still buffered would fail again, and change the exit code
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
