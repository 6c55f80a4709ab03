"""Signal handlers that hold for a block."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from tldr.interrupts import TERMINATED, EndRequest, event_set_by, exiting_on_sigterm, handling

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


def handlers() -> list[object]:
    return [signal.getsignal(signum) for signum in SIGNALS]


def test_signals_set_an_event_and_handlers_are_restored() -> None:
    before, event = handlers(), threading.Event()
    with event_set_by(signal.SIGTERM, signal.SIGINT, event=event):
        assert not event.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert event.wait(10)
        event.clear()
        os.kill(os.getpid(), signal.SIGINT)
        assert event.wait(10)
    assert handlers() == before


def test_sigterm_ends_the_block_with_its_exit_code() -> None:
    before = handlers()
    with pytest.raises(SystemExit) as ended, exiting_on_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(10)
    assert ended.value.code == TERMINATED == 143
    assert handlers() == before


def test_an_inner_block_restores_the_outer_blocks_handler() -> None:
    heard: list[int] = []
    with handling([signal.SIGUSR2], signal.SIG_IGN):
        with handling([signal.SIGUSR2], lambda signum, _: heard.append(signum)):
            os.kill(os.getpid(), signal.SIGUSR2)
        assert signal.getsignal(signal.SIGUSR2) == signal.SIG_IGN
        os.kill(os.getpid(), signal.SIGUSR2)
    assert heard == [signal.SIGUSR2]


def test_another_thread_changes_no_handler() -> None:
    before, inside = handlers(), []

    def work() -> None:
        with exiting_on_sigterm(), event_set_by(signal.SIGINT, event=threading.Event()):
            inside.append(handlers())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before]


def test_ctrl_c_is_noted_and_a_second_one_ends_at_once() -> None:
    before, request = handlers(), EndRequest()
    with pytest.raises(KeyboardInterrupt), request.heard():
        os.kill(os.getpid(), signal.SIGINT)
        assert request
        os.kill(os.getpid(), signal.SIGTERM)  # the work goes on to where its state is whole
        os.kill(os.getpid(), signal.SIGINT)
    assert handlers() == before


@pytest.mark.parametrize(
    ("signum", "end"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_the_end_is_that_of_the_signal(signum: int, end: type[BaseException]) -> None:
    request = EndRequest()
    with request.heard():
        assert not request
        os.kill(os.getpid(), signum)
    with pytest.raises(end):
        request.end()
    with pytest.raises(SystemExit) as other:
        EndRequest().end()  # another process of the run has heard it
    assert other.value.code == TERMINATED
