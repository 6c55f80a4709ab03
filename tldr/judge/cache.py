"""All paid answers, in an SQLite file that is written as each answer arrives.

A process killed at any moment leaves a valid file; only its open questions are asked again. Several
processes may use one file: one process claims a question and asks it, and the others wait for the
answer. The claim is an operating-system lock on ``<file>.lock``, so it ends with its process (on one
machine; network file systems may not guarantee it).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tldr.errors import UsageError

_TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    prompt_sha TEXT NOT NULL,
    parameters TEXT NOT NULL,
    text TEXT NOT NULL,
    prompt_tokens INTEGER,
    answer_tokens INTEGER,
    asked TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
) WITHOUT ROWID"""
_SECONDS_BETWEEN_TRIES = 0.05


@dataclass(frozen=True)
class Answer:
    """A judge's answer as it came; tokens as the endpoint counted them, None where it did not."""

    text: str
    prompt_tokens: int | None = None
    answer_tokens: int | None = None


@dataclass(frozen=True)
class JudgeQuestion:
    """Everything that an answer depends on."""

    model: str
    endpoint: str
    prompt: str
    parameters: Mapping[str, float]

    @property
    def prompt_sha(self) -> str:
        """SHA-256 of the prompt."""
        return hashlib.sha256(self.prompt.encode()).hexdigest()

    @property
    def key(self) -> str:
        """One hash of everything."""
        parts = [self.model, self.endpoint, self.prompt_sha, dict(self.parameters)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Cache:
    """Answers by question; safe for threads and processes.

    Raises:
        UsageError: the file is not such a cache, or cannot be written.
    """

    def __init__(self, path: Path):
        self.path = path
        self._guard = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=60, check_same_thread=False)
            with self._database:
                self._database.execute(_TABLE)
            self._locks = path.with_name(path.name + ".lock").open("a")
        except (OSError, sqlite3.Error) as error:
            raise UsageError(
                f"no cache of answers: {error}", where=path, remedy="name another file"
            ) from None

    def close(self) -> None:
        """Close the files."""
        self._database.close()
        self._locks.close()

    def known(self, questions: Iterable[JudgeQuestion]) -> dict[str, Answer]:
        """The answers there are, by key."""
        keys = (question.key for question in questions)
        return {key: answer for key in keys if (answer := self._get(key)) is not None}

    def get(self, question: JudgeQuestion) -> Answer | None:
        """The answer, if there is one."""
        return self._get(question.key)

    def _get(self, key: str) -> Answer | None:
        sql = "SELECT text, prompt_tokens, answer_tokens FROM answers WHERE key = ?"
        with self._guard:
            row = self._database.execute(sql, (key,)).fetchone()
        return None if row is None else Answer(*row)

    def put(self, question: JudgeQuestion, answer: Answer) -> None:
        """Keep an answer; on disk when this returns."""
        parameters = json.dumps(dict(question.parameters), sort_keys=True)
        row = (question.key, question.model, question.endpoint, question.prompt_sha, parameters)
        sql = (
            "INSERT OR IGNORE INTO answers "
            "(key, model, endpoint, prompt_sha, parameters, text, prompt_tokens, answer_tokens) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        )
        with self._guard, self._database:
            self._database.execute(sql, (*row, answer.text, answer.prompt_tokens, answer.answer_tokens))

    def forget(self, questions: Iterable[JudgeQuestion]) -> None:
        """Delete the answers to these questions, so that they are asked again."""
        with self._guard, self._database:
            self._database.executemany(
                "DELETE FROM answers WHERE key = ?", [(question.key,) for question in questions]
            )

    @contextmanager
    def claim(self, question: JudgeQuestion) -> Iterator[None]:
        """Be the only process that asks this question; look it up again once the claim is yours."""
        place = int(question.key[:15], 16)  # the byte to lock; it may lie past the end of the empty file
        while True:
            try:
                # Polled, not awaited in the kernel, which mistakes threads of two processes for a deadlock.
                fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
                break
            except (BlockingIOError, PermissionError):
                time.sleep(_SECONDS_BETWEEN_TRIES)
        try:
            yield
        finally:
            fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, place)
