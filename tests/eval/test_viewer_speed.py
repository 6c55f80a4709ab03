from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from eval.common.paper import PAPER_FOLDER
from eval.common.runs import load_runs
from eval.common.study import StudyResults
from eval.report.viewer import build_viewer
from tests.eval.browser import CHROMIUM, MISSING, Browser
from tldr.records import write_json


def big_study(folder: Path, posts: int, policies: int, tokens: int) -> Path:
    """As many posts, policies and token values as the viewer is made for."""
    draw = random.Random(0)
    words = [f"{a}{b}{c}" for a in "bdklmnrst" for b in "aeiou" for c in ("n", "r", "st", "lk")]
    noise = [round(draw.gauss(0, 1), 6) for _ in range(99991)]

    def values(place: int) -> list[float]:
        start = place * 131 % (len(noise) - tokens)
        return noise[start : start + tokens]

    def lines(path: Path, rows: list[dict[str, Any]]) -> None:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    runs = []
    for policy in range(policies):
        names = {"policy": f"policy-{policy}", "run": f"score-{policy}", "temperature": 0.0}
        runs.append({"run": names["run"], "stage": "score", "folder": names["run"]})
        (folder / f"score-{policy}").mkdir()
        write_json(folder / f"score-{policy}" / "DONE", {})
        samples, traces = [], []
        for post in range(posts):
            pieces = [f" {word}" for word in draw.choices(words, k=tokens)]
            place, own = post * policies + policy, {"id": f"p{post}", **names}
            gold = {"gold": noise[place], "gold_reference": noise[post]}
            rm = {"rm": noise[place + 1], "rm_reference": noise[post + 1]}
            samples.append({**own, "text": "".join(pieces), "tokens": tokens, "scores": {**gold, **rm}})
            series = {name: values(4 * place + at) for at, name in enumerate(TRACED)}
            traces.append({**own, "pieces": pieces, **series})
        lines(folder / f"score-{policy}" / "samples.jsonl", samples)
        lines(folder / f"score-{policy}" / "tokens.jsonl", traces)
    text = [" ".join(draw.choices(words, k=280)) for _ in range(posts)]
    rows = [
        {"id": f"p{n}", "subreddit": f"r{n % 9}", "title": one[:60], "post": one}
        for n, one in enumerate(text)
    ]
    lines(folder / "valid2.jsonl", rows)
    write_json(folder / "study.json", {"runs": runs})
    return folder


TRACED = ("logprob", "logprob_sft", "value", "reward")
BIG = r"""
out.count = $("#count").textContent;
out.counts = [];
out.drawn = [];
const count = () => out.drawn.push(document.querySelectorAll(".row").length);
const filter = (query, value) => { set(query, value); count(); out.counts.push($("#count").textContent); };
count();
filter("#loses", true); filter("#sort", "margin"); filter("#subreddit", "r3"); filter("#scorer", "rm");
filter("#policy", "7"); filter("#loses", false); filter("#subreddit", "");
for (let turn = 0; turn < 50; turn++) key("j");
count();
out.cards = document.querySelectorAll(".card").length;
"""


@pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
def test_of_two_thousand_posts_only_those_in_sight_are_drawn(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What a filter, a search or a step draws does not grow with the number of posts."""
    study = StudyResults(load_runs(big_study(tmp_path, 2000, 10, 40)), PAPER_FOLDER, 20)
    page = build_viewer(study, tmp_path / "out", title="Big")
    assert page is not None and page.stat().st_size < 24e6
    browser = Browser(tmp_path_factory.mktemp("profiles"))
    out = browser.drive(page, BIG, address="#q=ban+dar")
    assert " of 2,000 posts" in out["count"] and not out["count"].startswith("2,000 of")
    assert len(out["drawn"]) == 9 and min(out["drawn"]) > 0 and max(out["drawn"]) < 60, out
    shown = [text.split(" of ")[0] for text in (out["counts"][-1], out["count"], out["counts"][0])]
    assert shown[0] == shown[1] != shown[2], out
    assert 0 < out["cards"] <= 11, out  # the post in sight alone: its reference and ten policies
