"""Endpoints that answer or refuse in forms of their own: nothing is paid for twice, and nothing in vain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.judge.judge_server import USAGE, Reply, completion, says, serving
from tests.judge.test_judge_llm import drain, judging


def message(content: Any, **fields: Any) -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", "content": content} | fields}
    return Reply(json.dumps({"choices": [choice], "usage": USAGE}).encode())


PARTS: list[Any] = [
    [{"type": "text", "text": "One is shorter.\nPreferred: A"}],
    [{"type": "text", "text": "One is shorter.\n"}, {"type": "text", "text": "Preferred: A"}],
    [{"type": "thinking", "thinking": "Preferred: B"}, {"type": "text", "text": "Preferred: A"}],
    [{"type": "output_text", "text": "Preferred: A", "annotations": []}],
    ["Preferred: ", "A"],
]


@pytest.mark.parametrize("content", PARTS)
def test_a_list_of_parts_is_read(content: Any, tmp_path: Path) -> None:
    with serving(lambda *_: message(content)) as server, judging(server, tmp_path) as judge:
        rows, error = drain(judge, 1)
    assert error is None and [row.verdict for row in rows] == ["A", "A"]
    assert set(server.asked.values()) == {1}


UNREADABLE: list[Any] = [
    {"answer": "Preferred: A"},
    [{"type": "image_url", "image_url": {"url": "x"}}],
    [{"type": "text", "text": {"value": "Preferred: A"}}],
    [],
    None,
    7,
]


@pytest.mark.parametrize("content", UNREADABLE)
def test_an_answer_that_cannot_be_read_is_paid_for_once(content: Any, tmp_path: Path) -> None:
    with serving(lambda *_: message(content)) as server:
        for _ in range(2):
            with judging(server, tmp_path) as judge:
                rows, error = drain(judge, 1)
            assert error is None and [row.verdict for row in rows] == ["invalid", "invalid"]
            assert {row.raw for row in rows} == {"" if content is None else json.dumps(content)}
        assert set(server.asked.values()) == {1}, "kept with its raw text, and not asked for again"
        with judging(server, tmp_path, retry_invalid=True) as judge:
            assert judge.estimate([], []).questions == 0
            drain(judge, 1)
        assert set(server.asked.values()) == {2}, "asked again when told"


def test_only_invalid_answers_are_asked_again(tmp_path: Path) -> None:
    def first_one_in_form(prompt: str, count: int) -> Reply:
        return says("A") if "Title 0" in prompt or count > 1 else says("none")

    with serving(first_one_in_form) as server:
        with judging(server, tmp_path) as judge:
            drain(judge, 3)
        with judging(server, tmp_path, retry_invalid=True) as judge:
            rows, _ = drain(judge, 3)
    assert [row.verdict for row in rows] == ["A"] * 6
    assert sorted(server.asked.values()) == [1, 1, 2, 2, 2, 2]


@pytest.mark.parametrize(
    "refusal",
    [
        {"message": "Unsupported parameter", "param": "max_tokens", "code": "unsupported_parameter"},
        {"message": "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."},
    ],
)
def test_max_completion_tokens_is_used_where_max_tokens_is_refused(
    refusal: dict[str, str], tmp_path: Path
) -> None:
    with serving(lambda *_: says("A")) as server:
        plain = server.behaviour

        def refusing(prompt: str, count: int) -> Reply:
            if "max_tokens" in server.requests[-1]:
                return Reply(json.dumps({"error": refusal}).encode(), 400)
            return plain(prompt, count)

        server.behaviour = refusing
        with judging(server, tmp_path, concurrency=1) as judge:
            rows, error = drain(judge, 3)
    assert error is None and [row.verdict for row in rows] == ["A"] * 6
    assert ["max_tokens" in request for request in server.requests] == [True] + [False] * 6
    assert all(request.get("max_completion_tokens") == 200 for request in server.requests[1:])


def test_another_refusal_is_no_reason_to_ask_in_another_way(tmp_path: Path) -> None:
    refusal = json.dumps({"error": {"message": "the prompt is too long", "param": "messages"}}).encode()
    with serving(lambda *_: Reply(refusal, 400)) as server, judging(server, tmp_path) as judge:
        rows, error = drain(judge, 2)
    assert not rows and "the prompt is too long" in str(error)
    assert all("max_tokens" in request for request in server.requests)
    assert set(server.asked.values()) == {1}


def test_a_judge_whose_answers_are_nearly_all_invalid_is_stopped(tmp_path: Path) -> None:
    def babble(prompt: str, _: int) -> Reply:
        return says("A") if "Title 0" in prompt else Reply(completion("I like A best."))

    with serving(babble) as server:
        with judging(server, tmp_path, concurrency=1) as judge:
            rows, error = drain(judge, 40)
        assert len(server.requests) == len(rows) < 30
        assert "(9" in str(error) and "hold no verdict" in str(error) and "I like A best." in str(error)
        assert error is not None and error.remedy is not None and "--retry-invalid" in error.remedy
        paid = len(server.requests)
        with judging(server, tmp_path, concurrency=1) as judge:
            again, error = drain(judge, 40)
        assert len(server.requests) == paid, "nothing is asked before the judge is changed"
        assert len(again) == paid and "hold no verdict" in str(error)


def test_a_few_readable_answers_in_ten_let_a_judge_go_on(tmp_path: Path) -> None:
    def half(prompt: str, _: int) -> Reply:
        return says("A") if "Title 1" in prompt else says("none")

    with serving(half) as server, judging(server, tmp_path, concurrency=1) as judge:
        rows, error = drain(judge, 20)
    assert error is None and len(rows) == 40
