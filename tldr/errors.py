"""Errors written for people: what was wrong, where, and what to do about it."""

from __future__ import annotations

from pathlib import Path


class LabError(Exception):
    """A failure the user can act on; the command line prints it without a traceback.

    Args:
        what: one sentence saying what is wrong.
        where: the place: ``file:line``, a config key (``ppo.beta``), a run folder.
        remedy: one sentence saying what to do.
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
    """The request itself is wrong: bad config key, impossible combination, missing file. Exit 2."""

    exit_code = 2


class RecordError(LabError):
    """A line of a data file does not hold the record it should."""


class CheckpointError(LabError):
    """A checkpoint is missing, half-written, or of another kind than asked for."""


class NonFiniteError(LabError):
    """A loss, gradient or score is NaN or infinite; the last good checkpoint is untouched."""
