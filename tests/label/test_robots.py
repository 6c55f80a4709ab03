"""Robots label in a real Chromium of a phone's width; axe-core looks for what some people cannot use."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.eval.browser import HOSTILE
from tests.label.kit import Bench, an_item, bench
from tests.label.remote import Server
from tests.label.windows import PHONE, Robot
from tldr.label.database import NAME, Database
from tldr.label.demo import make_demo
from tldr.label.given import GivenLabel, read_labels

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow
SUMMARY = "my landlord sold my boat and i am angry about the loan so should i sue him"


@pytest.fixture
def served(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Bench, Server]]:
    items, settings = request.param
    made = bench(tmp_path, items, people=2, **settings)
    lines = "".join(f"{name}: {json.dumps(value)}\n" for name, value in made.project.settings)
    (tmp_path / "label.yaml").write_text(lines, encoding="utf-8")
    made.project.database.close()
    server = Server(tmp_path)
    yield made, server
    server.stop()


def labels_of(made: Bench) -> list[GivenLabel]:
    return read_labels(Database(made.project.folder / NAME))


def link(made: Bench, server: Server, number: int = 0) -> str:
    return f"{server.url}/#{made.secrets[number]}"


ONE_EACH = [an_item(0), an_item(1, "ranking"), an_item(2, "rating"), an_item(3, "demonstration")]


@pytest.mark.parametrize("served", [(ONE_EACH, {"max_tokens": 30})], indirect=True)
def test_each_task_by_touch_on_a_phone(browser: Browser, served: tuple[Bench, Server]) -> None:
    made, server = served
    robot = Robot(browser, link(made, server), has_touch=True)
    page = robot.begin()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    shown = page.locator(".summary .text").all_inner_texts()
    page.locator(".summary", has_text="summary 1 of 0").get_by_text("Note").click()
    page.keyboard.type("clearer")
    better = 1 if "summary 1" in shown[1] else 0
    page.locator(f"input[name=confidence][value='{8 if better else 2}']").check(force=True)
    robot.submit()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.locator("#submit").is_disabled(), "an order that nobody looked at is not submitted"
    for wanted, text in enumerate(("summary 2 of 1", "summary 0 of 1")):
        card = page.locator(".rank .card", has_text=text)
        for _ in range(3):
            place = page.locator(".rank .card").all_inner_texts()
            now = next(n for n, found in enumerate(place) if text in found)
            if now == wanted:
                break
            card.get_by_role("button", name="up" if now > wanted else "down").click()
    if page.locator("#submit").is_disabled():
        page.click("text=This order is right")
    page.locator(".tie").nth(1).click()
    robot.submit()
    for axis, value in (("coverage", 3), ("accuracy", 7), ("coherence", 6), ("overall", 4)):
        page.locator(f"input[name={axis}][value='{value}']").check(force=True)
    robot.submit()
    page.fill("#summary", "too " * 31)
    page.wait_for_selector(".meter.off")
    assert page.locator("#submit").is_disabled()
    page.fill("#summary", SUMMARY)
    robot.submit()
    page.wait_for_selector("text=That is all for now")
    compared, ranked, rated, written = (label.answer for label in labels_of(made))
    assert compared is not None and compared.model_dump() == {
        "confidence": 8, "notes": ["", "clearer"], "interpretations": [],
    }  # fmt: skip
    assert ranked is not None and ranked.model_dump()["rank"] == [2, 2, 1]
    assert rated is not None and [rated.model_dump()[axis] for axis in ("coverage", "overall")] == [3, 4]
    assert written is not None and written.model_dump()["summary"] == SUMMARY
    assert all(0 < label.seconds < 60 for label in labels_of(made))
    assert robot.complaints == []


@pytest.mark.parametrize("served", [(ONE_EACH, {"max_tokens": 30})], indirect=True)
def test_each_task_by_keys_alone(browser: Browser, served: tuple[Bench, Server]) -> None:
    made, server = served
    robot = Robot(browser, link(made, server))
    page = robot.page
    page.wait_for_selector("#help[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector(".scale")
    for keys in (["9", "Enter"], ["j", "ArrowUp", "=", "j", "=", "Enter"], [*"3764", "Enter"]):
        before = page.inner_text("#progress")
        for key in keys:
            page.keyboard.press(key)
        page.wait_for_function("(text) => document.querySelector('#progress').innerText !== text", arg=before)
    page.keyboard.type(SUMMARY)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("text=That is all for now")
    page.keyboard.press("u")
    page.wait_for_selector("#summary")
    assert page.input_value("#summary") == SUMMARY, "undo brings the text back"
    page.keyboard.press("Escape")
    page.keyboard.press("s")
    page.wait_for_selector("#skip[open]")
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=That is all for now")
    labels = labels_of(made)
    assert [label.skip is None for label in labels] == [True, True, True, False]
    assert labels[2].answer is not None and labels[2].answer.model_dump()["overall"] == 4
    assert robot.complaints == []


@pytest.mark.parametrize("served", [([an_item(0, "ranking")], {})], indirect=True)
def test_ranking_by_dragging(browser: Browser, served: tuple[Bench, Server]) -> None:
    made, server = served
    page = Robot(browser, link(made, server)).begin()
    page.set_viewport_size({"width": 900, "height": 1200})
    first = page.locator(".rank .text").first.inner_text()
    handle, last = (
        page.locator(".handle").first.bounding_box(),
        page.locator(".rank .card").last.bounding_box(),
    )
    assert handle is not None and last is not None
    page.mouse.move(handle["x"] + 8, handle["y"] + 8)
    page.mouse.down()
    page.mouse.move(handle["x"] + 8, last["y"] + last["height"], steps=6)
    page.mouse.up()
    assert page.locator(".rank .text").last.inner_text() == first
    page.click("#submit")
    page.wait_for_selector("text=That is all for now")
    (label,) = labels_of(made)
    place = next(n for n, summary in enumerate(label.item.summaries) if summary.text.strip() == first)
    assert label.answer is not None and label.answer.model_dump()["rank"][place] == 3


@pytest.mark.parametrize("served", [([an_item(n) for n in range(4)], {"naive_first": True})], indirect=True)
def test_reload_back_and_two_windows(browser: Browser, served: tuple[Bench, Server]) -> None:
    made, server = served
    robot = Robot(browser, link(made, server))
    page = robot.begin()
    assert page.locator(".card.post").count() == 0, "the post waits"
    for number, box in enumerate(page.locator("main textarea").all()):
        box.fill(f"it says {number}")
    page.reload()
    page.wait_for_selector("main textarea")
    assert page.locator("main textarea").last.input_value() == "it says 1", "a reload keeps what was written"
    page.click("#submit")
    page.wait_for_selector(".card.post")
    page.keyboard.press("7")
    page.reload()
    page.wait_for_selector(".scale")
    assert page.locator("input[name=confidence]:checked").get_attribute("value") == "7"
    second = robot.context.new_page()
    second.goto(link(made, server))
    second.wait_for_selector(".scale")
    assert (
        second.locator(".summary .text").all_inner_texts() == page.locator(".summary .text").all_inner_texts()
    )
    second.keyboard.press("3")
    second.keyboard.press("Enter")
    second.wait_for_function("() => document.querySelector('#progress').innerText.startsWith('1')")
    page.bring_to_front()
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#status').innerText.includes('already')")
    page.goto("about:blank")
    page.go_back()
    page.wait_for_selector("main textarea")
    (label,) = labels_of(made)
    assert label.answer is not None and label.answer.model_dump()["confidence"] in (3, 7)
    assert label.answer.model_dump()["confidence"] == (3 if label.order == [0, 1] else 7), (
        "the first one counts"
    )


@pytest.mark.parametrize("served", [([an_item(n) for n in range(3)], {})], indirect=True)
def test_a_lost_connection_keeps_the_answer(browser: Browser, served: tuple[Bench, Server]) -> None:
    made, server = served
    robot = Robot(browser, link(made, server))
    page = robot.begin()
    robot.context.set_offline(True)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "() => document.querySelector('#status').innerText.includes('kept on this device')"
    )
    assert labels_of(made) == []
    robot.context.set_offline(False)
    page.wait_for_function(
        "() => document.querySelector('#progress').innerText.startsWith('1')", timeout=60_000
    )
    page.wait_for_selector(".scale")
    robot.context.set_offline(True)
    page.keyboard.press("9")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "() => document.querySelector('#status').innerText.includes('kept on this device')"
    )
    robot.context.set_offline(False)
    page.reload()  # the window was closed in between
    page.wait_for_function(
        "() => document.querySelector('#progress').innerText.startsWith('2')", timeout=60_000
    )
    assert len(labels_of(made)) == 2


NASTY = HOSTILE.replace("\x00", "")


@pytest.mark.parametrize(
    "served",
    [
        (
            [
                an_item(
                    0,
                    info={"id": "p", "title": NASTY, "post": NASTY, "subreddit": NASTY},
                    summaries=[{"text": NASTY, "policy": NASTY}, {"text": f"b {NASTY}", "policy": "q"}],
                    warning=NASTY,
                )
            ],
            {"labelers_per_item": 2},
        )
    ],
    indirect=True,
)
def test_hostile_texts_do_nothing(browser: Browser, served: tuple[Bench, Server]) -> None:
    made, server = served
    for number in range(2):
        robot = Robot(browser, link(made, server, number))
        page = robot.begin()
        page.click("text=Show it")
        assert page.locator(".summary .text").first.inner_text().replace("b ", "").startswith("</script>")
        page.keyboard.press("9")
        page.keyboard.press("n")
        page.keyboard.insert_text(NASTY)
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("text=That is all for now")
        assert page.evaluate("document.body.dataset.owned") is None and robot.complaints == []
    owner = Robot(browser, server.owner)
    owner.page.wait_for_selector(".tiles")
    for details in owner.page.locator("summary").all():
        details.click()
    assert "onerror" in owner.page.inner_text("main")
    assert owner.page.evaluate("document.body.dataset.owned") is None and owner.complaints == []
    assert owner.page.locator("main img, main script").count() == 0


def serious(page: Page) -> list[str]:
    """What axe-core finds of serious and critical faults."""
    axe = pytest.importorskip("axe_playwright_python", reason="pip install '.[browser]'")
    script = Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    page.evaluate(script)  # by the debugger, which the content security policy does not stop
    found = page.evaluate("axe.run()")
    return [
        f"{rule['impact']} {rule['id']}: {node['html'][:120]}"
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Browser, tmp_path: Path, scheme: Any) -> None:
    folder = tmp_path / "demo"
    make_demo(folder)
    database = Database(folder / NAME)
    from tldr.label.labelers import Labelers

    secret = Labelers(database).add("robot", time.time())
    database.close()
    server = Server(folder)
    found: dict[str, list[str]] = {}
    try:
        robot = Robot(browser, f"{server.url}/#{secret}", color_scheme=scheme, reduced_motion="reduce")
        robot.page.wait_for_selector("#help[open]")
        found["instructions"] = serious(robot.page)
        page = robot.begin()
        tasks = {".axes": "rating", ".rank": "ranking", "#summary": "demonstration", ".scale": "comparison"}
        for _ in range(40):
            page.wait_for_selector("main .card")
            kind = next((name for part, name in tasks.items() if page.locator(part).count()), "other")
            found.setdefault(kind, []).extend(serious(page) if kind not in found else [])
            if set(tasks.values()) <= found.keys():
                break
            page.click("#open-skip")
            page.wait_for_selector("#skip[open]")
            if "skip" not in found:
                found["skip"] = serious(page)
            page.locator("#reasons input").first.check()
            before = page.inner_text("#progress")
            page.click("#confirm-skip")
            page.wait_for_function(
                "(text) => document.querySelector('#progress').innerText !== text", arg=before
            )
        owner = Robot(browser, server.owner, color_scheme=scheme)
        owner.page.wait_for_selector(".tiles")
        found["owner"] = serious(owner.page)
    finally:
        server.stop()
        shutil.rmtree(folder)
    assert found.keys() >= {*tasks.values(), "instructions", "skip", "owner"}
    assert {name: faults for name, faults in found.items() if faults} == {}
