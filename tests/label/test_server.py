"""The server: who may do what, hostile requests and texts, and the owner's page."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.label.kit import Bench, an_item, bench
from tldr.errors import DiskFullError
from tldr.label import serve
from tldr.label.desk import Desk
from tldr.label.given import read_labels
from tldr.label.server import HEADERS, TYPES, WEB, make_app

HOSTILE = "</script><script>document.body.dataset.owned=1</script><img src=x onerror=alert(1)>"


@pytest.fixture
def made(tmp_path: Path) -> Bench:
    items = [an_item(n) for n in range(6)]
    items[1] = an_item(1, info={"id": "post-1", "title": HOSTILE, "post": HOSTILE})
    return bench(tmp_path, items, labelers_per_item=2)


def test_a_server_closes_no_log_handler_of_its_process(made: Bench) -> None:
    """Handlers of other libraries hold this process's standard error, and may close it with themselves."""
    closed = []

    class Handler(logging.Handler):
        def close(self) -> None:
            closed.append(self)
            super().close()

    handler = Handler()
    with serve.listen("127.0.0.1", 0) as listening:
        assert serve.check_server(made.project, listening, serve.address("127.0.0.1", listening))
    assert closed == []
    handler.close()
    assert closed == [handler]


class Page:
    """A labeler's or the owner's requests."""

    def __init__(self, made: Bench, secret: str):
        self.client = TestClient(make_app(made.project), base_url="http://127.0.0.1")
        self.secret = secret

    def __call__(self, name: str, **body: Any) -> tuple[int, dict[str, Any]]:
        reply = self.client.post(
            f"/api/{name}", json=body, headers={"Authorization": f"Bearer {self.secret}"}
        )
        assert reply.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]
        return reply.status_code, reply.json()

    def answer(self, ticket: str, confidence: int = 8, id: str = "answer-id-1") -> tuple[int, dict[str, Any]]:
        return self(
            "answer", ticket=ticket, answer_id=id, answer={"confidence": confidence}, seconds=1.5, idle=0
        )


@pytest.fixture
def page(made: Bench) -> Page:
    return Page(made, made.secrets[0])


def test_a_labeler_from_the_first_request_to_the_last(made: Bench, page: Page) -> None:
    status, me = page("me")
    assert status == 200 and me["worker"] == "worker-00" and me["kinds"] == ["comparison"]
    assert me["length"] == [1, 9, "words"] and "personal" in me["reasons"]
    status, first = page("next")
    assert status == 200 and first["progress"] == {"mine": 0, "done": 0, "wanted": 12}
    made.clock.now += 10
    assert page.answer(first["item"]["ticket"]) == (200, {})
    status, back = page("undo")
    assert status == 200 and back["item"]["previous"]["confidence"] == 8
    made.clock.now += 10
    assert page.answer(back["item"]["ticket"], 2, "answer-id-2") == (200, {})
    for number in range(5):
        item = page("next")[1]["item"]
        body = {"ticket": item["ticket"], "answer_id": f"skip-number-{number}"}
        assert page("skip", **body, reason="cannot-tell", note=HOSTILE) == (200, {})
    assert page("next")[1]["item"] is None
    assert page("count", text="one two  three")[1] == {"count": 3}
    assert len(read_labels(made.project.database)) == 6


ATTACKS = ["", "guessed", "Bearer", "' OR 1=1 --", "worker-00", "x" * 5000]


@pytest.mark.parametrize("secret", ATTACKS)
def test_nothing_without_a_valid_link(made: Bench, secret: str) -> None:
    stranger = Page(made, secret)
    for name in ("me", "next", "undo", "owner"):
        assert stranger(name)[0] == 401
    for name, body in (
        ("answer", {"ticket": "t", "answer_id": "answer-id-1", "answer": {"confidence": 8}}),
        ("skip", {"ticket": "t", "answer_id": "answer-id-1", "reason": "other"}),
        ("interpret", {"ticket": "t", "texts": []}),
        ("renew", {"ticket": "t"}),
        ("count", {"text": "a"}),
        ("owner/labeler", {"worker": "worker-00", "status": "dropped"}),
        ("owner/item", {"item": "item-0", "held": True}),
    ):
        assert stranger(name, **body)[0] == 401
    assert made.person(0).status == "active"


def test_links_open_their_own_pages_only(made: Bench, page: Page) -> None:
    owner = Page(made, made.project.labelers.new_owner())
    assert owner("owner")[0] == 200
    assert owner("next")[0] == 401 and owner("me")[0] == 401
    assert page("owner")[0] == 401 and page("owner/labeler", worker="worker-01", status="dropped")[0] == 401
    other = Page(made, made.secrets[1])
    ticket = page("next")[1]["item"]["ticket"]
    assert other.answer(ticket)[0] == 404, "another's link with this ticket"
    assert (
        other("renew", ticket=ticket)[0] == 404
        and other("interpret", ticket=ticket, texts=["a", "b"])[0] == 404
    )
    assert page.answer(ticket)[0] == 200
    assert other.answer(ticket)[0] == 409, "another's answer id"
    assert other("undo")[0] == 409, "another's answer cannot be taken back"
    assert len(read_labels(made.project.database)) == 1


