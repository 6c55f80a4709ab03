"""The pages in a real browser: hostile text, sorting, filters, narrow windows, speed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from eval.common.paper import PAPER_FOLDER
from eval.common.runs import load_runs
from eval.common.study import Section, StudyResults, plain_table, without
from eval.report import build as report_module
from eval.report.build import build_report
from eval.report.page import embedded_json
from eval.report.viewer import build_viewer
from tests.eval.browser import CHROMIUM, HOSTILE, MISSING, VIRTUAL, Body, Browser
from tldr.records import Judgement, Post, Sample, TokenTrace, write_records

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    return Browser(tmp_path_factory.mktemp("profiles"))


POSTS = [
    Post(
        id=f"p{number} {HOSTILE}" if number == 7 else f"p{number}",
        subreddit=HOSTILE if number == 7 else f"r{number % 3}",
        title=HOSTILE if number == 7 else f"title {number}",
        post=HOSTILE if number == 7 else f"post {number} needle{number}",
        summary=HOSTILE if number == 7 else f"reference {number}",
    )
    for number in range(40)
]
GAPS = [(number * 13) % 40 - 15 for number in range(40)]
"""Score less the reference's, of post p<number>; negative for p0, p5 and others."""


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two policies on 40 posts, everything about the eighth of them hostile; the second is traced."""
    folder = tmp_path_factory.mktemp("viewer")
    names = ("0-plain", HOSTILE)
    samples = [
        Sample(
            id=post.id,
            policy=name,
            run="r",
            temperature=0.0,
            text=HOSTILE if number == 7 else f" summary {number} by {place}",
            tokens=100 - number,
            stopped=number % 4 != 0,
            logprob=-5.0,
            logprob_sft=-5.0 - number,
            scores={"rm": float(GAPS[number] * place), "rm_reference": 0.0, HOSTILE: 1.0},
        )
        for place, name in enumerate(names)
        for number, post in enumerate(POSTS)
    ]
    write_records(folder / "r" / "samples.jsonl", samples)
    write_records(folder / "valid2.jsonl", POSTS)
    traces = [
        TokenTrace(
            id=sample.id,
            policy=HOSTILE,
            run="r",
            temperature=0.0,
            pieces=[*re.findall(r"\s*\S+", sample.text), HOSTILE],
            logprob=[-0.5] * (len(sample.text.split()) + 1),
            logprob_sft=[-0.25] * len(sample.text.split()) + [-2.0],
        )
        for sample in samples[len(POSTS) :]
    ]
    write_records(folder / "r" / "tokens.jsonl", traces)
    verdicts = [
        Judgement(
            id=POSTS[number].id, policies=[HOSTILE, "reference"], judge=HOSTILE, verdict="B", raw=HOSTILE
        )
        for number in (6, 7, 8)  # gaps 23, -4, 9: the scorer agrees on the second alone
    ]
    write_records(folder / "judgements.jsonl", verdicts)
    page = build_viewer(
        StudyResults(load_runs(folder), PAPER_FOLDER, 20), folder / "out", title=HOSTILE, note=HOSTILE
    )
    assert page is not None
    return page


def order(key: Callable[[int], float], keep: Callable[[int], bool] = lambda _: True) -> list[str]:
    """The first five posts as the list should show them, the hostile one by its number."""
    return [f"row-{number}" for number in sorted(filter(keep, range(40)), key=key)][:5]


VIEWER = r"""
const first = () => [...document.querySelectorAll(".row")].slice(0, 5).map((row) => row.id);
const chosen = () => $('.row[aria-selected="true"]')?.id ?? "";
await pause(200);
out.drawn = document.querySelectorAll(".row").length;
out.policies = texts("#policy option");
for (const sort of ["margin", "-margin", "tokens", "-kl"]) { set("#sort", sort); out[sort] = first(); }
set("#sort", "");
for (const check of ["loses", "unstopped", "disagrees"]) {
  set(`#${check}`, true); out[check] = first(); set(`#${check}`, false);
}
set("#subreddit", "r2"); out.subreddit = first(); set("#subreddit", "");
set("#q", "NEEDLE2 title"); await pause(99); out.found = first();
out.address = location.hash;
set("#q", "nothing has this"); await pause(99); out.none = $("#detail").textContent;
$("#detail button").click(); out.cleared = $("#count").textContent;
key("j"); key("j"); out.j = chosen(); key("k"); out.k = chosen();
key("/"); out.slash = document.activeElement.id; document.activeElement.blur();
location.hash = "#post=p30&sort=-margin"; await pause(100);
out.permalink = [chosen(), $("#sort").value, $("#detail h2").textContent];
location.hash = `#${new URLSearchParams({ post: ID })}`; await pause(300);
out.texts = texts("#detail h2, #detail .text, .raw");
out.where = $("#detail .where").textContent;
out.labels = texts(".card h3");
out.facts = texts(".facts span");
out.verdict = texts(".verdicts td");
const heat = document.querySelectorAll(".text.heat");
out.pieces = [...heat[0].children].map((span) => span.textContent);
out.tones = [...heat[0].children].map((span) => span.className);
out.legend = $("#legend").textContent;
heat[0].focus(); key("ArrowRight", heat[0]); out.second = $(".readout").textContent;
for (let turn = 0; turn < 40; turn++) key("ArrowRight", heat[0]);
out.last = $(".readout").textContent;
key("h"); await pause(50); out.heat = $("#heat").value;
out.elements = document.querySelectorAll("body img, body svg, body b, body iframe").length;
"""


DRIVE = VIEWER.replace("ID", str(embedded_json(POSTS[7].id)))


@pytest.fixture(scope="module")
def driven(browser: Browser, viewer: Path) -> dict[str, Any]:
    out: dict[str, Any] = browser.drive(viewer, DRIVE, VIRTUAL)
    return out


def test_trap_hostile_post_stays_text(browser: Browser, viewer: Path, driven: dict[str, Any]) -> None:
    """With the page's policy and without it, so that the escaping alone is shown to hold."""
    for out in (driven, browser.drive(viewer, DRIVE, VIRTUAL, bare=True)):
        assert out["elements"] == 0
        assert out["texts"] == [HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE + HOSTILE, HOSTILE]
        assert out["where"] == f"{HOSTILE} \u00b7 {POSTS[7].id}"
        assert out["labels"] == ["reference", "0-plain, T 0", f"{HOSTILE}, T 0"]
        assert f"{HOSTILE.replace('_', ' ')} 1.00" in out["facts"]
        assert out["verdict"][:2] == [HOSTILE, "overall"] and out["verdict"][4] == "prefers reference"


