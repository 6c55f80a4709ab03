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


def exiting_on_sigterm() -> AbstractContextManager[None]:
    """Turn SIGTERM into SystemExit(143) inside the block, so that files are closed and locks released."""

    def leave(*_: object) -> None:
        raise SystemExit(TERMINATED)

    return handling([signal.SIGTERM], leave)
