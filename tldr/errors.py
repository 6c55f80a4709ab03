"""Errors for users: what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class LabError(Exception):
    """An error that the user can fix; the command line prints it without a traceback.

    Args:
        what: one sentence: what is wrong.
        where: the location: ``file:line``, a config key (``ppo.beta``), a run's folder.
        remedy: one sentence: what to do.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | Path | None = None, remedy: str | None = None):
        self.what = what
        self.where = None if where is None else str(where)
        self.remedy = remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  -> {self.remedy}" if self.remedy else text


class UsageError(LabError):
    """The request is invalid: unknown config key, impossible combination, missing file. Exit code 2."""

    exit_code = 2


class RecordError(LabError):
    """A line of a data file is not a valid record."""


class CheckpointError(LabError):
    """A checkpoint is missing, incomplete or of the wrong kind."""


class DiskFullError(LabError):
    """The disk, or the user's share of it, is full."""

    exit_code = 74


class Waiting(LabError):
    """Nothing is wrong: people have to do something first. What was done so far is kept."""

    exit_code = 77


class NonFiniteError(LabError):
    """A loss, gradient or score is NaN or infinite; the last good checkpoint is unchanged."""


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'beta'?``, or "" if no known name is similar."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
