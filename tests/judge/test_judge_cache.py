"""What a judge keeps: answers by question, claims between processes, and money set aside."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tldr.errors import UsageError
from tldr.judge.budget import Budget, Price, estimated_tokens
from tldr.judge.cache import Answer, Cache
from tldr.judge.endpoint import Connection


def test_a_budget_waits_for_open_requests_before_it_says_no() -> None:
    budget = Budget(1.0)
    assert budget.reserve(0.8)
    said: list[bool] = []
    waiting = threading.Thread(target=lambda: said.append(budget.reserve(0.7)))
    waiting.start()
    budget.settle(0.8, 0.2)
    waiting.join(60)
    assert said == [True] and not budget.spent > 0.2
    budget.settle(0.7, 0.8)
    assert budget.spent == pytest.approx(1.0) and not budget.reserve(0.01) and budget.reserve(0.0)


def test_prices_and_tokens() -> None:
    assert Price.parse("0.15/0.60").of(2e6, 1e6) == pytest.approx(0.90)
    for wrong in ("", "1", "1/2/3", "a/b", "-1/2", "nan/1", "inf/1"):
        with pytest.raises(UsageError, match="price"):
            Price.parse(wrong)
    assert estimated_tokens("x" * 300) == 116 and estimated_tokens("é" * 300) == 216


def _hold(path: Path, ready: Any) -> None:
    cache = Cache(path)
    with cache.claim(Connection("m").question("?", 1)):
        ready.set()
        time.sleep(600)


def test_a_claim_ends_with_its_process(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "c.sqlite", ready))
    holder.start()
    assert ready.wait(60) and holder.pid
    with closing(Cache(tmp_path / "c.sqlite")) as cache:
        question, got = Connection("m").question("?", 1), threading.Event()

        def claim() -> None:
            with cache.claim(question):
                got.set()

        claimer = threading.Thread(target=claim)
        claimer.start()
        assert not got.wait(0.3)
        with cache.claim(Connection("m").question("another", 1)):
            os.kill(holder.pid, signal.SIGKILL)
        holder.join()
        claimer.join(60)
        assert got.is_set()


def test_the_cache_tells_questions_apart(tmp_path: Path) -> None:
    """By model, endpoint, prompt and parameters; the first answer to a question stays."""
    base = Connection("m", "http://a/v1")
    question = base.question("?", 5)
    others = [
        Connection("n", "http://a/v1").question("?", 5),
        Connection("m", "http://b/v1").question("?", 5),
        base.question("!", 5),
        base.question("?", 6),
    ]
    with closing(Cache(tmp_path / "c.sqlite")) as cache:
        cache.put(question, Answer("one", 1, None))
        cache.put(question, Answer("two"))
        assert cache.get(question) == Answer("one", 1, None)
        assert cache.known([question, *others]) == {question.key: Answer("one", 1, None)}
    assert base.question("?", 5).key == Connection("m", "http://a/v1/").question("?", 5).key
    (tmp_path / "no.sqlite").write_text("not a database, but long enough to be taken for one" * 50)
    with pytest.raises(UsageError, match="cache"):
        Cache(tmp_path / "no.sqlite")