def test_sorting_and_filters(driven: dict[str, Any]) -> None:
    assert driven["policies"] == ["0-plain, T 0", f"{HOSTILE}, T 0"]
    assert driven["margin"] == order(lambda number: GAPS[number])
    assert driven["-margin"] == order(lambda number: -GAPS[number])
    assert driven["tokens"] == order(lambda number: -number)
    assert driven["-kl"] == order(lambda number: -number)
    assert driven["loses"] == order(int, lambda number: GAPS[number] < 0)
    assert driven["unstopped"] == order(int, lambda number: number % 4 == 0)
    assert driven["disagrees"] == ["row-6", "row-8"]
    assert driven["subreddit"] == order(int, lambda number: number % 3 == 2)
    assert driven["found"] == ["row-2", "row-20", "row-21", "row-22", "row-23"], "all words, any case"
    assert "q=NEEDLE2" in driven["address"]
    assert "No post matches" in driven["none"] and driven["cleared"].startswith("40 of 40 posts")
    assert driven["drawn"] < 30, "rows out of sight do not exist"


def test_keys_and_permalinks(driven: dict[str, Any]) -> None:
    assert (driven["j"], driven["k"], driven["slash"]) == ("row-2", "row-1", "q")
    assert driven["permalink"] == ["row-30", "-margin", "title 30"]


def test_heat_line_tells_each_tokens_values(driven: dict[str, Any]) -> None:
    count = len(HOSTILE.split())
    assert driven["pieces"] == [*re.findall(r"\s*\S+", HOSTILE), HOSTILE]
    assert driven["tones"] == ["neg"] * count + ["pos eos"]
    assert driven["legend"] == "\u22121.50+1.50nats a token"
    assert driven["second"].endswith("KL \u22120.250, log-prob \u22120.500")
    assert driven["last"] == f"\u201c{HOSTILE}\u201d  KL +1.500, log-prob \u22120.500"
    assert driven["heat"] == "logprob"


OLD = r"""
await pause(200);
out.legend = $("#legend").textContent;
out.readout = $(".readout")?.textContent ?? "";
out.text = $(".card:not(.reference) .text").textContent;
set("#loses", true); out.rows = first();
"""


def test_a_browser_that_cannot_unpack_says_so_and_goes_on(browser: Browser, viewer: Path) -> None:
    old = viewer.with_name("old.html")
    without = "<script>delete window.DecompressionStream</script><style>"
    old.write_text(viewer.read_text(encoding="utf-8").replace("<style>", without, 1), encoding="utf-8")
    out = browser.drive(old, VIEWER.split("\n")[1] + OLD, VIRTUAL, bare=True)
    assert "cannot unpack the token values" in out["legend"] and out["readout"] == ""
    assert out["text"] == " summary 0 by 0" and len(out["rows"]) == 5