def test_a_forged_order_or_item_is_refused(made: Bench, page: Page) -> None:
    ticket = page("next")[1]["item"]["ticket"]
    for answer in (
        {"confidence": 8, "order": [1, 0]},
        {"confidence": 8, "item": "item-3"},
        {"choice": 1},
        {},
    ):
        assert page("answer", ticket=ticket, answer_id="answer-id-1", answer=answer)[0] == 422
    for more in ({"order": [0, 1]}, {"worker": "worker-01"}, {"seconds": -1.0}, {"seconds": "5"}):
        body = {"ticket": ticket, "answer_id": "answer-id-1", "answer": {"confidence": 8}}
        assert page("answer", **(body | more))[0] == 422
    assert page("answer", ticket=ticket, answer_id="short", answer={"confidence": 8})[0] == 422
    assert read_labels(made.project.database) == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b'{"ticket": NaN}', 400),
        (b'{"a": 1, "a": 2}', 400),
        (b"\xff", 400),
        (b"[" * 50_000, 400),
        (b'{"ticket": "\\ud800", "answer_id": "answer-id-1", "answer": {}}', 400),
        (b'{"seconds": 1e999}', 400),
        (b" " * 70_000, 413),
    ],
)
def test_bodies_that_are_no_requests(page: Page, body: bytes, status: int) -> None:
    headers = {"Authorization": f"Bearer {page.secret}"}
    reply = page.client.post("/api/answer", content=body, headers=headers)
    assert reply.status_code == status and set(reply.json()) == {"error"}
    assert (
        page.client.post("/api/answer", content=iter([b" " * 40_000] * 4), headers=headers).status_code == 413
    )


def test_other_methods_and_addresses(page: Page) -> None:
    assert page.client.get("/api/next").status_code == 405
    for address in (
        "/api/none",
        "/static/../server.py",
        "/static/%2e%2e/server.py",
        "/labels.sqlite",
        "/items.jsonl",
    ):
        assert page.client.get(address).status_code == 404
    assert page.client.get("/health").json() == {"ok": True}


def test_hostile_texts_travel_as_data(made: Bench, page: Page) -> None:
    found = []
    for number in range(6):
        item = page("next")[1]["item"]
        found.append(item["post"]["text"])
        notes = [HOSTILE, "plain"]
        body = {"ticket": item["ticket"], "answer_id": f"answer-id-{number}"}
        assert page("answer", **body, answer={"confidence": 9, "notes": notes})[0] == 200
    assert HOSTILE in found
    reply = page.client.post("/api/next", headers={"Authorization": f"Bearer {page.secret}"})
    assert (
        reply.headers["content-type"] == "application/json"
        and reply.headers["x-content-type-options"] == "nosniff"
    )


def test_pages_have_no_inline_script_style_or_foreign_address(page: Page) -> None:
    for address in ("/", "/owner"):
        reply = page.client.get(address)
        text, policy = reply.text, reply.headers["content-security-policy"]
        assert (
            "'unsafe" not in policy and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        )
        assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=|https?://", text)
    for file in (file for file in WEB.iterdir() if file.suffix in TYPES):
        text = file.read_text(encoding="utf-8")
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text
        )
        assert "//" not in text.replace("http://www.w3.org/2000/svg", "") or file.suffix == ".js", file
        if file.suffix in (".js", ".css"):
            assert page.client.get(f"/static/{file.name}").status_code == 200


def test_a_full_disk_is_told_and_the_page_may_send_again(
    made: Bench, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = page("next")[1]["item"]["ticket"]

    def full(*_: object) -> None:
        raise DiskFullError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(Desk, "_write", full)
        status, reply = page.answer(ticket)
    assert status == 507 and "disk is full" in reply["error"]
    assert page.answer(ticket)[0] == 200
    assert len(read_labels(made.project.database)) == 1


def test_the_owner_sees_and_steers(made: Bench, page: Page) -> None:
    owner, other = Page(made, made.project.labelers.new_owner()), Page(made, made.secrets[1])
    assert owner("owner")[1]["agreement"] is None
    for number in range(6):
        for confidence, who in ((9, page), (2, other)):
            item = who("next")[1]["item"]
            if item is None:
                continue
            made.clock.now += 30
            if number == 5:
                body = {"ticket": item["ticket"], "answer_id": f"skip-{who.secret[:6]}"}
                assert who("skip", **body, reason="personal", note=HOSTILE)[0] == 200
            else:
                assert who.answer(item["ticket"], confidence, f"answer-{number}-{who.secret[:6]}")[0] == 200
    seen = owner("owner")[1]
    assert seen["done"] == 10 and [row["labels"] for row in seen["labelers"]] == [5, 5]
    rows = {row["worker"]: row for row in seen["labelers"]}
    assert rows["worker-00"]["first"]["share"] == 0 and rows["worker-01"]["first"]["share"] == 1
    agreement = seen["agreement"]
    assert agreement["n"] == 5 and 0 <= agreement["low"] <= agreement["share"] <= agreement["high"] <= 1
    assert rows["worker-00"]["agreement"]["share"] == agreement["share"]
    assert len(seen["disagreements"]) == round(5 * (1 - agreement["share"]))
    (flagged,) = seen["flagged"]
    assert flagged["reason"] == "personal" and flagged["held"] and flagged["votes"][0]["notes"] == [HOSTILE]
    assert owner("owner/item", item=flagged["item"], held=False)[1]["flagged"] == []
    dropped = owner("owner/labeler", worker="worker-01", status="dropped")[1]
    assert dropped["agreement"] is None and dropped["done"] == 5
    assert other("next")[0] == 403
    assert owner("owner/labeler", worker="worker-09", status="active")[0] == 400
    assert "secret" not in json.dumps(seen)
