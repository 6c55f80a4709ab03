from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from eval.common.paper import PAPER_FOLDER
from eval.common.runs import load_runs, study_posts, study_samples, training_metrics
from eval.common.study import StudyResults
from eval.common.tables import POOLED, result_table
from eval.preference.measure import GOLD, preference
from eval.preference.section import preference_section
from eval.report.build import build_report
from eval.reward.section import accuracy_results, reward_section
from eval.runs.section import runs_section
from eval.texts.section import text_section
from eval.training.section import training_section
from tldr.errors import RecordError, UsageError
from tldr.records import Sample, read_records, write_json, write_records


@pytest.fixture(scope="module")
def report(study_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    build_report(study_folder, out, title="A study", description="All of it.", draws=50)
    return out


class Page(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in ("meta", "img", "link", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_is_well_formed_and_loads_nothing(report: Path) -> None:
    page = Page((report / "report.html").read_text(encoding="utf-8"))
    assert page.open == [] and "link" not in page.tags and page.tags.count("script") == 1
    sources = [value for _, name, value in page.attributes if name in ("src", "srcset", "data")]
    assert sources and all(value.startswith("data:image/svg+xml;base64,") for value in sources)
    links = [value for tag, name, value in page.attributes if name == "href" and value[0] != "#"]
    assert "samples.html" in links and all((report / link).is_file() for link in links), (
        "files beside the page"
    )
    assert {link.split("/")[0] for link in links} == {"samples.html", "figures", "tables"}
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    assert page.tags.count("img") == len(list((report / "figures").glob("*.svg"))) >= 6
    assert all(value for tag, name, value in page.attributes if (tag, name) == ("img", "alt"))
    targets = {value for _, name, value in page.attributes if name == "id"}
    inside = [value for _, name, value in page.attributes if name == "href" and value[0] == "#"]
    assert inside and {value[1:] for value in inside} <= targets
    styles = re.search(r"<style>(.*?)</style>", (report / "report.html").read_text(), re.DOTALL)
    assert styles and "url(" not in styles[1] and "@import" not in styles[1]


@pytest.mark.parametrize("name", ["report.html", "samples.html"])
def test_only_the_page_s_own_script_and_style_may_run(report: Path, name: str) -> None:
    text = (report / name).read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy and "unsafe" not in policy[1] and policy[1].startswith("default-src 'none'")
    rules = dict(rule.split(" ", 1) for rule in policy[1].split("; "))
    for tag in ("script", "style"):
        bodies = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert len(bodies) == 1
        digest = base64.b64encode(hashlib.sha256(bodies[0].encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    assert " style=" not in text, "an attribute that the policy would refuse"


@pytest.mark.usefixtures("few")
def test_same_input_same_bytes(tmp_path: Path) -> None:
    scores = {"rm": 1.0, "rm_reference": 0.0}
    tags: dict[str, Any] = {"method": "sft", "size": "s", "params": 1e6}
    samples = [
        Sample(id=f"p{n}", policy="sft-s", temperature=0.0, text=f"text {n}", scores=scores, tags=tags)
        for n in range(9)
    ]
    write_records(tmp_path / "runs" / "a" / "samples.jsonl", samples)
    for name in ("one", "two"):
        build_report(tmp_path / "runs", tmp_path / name, title="T", draws=20)
    made = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*")]
    assert {path.suffix for path in made} == {".html", ".png", ".svg", ".csv", ".md", ".tex"}
    for path in made:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes(), path


def test_runs_are_listed_with_hashes_and_versions(tmp_path: Path) -> None:
    listing = []
    for number in range(3):
        folder = tmp_path / f"r{number}"
        folder.mkdir()
        listing.append({"run": f"r{number}", "stage": "sft", "folder": folder.name, "key": f"{number}" * 64})
        made = {
            "git": "ab" * 20 + "-dirty",
            "python": "3.11",
            "seconds": 1.5 + number,
            "started": f"{number}",
        }
        made |= {"packages": {"torch": "2.13" if number < 2 else "2.12"}, "device": "H100", "threads": None}
        write_json(folder / "environment.json", made)
    write_json(tmp_path / "r0" / "DONE", {"outputs": {"z.jsonl": "cd" * 32, "a.json": "ef" * 32}})
    (tmp_path / "r1" / "DONE").touch()
    write_json(tmp_path / "study.json", {"runs": listing})
    runs, versions, outputs = runs_section(StudyResults(load_runs(tmp_path), PAPER_FOLDER, draws=20)).tables
    assert list(runs.frame["key"]) == [f"{number}" * 64 for number in range(3)]
    assert list(runs.shown["key"]) == [f"{number}" * 10 for number in range(3)]
    assert list(runs.frame["state"]) == ["finished", "finished", "not finished"]
    assert list(runs.frame["seconds"]) == [1.5, 2.5, 3.5]
    assert versions.shown.to_dict("records") == [
        {"device": "H100", "git": "ababababab-dirty", "python": "3.11", "torch": "2.13", "runs": 2},
        {"device": "H100", "git": "ababababab-dirty", "python": "3.11", "torch": "2.12", "runs": 1},
    ]
    assert outputs.frame.to_dict("records") == [
        {"run": "r0", "file": "a.json", "sha256": "ef" * 32},
        {"run": "r0", "file": "z.jsonl", "sha256": "cd" * 32},
    ]
    write_json(tmp_path / "r0" / "DONE", {"outputs": ["a.json"]})
    with pytest.raises(RecordError, match="r0/DONE: its outputs are not a map"):
        runs_section(StudyResults(load_runs(tmp_path), PAPER_FOLDER, draws=20))


def test_files_are_written(report: Path) -> None:
    figures = {path.name for path in (report / "figures").iterdir()}
    scored = [f"{kind}_{scorer}" for kind in ("preference", "length_controlled") for scorer in ("gold", "rm")]
    names = (*scored, "reward_accuracy", "training_curves")
    assert figures >= {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    for name in (
        "preference_gold",
        "preference_rm_by_cell",
        "reward_accuracy",
        "rouge",
        "texts",
        "distinct",
        "runs",
    ):
        for kind in ("csv", "md", "tex"):
            assert (report / "tables" / f"{name}.{kind}").stat().st_size > 50


def test_numbers_are_the_samples_own(report: Path, study_folder: Path) -> None:
    table = pd.read_csv(report / "tables" / "preference_gold.csv")
    row = table.query(
        "method == 'ppo' and size == 'm' and temperature == 0 and measure == 'expected_preference'"
    ).iloc[0]
    samples = [
        sample
        for seed in (0, 1)
        for sample in read_records(study_folder / "runs" / f"score-ppo-m-{seed}" / "samples.jsonl", Sample)
        if sample.temperature == 0
    ]
    assert row["n"] == len(samples) == 80 and row["posts"] == 40
    assert row["value"] == pytest.approx(sum(sample.scores["gold_preference"] for sample in samples) / 80)
    assert row["runs"] == "score-ppo-m-0 score-ppo-m-1"
    assert row["low"] < row["value"] < row["high"]


def test_every_result_names_runs_of_the_study(report: Path, study_folder: Path) -> None:
    known = {run.run for run in load_runs(study_folder).runs} | {"posts"}
    for name in ("preference_gold", "preference_rm", "reward_accuracy", "rouge", "texts"):
        for runs in pd.read_csv(report / "tables" / f"{name}.csv")["runs"]:
            assert set(runs.split()) <= known


def test_unscored_samples_give_way_to_their_scores(study_folder: Path) -> None:
    study = load_runs(study_folder)
    assert {run.stage for run in study.sampled()} == {"score", "best_of_n"}
    samples = study_samples(study)
    assert samples is not None and len(samples) == 3 * 2 * (3 * 2 + 1) * 40
    assert len(result_table(preference(samples, GOLD, by=POOLED, draws=50))) == 3 * (3 * 3 * 2 + 3)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report of three sections only: the others draw the paper's figures whatever the study holds."""
    chosen = (preference_section, text_section, runs_section)
    monkeypatch.setattr("eval.report.build.sections", lambda study: (section(study) for section in chosen))


@pytest.mark.usefixtures("few")
def test_trap_a_synthetic_study_says_so(report: Path, tmp_path: Path) -> None:
    assert "Toy world: shapes, not numbers." in (report / "report.html").read_text()
    write_records(tmp_path / "a" / "samples.jsonl", [Sample(id="p", policy="x", text="t")])
    plain = build_report(tmp_path, tmp_path / "plain", title="Real", draws=50).read_text()
    assert "Synthetic" not in plain
    assert (
        "Synthetic"
        in build_report(tmp_path, tmp_path / "toy", title="T", synthetic=True, draws=50).read_text()
    )


EVIL = ("<script>alert(1)</script>", '"onload="alert(1)', "</td><img src=x onerror=alert(1)>", "{{ 7*7 }}")


@pytest.mark.usefixtures("few")
def test_text_from_outside_is_escaped(tmp_path: Path) -> None:
    samples = [
        Sample(
            id="p",
            policy=evil,
            run=evil,
            text=evil,
            scores={"rm": 1.0, "rm_reference": 0.0},
            tags={"method": evil},
        )
        for evil in EVIL
    ]
    write_records(tmp_path / "runs" / EVIL[1] / "samples.jsonl", samples)
    page = build_report(tmp_path / "runs", tmp_path, title=EVIL[0], description=EVIL[2], draws=20).read_text()
    parsed = Page(page)
    assert parsed.tags.count("script") == 1
    sources = [value for _, name, value in parsed.attributes if name == "src"]
    assert all(value.startswith("data:image/svg+xml;base64,") for value in sources)
    assert not any(name.startswith("on") for _, name, _ in parsed.attributes)
    assert EVIL[0] in parsed.text and "{{ 7*7 }}" in parsed.text, "shown as text, unchanged"


@pytest.fixture
def bare_study(study_folder: Path, tmp_path: Path) -> Path:
    """The listing of a study of which nothing was run."""
    (tmp_path / "study").mkdir()
    shutil.copy(study_folder / "study.json", tmp_path / "study" / "study.json")
    return tmp_path / "study"


def test_missing_parts_are_named_not_hidden(bare_study: Path, tmp_path: Path) -> None:
    page = Page(build_report(bare_study, tmp_path / "empty", title="Nothing yet").read_text())
    assert page.text.count("Not run here.") >= 4 and "No sample was scored" in page.text
    assert page.attributes.count(("section", "class", "empty")) >= 5, "what is not there takes a line"
    assert "samples.html" not in [value for _, _, value in page.attributes]
    assert "0 of 55 runs finished" in page.text and "not finished" in page.text


@pytest.mark.usefixtures("few")
def test_one_run_alone_is_reported(study_folder: Path, bare_study: Path, tmp_path: Path) -> None:
    one = Path("runs", "score-sft-s-0")
    shutil.copytree(study_folder / one, bare_study / one)
    page = Page(build_report(bare_study, tmp_path / "part", title="A part", draws=20).read_text())
    assert "ROUGE and copying: not run here" in page.text
    assert "1 of 55 runs finished" in page.text
    assert "preference_gold.png" in page.text, "one size alone is drawn as well"


def test_trap_sft_posts_standing_in_for_ppo_prompts_are_noted(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "DONE").touch()
    (tmp_path / "study.json").write_text('[{"run": "d", "stage": "data", "folder": "d"}]')
    for stand_in in (True, False):
        (tmp_path / "d" / "manifest.json").write_text(json.dumps({"ppo_posts_are_sft_posts": stand_in}))
        section = training_section(StudyResults(load_runs(tmp_path), PAPER_FOLDER, draws=20))
        assert ("The prompts are the supervised posts" in section.intro) == stand_in


def test_the_reward_models_in_use_are_drawn(study_folder: Path, tmp_path: Path) -> None:
    listing = json.loads((study_folder / "study.json").read_text())
    for row in listing["runs"]:
        row["folder"] = str(study_folder / row["folder"])
        if row["run"] == "reward-s-0":
            row["variant"] = "rm1"
    (tmp_path / "study.json").write_text(json.dumps(listing))
    section = reward_section(StudyResults(load_runs(tmp_path), PAPER_FOLDER, draws=20))
    table = section.tables[0].frame
    assert set(table[table["variant"] == "rm1"]["runs"]) == {"reward-s-0"}
    smallest = section.pictures[0].figure.axes[0].containers[0].lines[0].get_ydata()[0]
    accuracies = [
        json.loads((study_folder / "runs" / f"reward-s-{seed}" / "evaluation.json").read_text())
        for seed in (0, 1)
    ]
    assert smallest == pytest.approx(sum(one["valid2_accuracy"] for one in accuracies) / 2)


def test_a_run_that_is_not_finished_lends_no_numbers(study_folder: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    shutil.copytree(study_folder, study)
    (study / "runs" / "score-ppo-s-0" / "DONE").unlink()
    (study / "runs" / "score-ppo-s-0" / "FAILED").touch()
    runs = load_runs(study)
    assert [run.run for run in runs.runs if run.state == "failed"] == ["score-ppo-s-0"]
    samples = study_samples(runs)
    assert samples is not None and "score-ppo-s-0" not in set(samples["run"])


def test_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        load_runs(tmp_path / "nowhere")
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(RecordError, match=r"study\.json: broken JSON"):
        load_runs(tmp_path)
    (tmp_path / "study.json").write_text('[{"run": "a"}]')
    with pytest.raises(RecordError, match="a run without its fields"):
        load_runs(tmp_path)
    (tmp_path / "study.json").write_text('[{"run": "a", "stage": "ppo", "folder": "a"}]')
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "DONE").touch()
    (tmp_path / "a" / "metrics.jsonl").write_text('{"episodes": 1}\n{"epi')
    (tmp_path / "a" / "evaluation.json").write_text('{"valid2_accuracy": 0.5}')
    run = load_runs(tmp_path).runs[0]
    with pytest.raises(RecordError, match=r"a/evaluation\.json: valid2_pairs is None"):
        accuracy_results([(run, run.json("evaluation.json") or {})])
    with pytest.raises(RecordError, match=r"metrics\.jsonl:2"):
        training_metrics(load_runs(tmp_path).finished("ppo"))


def test_posts_come_from_the_data_run(study_folder: Path) -> None:
    posts = study_posts(load_runs(study_folder))
    assert posts is not None and len(posts) == 40