CELLS = {
    "name": ["a2", "a10", "<b>", "", "a1"],
    "cell": ["0.123 [0.1, 0.2]", "-0.5 [-0.9, 0.1]", "", "12 [3, 20]", "1e-3"],
    "params": ["1.3B", "35k", "150k", "6.7B", "117M"],
    "verdict": ["reproduced", "not reproduced", "not run here", "reproduced", HOSTILE],
}
REPORT = r"""
const column = (place) => [...$("tbody").rows].map((row) => row.cells[place].textContent);
const state = (place) => $("thead").rows[0].cells[place].getAttribute("aria-sort");
const button = (place) => $("thead").rows[0].cells[place].querySelector("button");
for (const [place, name] of ["name", "cell", "params"].entries()) {
  button(place).click(); out[name] = [column(place), state(place)];
  button(place).click(); out[`-${name}`] = [column(place), state(place)];
}
button(2).click(); out.back = [column(0), state(2), state(0)];
button(0).focus(); out.focus = document.activeElement === button(0) && button(0).tabIndex === 0;
out.marks = texts(".verdict");
out.empty = $("section.empty").getBoundingClientRect().height;
out.title = document.title;
out.link = $(".viewer").getAttribute("href");
out.elements = document.querySelectorAll("b, svg, iframe").length;
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, viewer: Path) -> Path:
    """The viewer's study with two sections: a table, and nothing."""
    table = plain_table("cells", pd.DataFrame(CELLS), HOSTILE)
    parts = [
        Section("one", HOSTILE, HOSTILE, tables=[table]),
        without(Section("two", "Not here", "An intro.")),
    ]
    out = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_module, "sections", lambda _: iter(parts))
        return build_report(viewer.parents[1], out, title=HOSTILE, description=HOSTILE, draws=20)


def test_tables_sort_by_click_and_key(browser: Browser, report: Path) -> None:
    out = browser.drive(report, REPORT, VIRTUAL, bare=True)
    up, down = "ascending", "descending"
    assert out["name"] == [["<b>", "a1", "a2", "a10", ""], up], "empty cells stay last"
    assert out["-name"] == [["a10", "a2", "a1", "<b>", ""], down]
    ordered = ["-0.5 [-0.9, 0.1]", "1e-3", "0.123 [0.1, 0.2]", "12 [3, 20]"]
    assert out["cell"] == [[*ordered, ""], up] and out["-cell"] == [[*reversed(ordered), ""], down]
    assert out["params"][0] == ["35k", "150k", "117M", "1.3B", "6.7B"]
    assert out["back"] == [CELLS["name"], "none", "none"], "a third click gives the order of before"
    assert out["focus"], "a column's name is a button, so Enter and Space press it"
    assert out["marks"] == ["reproduced", "not reproduced", "not run here", "reproduced"]
    assert 0 < out["empty"] < 60, "a section without data takes a line"
    assert out["elements"] == 0 and out["link"] == "samples.html"
    assert " ".join(out["title"].split()) == " ".join(HOSTILE.replace("\x00", "\ufffd").split())


def colours(picture: Path) -> tuple[tuple[int, int], int]:
    with Image.open(picture) as image:
        return image.size, len(image.convert("RGB").resize((300, 225)).getcolors(300 * 225) or [])


@pytest.mark.parametrize("size", ["1200,900", "420,900"])
def test_pages_open_wide_and_narrow(
    browser: Browser, report: Path, viewer: Path, tmp_path: Path, size: str
) -> None:
    for page in (report, viewer):
        picture = tmp_path / f"{page.stem}.png"
        _, errors = browser.run(page.as_uri(), f"--screenshot={picture}", VIRTUAL, size=size)
        assert errors == []
        shape, different = colours(picture)
        assert shape == tuple(map(int, size.split(","))) and different > 50


def test_nothing_sticks_out_of_a_narrow_window(browser: Browser, report: Path, viewer: Path) -> None:
    wide = (
        "setTimeout(() => parent.postMessage([document.documentElement.scrollWidth, innerWidth], '*'), 200)"
    )
    frames = []
    for page in (report, viewer):
        copy = page.with_name("narrow.html")
        text = re.sub(
            '<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8")
        )
        copy.write_text(text.replace("</body>", f"<script>{wide}</script></body>"), encoding="utf-8")
        frames.append(f'<iframe width="420" height="900" style="border:0" src="{copy.as_uri()}"></iframe>')
    both = report.with_name("frames.html")
    listen = "let all = ''; onmessage = (event) => { document.body.dataset.out = all += `${event.data} `; }"
    both.write_text(f"<body><script>{listen}</script>{''.join(frames)}</body>", encoding="utf-8")
    dom, _ = browser.run(both.as_uri(), "--dump-dom", VIRTUAL)
    assert Body(dom).data["out"].split() == ["420,420", "420,420"]
