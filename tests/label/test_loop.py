"""The paper's loop by robots' hands: labels clicked in a browser train the same weights as written ones.

The study is the smallest size of `configs/toy.yaml`, with two rounds of 500 comparisons.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pytest

from eval.common.stats import Estimate, mean
from tests.golden.golden import file_hashes
from tests.label.remote import ROOT, Server
from tests.label.windows import Robot
from tldr.cli.label import open_project
from tldr.label.desk import Sent
from tldr.label.items import LabelItem, read_items
from tldr.label.project import ITEMS
from tldr.label.robots import robot_answer
from tldr.records import Comparison, Sample, read_records
from tldr.toy.labelers import WORKERS, Worker

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow
STUDY = f"""
base: {ROOT}/configs/toy.yaml
name: loop
sizes: [s]
data: {{seeds: [1], valid2_posts: 600}}
labels:
  {{kind: people, pairs: 500, valid_pairs: 60, k: [2, 2], reference_share: 0.25, writer_share: 0.25,
   spare: 0.0, page: {{shared: 0.01, calibration: 0.0}}}}
reward: {{epochs: 2}}
rounds: [{{}}]
evaluation: {{temperatures: [0.7], sft_temperatures: [], sft_top_ps: []}}
pairs: null
ratings: null
variants: {{n: null, pool: null, kl: null, shared: null}}
"""
ROUNDS = ("labels-s0-r1", "labels-s0")
PEOPLE = [f"robot {number}" for number in range(len(WORKERS))]
READ = """() => document.querySelector('.scale') && {
    post: document.querySelector('.card.post .text').textContent,
    summaries: [...document.querySelectorAll('.summary .text')].map((node) => node.textContent)}"""


class Loop:
    """A study in a folder of its own, used by the command line alone."""

    def __init__(self, folder: Path):
        self.folder, self.file, self.runs = folder, folder / "loop.yaml", folder / "runs"
        folder.mkdir(exist_ok=True)
        self.file.write_text(STUDY, encoding="utf-8")

    def command(self, *words: str) -> tuple[int, str]:
        """The exit code of a command on the study, and what it printed."""
        line = [sys.executable, "-m", "tldr", *words, "--runs", str(self.runs)]
        done = subprocess.run(line, cwd=ROOT, env=os.environ, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def run(self, only: str = "score") -> tuple[int, str]:
        return self.command("study", "run", str(self.file), "--only", only, "--jobs", "1")

    def labeling(self, title: str) -> Path:
        """The labeling folder of a run."""
        (found,) = (self.runs / "loop" / "labeling").glob(f"{title}-" + "[0-9a-f]" * 10)
        return found

    def exported(self, number: int) -> dict[str, list[dict[str, Any]]]:
        """What `label export` writes of the round that is served: file -> records without their times."""
        out = self.folder / f"export-{number}"
        code, text = self.command("label", "export", str(self.file), str(out))
        assert code == 0, text
        return {path.name: list(map(without_times, path.open())) for path in sorted(out.iterdir())}


def without_times(line: str) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(line)
    times = [row["extra"].pop(name) for name in ("seconds", "idle", "at")]
    assert all(time >= 0 for time in times)
    return row


def seen(item: LabelItem) -> tuple[str, frozenset[str]]:
    """What a labeler sees of an item, whatever the order shown."""
    return (item.info.post or "").strip(), frozenset(one.text.strip() for one in item.summaries)


class Hand:
    """A simulated labeler at a window: reads the page, clicks on the slider and on Submit."""

    def __init__(self, browser: Browser, url: str, worker: Worker, items: Sequence[LabelItem]):
        self.robot, self.worker = Robot(browser, url), worker
        self.items = {seen(item): item for item in items}
        assert len(self.items) == len(items), "items can be told apart by what is seen of them"
        self.robot.begin()

    def label(self) -> bool:
        """Answer what the window shows; False if it shows that nothing is left."""
        shown = self.robot.page.evaluate(READ)
        if shown is None:
            return False
        item = self.items[shown["post"].strip(), frozenset(shown["summaries"])]
        confidence = robot_answer(item, self.worker).model_dump()["confidence"]
        if item.summaries[0].text.strip() != shown["summaries"][0]:
            confidence = 10 - confidence
        self.robot.page.click(f"label.dot:has(input[name=confidence][value='{confidence}'])")
        self.robot.submit()
        return True


def click(browser: Browser, loop: Loop, title: str) -> tuple[int, float]:
    """Have eleven windows answer in turn until nothing is left; the answers, and the seconds of each."""
    server = Server(loop.file, options=("--runs", str(loop.runs)))
    try:
        adds = [word for name in PEOPLE for word in ("--add", name)]
        code, text = loop.command("label", "links", str(loop.file), "--url", server.url, *adds)
        links = dict(line.split(": ", 1) for line in text.splitlines())
        assert code == 0 and list(links) == PEOPLE
        items = read_items(loop.labeling(title) / ITEMS)
        hands = [
            Hand(browser, link, worker, items) for link, worker in zip(links.values(), WORKERS, strict=True)
        ]
        done, start = 0, perf_counter()
        while answered := sum([hand.label() for hand in hands]):
            done += answered
        seconds = perf_counter() - start
        assert [hand.robot.complaints for hand in hands] == [[]] * len(hands)
        for hand in hands:
            hand.robot.context.close()
    finally:
        server.stop()
    return done, seconds / done


def write(loop: Loop) -> int:
    """Write the same answers directly, in the order in which the windows ask and answer; how many."""
    project = open_project(loop.file, [], loop.runs)
    with closing(project.database):
        for name in PEOPLE:
            project.labelers.add(name, 0.0)
        people, done = project.labelers.all(), 0
        shown = [project.desk.next(who) for who in people]
        while any(shown):
            for number, (who, worker) in enumerate(zip(people, WORKERS, strict=True)):
                if (now := shown[number]) is None:
                    continue
                answer = robot_answer(now.item, worker).shuffled(now.order)
                sent = Sent(now.ticket, f"{who.worker}-{now.item.id}", 0.0)
                project.desk.answer(who, sent, answer.model_dump(exclude={"notes", "interpretations"}))
                shown[number], done = project.desk.next(who), done + 1
    return done


def gold_preference(loop: Loop) -> dict[str, Estimate]:
    """Method -> how often its summaries are truly preferred to the references of valid2."""
    found = {}
    for name in ("sft", "ppo-r1", "ppo"):
        (file,) = (loop.runs / "loop").glob(f"score-s-s0-{name}-{'[0-9a-f]' * 10}/samples.jsonl")
        found[name] = mean([row.scores["gold_preference"] for row in read_records(file, Sample)])
    return found


def test_the_papers_loop_by_robots_hands(browser: Browser, tmp_path: Path) -> None:
    by_page, directly = Loop(tmp_path / "page"), Loop(tmp_path / "direct")
    code, text = by_page.run()
    assert code == 77 and "waiting for labels: 0 of 560;" in text
    shutil.copytree(
        by_page.runs, directly.runs
    )  # SFT is the same; labels, reward model and PPO are not copied
    for number, title in enumerate(ROUNDS, start=1):
        if number > 1:
            assert directly.run("ppo")[0] == 77
        answers, seconds = click(browser, by_page, title)
        assert write(directly) == answers > 560
        exported = by_page.exported(number)
        assert exported == directly.exported(number) and list(exported) == ["comparisons.jsonl"]
        check_answers(exported["comparisons.jsonl"], by_page.labeling(title), number)
        code, text = by_page.run()
        assert code == (77 if title == ROUNDS[0] else 0), text
        print(f"round {number}: {answers} answers by click, {seconds:.2f} s each")
    assert directly.run("ppo")[0] == 0
    compare(by_page, directly)
    for name, estimate in gold_preference(by_page).items():
        print(f"{name}: gold preference {estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]")


def check_answers(rows: Sequence[Mapping[str, Any]], folder: Path, number: int) -> None:
    """Each label is what its worker says about its item, on which page or desk it was given."""
    items = {item.id: item for item in read_items(folder / ITEMS)}
    workers = {worker.name: worker for worker in WORKERS}
    assert {row["worker"] for row in rows} == set(workers)
    assert {row["batch"] for row in rows} == {f"round{number}"}
    assert {row["extra"]["item"] for row in rows} == set(items)
    for row in rows:
        item = items[row["extra"]["item"]]
        assert (
            row["extra"]["confidence"]
            == robot_answer(item, workers[row["worker"]]).model_dump()["confidence"]
        )
        record = Comparison.model_validate(row)
        assert record.info == item.info and record.summaries == item.summaries
    policies = {summary.policy for item in items.values() for summary in item.summaries}
    assert ("ppo-s-r1-t0.75" in policies) == (number == 2), policies


def compare(by_page: Loop, directly: Loop) -> None:
    """All files of all runs up to PPO have equal bytes, but for the times in the labels."""
    hashes, others = (file_hashes(loop.runs / "loop") for loop in (by_page, directly))
    same = {name: digest for name, digest in others.items() if not name.startswith("labels-")}
    assert same == {name: hashes.get(name) for name in same}
    for title in ("reward-s-s0-r1", "ppo-s-s0-r1", "reward-s-s0", "ppo-s-s0"):
        assert any(name.startswith(f"{title}/") and name.endswith(".safetensors") for name in same), title
    assert same["ppo-s-s0/checkpoint/model.safetensors"] != same["ppo-s-s0-r1/checkpoint/model.safetensors"]
    for title in ROUNDS:
        for split, count in (("train", 500), ("valid1", 30), ("valid2", 30)):
            clicked, written = (labels_of(loop.labeling(title), split) for loop in (by_page, directly))
            assert clicked == written and len(clicked) == count


def labels_of(labeling: Path, split: str) -> list[dict[str, Any]]:
    """What a run hands to the reward model, without times."""
    with (labeling.parents[1] / labeling.name / f"{split}.jsonl").open(encoding="utf-8") as file:
        return list(map(without_times, file))
