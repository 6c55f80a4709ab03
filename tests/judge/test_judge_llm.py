"""Asking a model: hostile endpoints, money, and runs that are killed."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from tests.judge.judge_server import Reply, Server, coin, completion, make_pairs, says, serving
from tldr.errors import LabError, UsageError
from tldr.judge.budget import Price
from tldr.judge.cache import Cache
from tldr.judge.endpoint import AgainError, Connection, Endpoint, RefusedError
from tldr.judge.llm import Limits, LLMJudge
from tldr.judge.prompt import build_prompt
from tldr.records import Judgement

ROOT = Path(__file__).parents[2]
FREE = Price(0, 0)
DEAR = Price(1000, 1000)  # a tenth of a cent a token


@contextmanager
def judging(
    server: Server | str, path: Path, price: Price = FREE, timeout: float = 60.0, **limits: Any
) -> Iterator[LLMJudge]:
    url = server if isinstance(server, str) else server.url
    connection = Connection("tiny", url, timeout)
    limits = {"backoff": 0.01, "concurrency": 4} | limits
    with closing(Endpoint(connection)) as endpoint, closing(Cache(path / "cache.sqlite")) as cache:
        yield LLMJudge(endpoint, cache, price, Limits(**limits))


def drain(judge: LLMJudge, pairs: int = 6) -> tuple[list[Judgement], LabError | None]:
    """What a judge yields, and what ends it."""
    rows: list[Judgement] = []
    try:
        for row in judge.judge(make_pairs(pairs), ["overall"]):
            rows.append(row)
    except LabError as error:
        return rows, error
    return rows, None


def test_trap_judge_asked_in_both_orders(tmp_path: Path) -> None:
    """Every summary is shown as A once and as B once, and the verdict is about what was shown."""

    def longer(prompt: str, _: int) -> Reply:
        a, b = (prompt.split(f"Summary {letter}:\n> ")[1].split("\n")[0] for letter in "AB")
        return says("A" if len(a) > len(b) else "B")

    with serving(longer) as server, judging(server, tmp_path) as judge:
        rows, error = drain(judge, 3)
    assert error is None and len(rows) == 6
    for pair in make_pairs(3):
        by_order = {tuple(row.order): row for row in rows if row.id == pair.post.id}
        assert set(by_order) == {(0, 1), (1, 0)}
        assert by_order[0, 1].verdict == "B" and by_order[1, 0].verdict == "A"  # the second is longer
        prompts = {build_prompt(pair.post, *pair.texts), build_prompt(pair.post, *pair.texts[::-1])}
        assert prompts <= set(server.asked)
        assert by_order[0, 1].prompt_sha != by_order[1, 0].prompt_sha
    assert all(request["temperature"] == 0 and request["max_tokens"] == 200 for request in server.requests)


def test_a_hostile_endpoint_is_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """429 with Retry-After, 500, garbage, empty choices, a cut connection, then answers."""
    troubles: list[Callable[[], Reply]] = [
        lambda: Reply(b'{"error": {"message": "slow down"}}', 429, Retry_After="0.4"),
        lambda: Reply(b"<html>oops</html>", 500, Content_Type="text/html"),
        lambda: Reply(b'{"choices": [{"mess'),
        lambda: Reply(b"not even JSON", Content_Type="text/plain"),
        lambda: Reply(b"\xff\xfe\x00"),
        lambda: Reply(json.dumps({"choices": []}).encode()),
        lambda: Reply(json.dumps({"choices": [{"message": {"content": 7}}]}).encode()),
        lambda: Reply(b"null"),
        lambda: Reply(completion("Preferred: A"), cut=True),
    ]  # fmt: skip
    started: dict[str, float] = {}
    waited: list[float] = []

    def behaviour(prompt: str, count: int) -> Reply:
        trouble = troubles[int(prompt.split("Title ")[1].split()[0])]
        if count == 1:
            started[prompt] = time.monotonic()
            return trouble()
        if trouble is troubles[0]:
            waited.append(time.monotonic() - started[prompt])
        return says("tie" if coin(prompt) else "none")

    with serving(behaviour) as server, judging(server, tmp_path, concurrency=10) as judge:
        rows, error = drain(judge, len(troubles))
    assert error is None
    assert len(rows) == 2 * len(troubles) == judge.retries
    assert set(server.asked.values()) == {2} and len(server.asked) == 2 * len(troubles)
    ties = sum(coin(prompt) for prompt in server.asked)
    assert Counter(row.verdict for row in rows) == {"tie": ties, "invalid": len(rows) - ties}
    assert len(waited) == 2 and min(waited) >= 0.4


def test_a_question_without_an_answer_in_time_is_asked_again(tmp_path: Path) -> None:
    asked_again = threading.Event()

    def silent_at_first(prompt: str, count: int) -> Reply:
        if count == 1:
            asked_again.wait(60)
        else:
            asked_again.set()
        return says("A")

    with serving(silent_at_first) as server, judging(server, tmp_path, timeout=0.5, concurrency=1) as judge:
        rows, error = drain(judge, 1)
    assert error is None and [row.verdict for row in rows] == ["A", "A"]
    assert max(server.asked.values()) >= 2 and judge.retries == len(server.requests) - 2


def test_retry_after_may_be_a_date_and_may_be_too_long(tmp_path: Path) -> None:
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=100)
    dated_reply = Reply(b"", 503, Retry_After=format_datetime(soon, usegmt=True))
    replies = iter([dated_reply, Reply(b"", 429, Retry_After="nonsense")])
    with (
        serving(lambda *_: next(replies)) as server,
        closing(Endpoint(Connection("m", server.url))) as endpoint,
    ):
        question = endpoint.connection.question("?", 5)
        before = datetime.now(UTC)
        with pytest.raises(AgainError) as dated:
            endpoint.ask(question)
        after = datetime.now(UTC)
        with pytest.raises(AgainError) as nonsense:
            endpoint.ask(question)
    assert dated.value.wait is not None
    assert (soon - after).total_seconds() <= dated.value.wait <= (soon - before).total_seconds()
    assert nonsense.value.wait is None
    with serving(lambda *_: Reply(b"", 429, Retry_After="1e9")) as server, judging(server, tmp_path) as judge:
        rows, error = drain(judge, 1)
    assert rows == [] and "2 of 2 questions got no answer" in str(error) and len(server.requests) == 2


def test_questions_without_an_answer_are_counted_and_the_rest_is_kept(tmp_path: Path) -> None:
    """One post that a content filter refuses does not end the run, and is asked again by the next."""

    def filtered(prompt: str, _: int) -> Reply:
        return Reply(b'{"error": {"message": "filtered"}}', 400) if "Title 2" in prompt else says("A")

    with serving(filtered) as server, judging(server, tmp_path) as judge:
        rows, error = drain(judge)
        assert len(rows) == 10 and "2 of 12" in str(error) and "filtered" in str(error)
        drain(judge)
        assert sorted(server.asked.values()) == [1] * 10 + [2] * 2


def test_an_endpoint_that_always_fails_is_left_alone(tmp_path: Path) -> None:
    down = serving(lambda *_: Reply(b"", 500))
    with down as server, judging(server, tmp_path, attempts=2, concurrency=1) as judge:
        rows, error = drain(judge, 50)
    assert rows == [] and "100 of 100" in str(error)
    assert len(server.asked) == 10 and len(server.requests) == 20
    with judging("http://127.0.0.1:9/v1", tmp_path, DEAR, attempts=2, max_cost=1e6) as judge:
        _, error = drain(judge, 1)
    assert "no answer" in str(error) and "refused" in str(error)


@pytest.mark.parametrize(
    "status,body", [(401, b"{}"), (404, b"{}"), (429, b'{"error": {"code": "insufficient_quota"}}')]
)
def test_a_refusal_ends_the_run_at_once(tmp_path: Path, status: int, body: bytes) -> None:
    first = threading.Event()

    def refuses_after_one(*_: object) -> Reply:
        if not first.is_set():
            first.set()
            return says("A")
        return Reply(body, status)

    with serving(refuses_after_one) as server, judging(server, tmp_path, concurrency=1) as judge:
        rows, error = drain(judge, 20)
        assert (
            isinstance(error, RefusedError) and str(status) in str(error) and "OPENAI_API_KEY" in str(error)
        )
        assert len(rows) == 1 and len(server.requests) == 2


def test_no_more_requests_at_once_than_allowed(tmp_path: Path) -> None:
    three = threading.Barrier(3)

    def together(*_: object) -> Reply:
        three.wait(60)  # all three are open at once
        time.sleep(0.05)  # ... and a fourth would have time to come
        return says("B")

    with serving(together) as server, judging(server, tmp_path, concurrency=3) as judge:
        rows, _ = drain(judge, 6)
    assert len(rows) == 12 and server.most_open == 3


def test_an_answer_is_stored_raw_and_asked_for_once(tmp_path: Path) -> None:
    """Equal summaries make one question; a refusal, an empty and a null answer are answers."""
    texts = iter(
        [completion(None), completion(""), completion("<b>\x00A</b>"), completion("é\nPreferred: tie")]
    )
    with serving(lambda *_: Reply(next(texts))) as server, judging(server, tmp_path, concurrency=1) as judge:
        rows, _ = drain(judge, 2)
        again, _ = drain(judge, 2)
        assert [row.raw for row in rows] == ["", "", "<b>\x00A</b>", "é\nPreferred: tie"]
        assert [row.verdict for row in rows] == ["invalid"] * 3 + ["tie"]
        assert rows == again and len(server.requests) == 4
        (pair,) = make_pairs(1)
        same = type(pair)(pair.post, pair.policies, ("same", "same"))
        texts = iter([completion("Preferred: A")])
        assert [row.verdict for row in judge.judge([same], ["overall"])] == ["A", "A"]


def test_the_key_is_sent_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-very-secret-0123456789"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    parrots = iter([says(key), Reply(b'{"error": {"message": "bad key ' + key.encode() + b'"}}', 401)])
    with serving(lambda *_: next(parrots)) as server, judging(server, tmp_path, concurrency=1) as judge:
        rows, error = drain(judge, 1)
    assert server.keys == [f"Bearer {key}"] * 2
    assert "bad key [key]" in str(error) and len(rows) == 1
    assert key not in rows[0].to_json()
    assert all(key.encode() not in file.read_bytes() for file in tmp_path.iterdir())
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UsageError, match="OPENAI_API_KEY"):
        Endpoint(Connection("m"))
    for url in (f"http://user:{key}@host/v1", f"http://host/v1?key={key}", "host/v1", "file:///etc"):
        with pytest.raises(UsageError, match="address") as told:
            Endpoint(Connection("m", url))
        assert key not in str(told.value)


def test_max_cost_stops_in_time_and_loses_nothing(tmp_path: Path) -> None:
    """An answer costs 11 cents (110 tokens); what it may cost by its length is set aside before."""
    with serving(lambda *_: says("A")) as server:
        with judging(server, tmp_path, DEAR, max_cost=1.0, answer_tokens=20) as judge:
            estimate = judge.estimate(make_pairs(6), ["overall"])
            assert (estimate.questions, estimate.answered, estimate.paid) == (12, 0, 0)
            assert estimate.cost > 0.11 * 12  # it errs upwards
            rows, error = drain(judge)
            assert "--max-cost" in str(error) and "of 12 questions open" in str(error)
            asked = len(server.requests)
            assert len(rows) == asked and 0.11 * asked <= 1.0 < 0.11 * asked + estimate.cost / 12
            again, _ = drain(judge)  # what was paid counts: nothing more is asked
            assert len(server.requests) == asked and sorted(map(str, again)) == sorted(map(str, rows))
        with judging(server, tmp_path, DEAR, max_cost=20.0, answer_tokens=20) as judge:
            after = judge.estimate(make_pairs(6), ["overall"])
            assert after.answered == asked and after.paid == pytest.approx(0.11 * asked)
            rows, error = drain(judge)
            assert error is None and len(rows) == 12
    assert set(server.asked.values()) == {1} and len(server.asked) == 12


def test_the_budget_holds_with_many_requests_open(tmp_path: Path) -> None:
    """All money that open requests may cost is set aside, lost answers included."""

    def slow_and_lossy(prompt: str, count: int) -> Reply:
        time.sleep(0.02)
        return says("A") if count > 1 else Reply(b"garbage that was billed")

    with (
        serving(slow_and_lossy) as server,
        judging(server, tmp_path, DEAR, max_cost=3.0, concurrency=8) as judge,
    ):
        worst = judge.estimate(make_pairs(1), ["overall"]).cost / 2
        rows, error = drain(judge, 20)
    assert error is not None
    garbage = len(server.requests) - len(rows)
    assert 0.11 * len(rows) + worst * garbage <= 3.0


def test_an_endpoint_that_counts_more_tokens_than_estimated_is_believed(tmp_path: Path) -> None:
    """Some vocabularies need more tokens than a prompt's length tells: only the first answer surprises."""
    usage = {"prompt_tokens": 5000, "completion_tokens": 0}
    costly = serving(lambda *_: Reply(completion("Preferred: B", usage=usage)))
    with costly as server, judging(server, tmp_path, DEAR, max_cost=16.0, concurrency=1) as judge:
        rows, error = drain(judge)
    assert len(rows) == 3 and "$15.0000 spent, 9 of 12" in str(error)
    for nonsense in ("many", {"prompt_tokens": -5, "completion_tokens": True}, None):
        silent = Reply(completion("Preferred: B", usage=nonsense))
        with (
            serving(lambda *_, reply=silent: reply) as server,
            judging(server, tmp_path / type(nonsense).__name__, DEAR) as judge,
        ):
            before = judge.estimate(make_pairs(1), ["overall"]).cost
            drain(judge, 1)
            assert judge.estimate(make_pairs(1), ["overall"]).paid == pytest.approx(before)


