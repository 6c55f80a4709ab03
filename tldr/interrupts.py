"""Handlers of the signals that ask a process to end, for the length of a block."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], object]

TERMINATED = 128 + signal.SIGTERM
"""The exit code of a process that SIGTERM ended."""


@contextmanager
def handling(signals: Iterable[int], handler: Handler | signal.Handlers) -> Iterator[None]:
    """Have `handler` called for these signals inside the block; then restore the previous handlers.

    Python allows this in the main thread only. In any other thread nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {signum: signal.signal(signum, handler) for signum in signals}
    try:
        yield
    finally:
        for signum, before in previous.items():
            signal.signal(signum, before)


def event_set_by(*signals: int, event: threading.Event) -> AbstractContextManager[None]:
    """Have these signals set `event` inside the block, so that the work ends where its state is whole."""
    return handling(signals, lambda *_: event.set())


class EndRequest:
    """Whether Ctrl-C or SIGTERM has asked this process to save and end; it can be asked inside `heard`."""

    def __init__(self) -> None:
        self._signum: int | None = None

    def __bool__(self) -> bool:
        return self._signum is not None

    def heard(self) -> AbstractContextManager[None]:
        """Note the signals inside the block, so that the work ends where its state is whole.

        A second Ctrl-C ends the work at once (KeyboardInterrupt).
        """
        return handling([signal.SIGINT, signal.SIGTERM], self._note)

    def _note(self, signum: int, _: FrameType | None) -> None:
        if signum == signal.SIGINT and self._signum is not None:
            raise KeyboardInterrupt
        self._signum = self._signum or signum

    def end(self) -> None:
        """End the process as the signal would have, now that everything is saved.

        Raises:
            KeyboardInterrupt: it was Ctrl-C.
            SystemExit: with 143, for SIGTERM or a signal that another process has heard.
        """
        if self._signum == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(TERMINATED)


def exiting_on_sigterm() -> AbstractContextManager[None]:
    """Turn SIGTERM into SystemExit(143) inside the block, so that files are closed and locks released."""

    def leave(*_: object) -> None:
        raise SystemExit(TERMINATED)

    return handling([signal.SIGTERM], leave)