RUN = """
import sys
from pathlib import Path
from tests.judge.test_judge_llm import drain, judging
with judging(sys.argv[1], Path(sys.argv[2]), concurrency=int(sys.argv[3])) as judge:
    rows, error = drain(judge, 10)
print(len(rows), error)
"""


def run_process(server: Server, path: Path, concurrency: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUN, server.url, str(path), str(concurrency)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_a_killed_run_asks_nothing_twice(tmp_path: Path) -> None:
    """Killed with three requests open, those three alone are asked again."""
    gate, held = threading.Event(), threading.Semaphore(0)

    def seven_then_wait(_: str, __: int) -> Reply:
        if len(server.requests) > 7 and not gate.is_set():
            held.release()
            gate.wait(120)
        return says("B")

    with serving(seven_then_wait) as server:
        process = run_process(server, tmp_path, 3)
        for _ in range(3):
            assert held.acquire(timeout=60)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = Counter(server.asked)
        gate.set()
        with closing(sqlite3.connect(tmp_path / "cache.sqlite")) as database:
            (stored,) = database.execute("SELECT count(*) FROM answers").fetchone()
        with judging(server, tmp_path) as judge:
            rows, error = drain(judge, 10)
    assert len(before) == 10 and stored == 7
    assert error is None and len(rows) == 20
    assert sorted(server.asked.values()) == [1] * 17 + [2] * 3


def test_two_processes_share_a_cache_and_ask_everything_once(tmp_path: Path) -> None:
    def slow(prompt: str, _: int) -> Reply:
        time.sleep(0.01)
        return says("A")

    with serving(slow) as server:
        both = [run_process(server, tmp_path, 4) for _ in range(2)]
        said = [process.communicate(timeout=300)[0].strip() for process in both]
    assert said == ["20 None"] * 2
    assert set(server.asked.values()) == {1} and len(server.asked) == 20
