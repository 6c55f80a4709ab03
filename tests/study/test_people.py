"""Labels by people in a study: it waits, goes on, and loses nothing. Stages are fake, labels are not."""

from __future__ import annotations

import json
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.study.conftest import FAKE, Lab
from tests.study.test_adopt import age
from tests.study.test_runner import wait_for
from tldr.cli.label import label_folder, open_project
from tldr.cli.main import app
from tldr.errors import LabError, UsageError, Waiting
from tldr.inputs.posts import load_comparisons
from tldr.label.answers import ComparisonAnswer, agreement
from tldr.label.batch import LABELING, Wanted, counting, progress_of, read_given, take
from tldr.label.database import sole_server
from tldr.label.desk import Sent
from tldr.label.items import read_items
from tldr.label.labelers import Labeler
from tldr.label.project import ITEMS, Project
from tldr.label.robots import robot_answer, robot_labels
from tldr.plan.labeling import labeling_plans
from tldr.records import Comparison, Extra, Ranking, read_records, write_json, write_records
from tldr.study import runner as runners
from tldr.study import submit
from tldr.study.adopt import Adoption, adopt
from tldr.study.folder import execute
from tldr.study.load import load_study
from tldr.study.prepare import write_run
from tldr.study.runs import needed_for
from tldr.study.slurm import Resources
from tldr.study.status import removable
from tldr.toy import labelers, world

PEOPLE = """
name: tiny
data: {kind: toy, corpus: 10}
lengths: {query: 32, response: 16, rm_response: 24}
ladder: {s: {d_model: 16, layers: 1, heads: 2, context: 64}}
pretrain: {steps: 3}
ppo: {batch: 8, episodes: 16}
labels:
  kind: people
  pairs: 8
  valid_pairs: 4
  spare: 0.25
  page: {shared: 0.0, calibration: 0.0}
rounds: [{labels: {pairs: 4}}]
"""
FIRST, LAST = "labels-s0-r1", "labels-s0"
ONE_ROUND = "rounds=[]"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(PEOPLE)
    return path


def run_of(lab: Lab, title: str, *overrides: str) -> Path:
    """The folder that a run of the study has, made or not."""
    (run,) = (run for run in lab.load(*overrides)[1] if run.title == title)
    return lab.root / run.name


def labeling(lab: Lab, title: str, *overrides: str) -> Path:
    return lab.root / LABELING / run_of(lab, title, *overrides).name


class People:
    """Simulated labelers of a labeling folder."""

    def __init__(self, folder: Path, count: int = 2):
        self.project = open_project(folder, [], folder)
        names = {person.name for person in self.project.labelers.all()}
        for number in range(count):
            if f"robot {number}" not in names:
                self.project.labelers.add(f"robot {number}", 0.0)

    def of(self, number: int) -> Labeler:
        return next(who for who in self.project.labelers.all() if who.name == f"robot {number}")

    def answer(self, most: int, number: int = 0) -> int:
        return robot_labels(self.project.desk, self.of(number), labelers.WORKERS[number], most)


class InThisProcess:
    """Executes a run like `tldr.study.nursery.Nursery`, but here."""

    def __init__(self, returncode: int = 0) -> None:
        self.returncode = returncode

    def start(self, folder: Path, env: object) -> InThisProcess:
        try:
            execute(folder)
        except LabError as error:
            return InThisProcess(error.exit_code)
        return InThisProcess()

    def poll(self) -> int:
        return self.returncode


def label(folder: Path, most: int = 1000, number: int = 0) -> int:
    people = People(folder)
    done = people.answer(most, number)
    people.project.database.close()
    return done


def without_times(row: Ranking) -> str:
    return row.model_copy(update={"extra": Extra()}).to_json()


def ask(lab: Lab, title: str = LAST, *overrides: str) -> Path:
    """Execute everything up to a labels run that asks people, in this process; its labeling folder."""
    study, runs = lab.load(ONE_ROUND, *overrides)
    for run in needed_for(runs, "labels"):
        if not (lab.root / run.name / "DONE").exists():
            folder = write_run(run, study, lab.root)
            if run.title == title:
                with pytest.raises(Waiting):
                    execute(folder)
            else:
                execute(folder)
    return labeling(lab, title, ONE_ROUND, *overrides)


def again(lab: Lab, *overrides: str) -> Path:
    """Execute the labels run once more; its folder."""
    study, runs = lab.load(ONE_ROUND, *overrides)
    run = next(run for run in runs if run.title == LAST)
    folder = write_run(run, study, lab.root)
    execute(folder)
    return folder


def study_run(lab: Lab, *overrides: str, only: str = "labels") -> int:
    """`Lab.run`, but each run is executed in this process, which takes no time to start."""
    runner = lab.runner(*overrides, only=only, jobs=1)
    runner.command = ()
    runner._nursery = InThisProcess()  # type: ignore[assignment]
    return runner.run()


def test_a_study_of_two_rounds_from_the_first_question_to_the_end(lab: Lab) -> None:
    assert study_run(lab, only="ppo") == 77
    done = {line.split()[1] for line in lab.events() if line.startswith("end")}
    assert done == {"data", "pretrain-s-s0", "sft-s-s0"}
    screen = lab.screen.getvalue()
    place = labeling(lab, FIRST)
    line = "waiting for labels: 0 of 8; no two people have answered one item yet"
    line += f"; next: tldr-lab label serve {place}"
    assert f"waiting  {place.name}: {line}" in screen
    for title in ("reward-s-s0-r1", "ppo-s-s0-r1", LAST, "reward-s-s0", "ppo-s-s0"):
        assert f"not run  {run_of(lab, title).name}: it needs labels by people ({place.name})" in screen
    assert lab.states()[FIRST].why == line and lab.states()[FIRST].state == "waiting"

    assert label(place, 3) == 3
    assert lab.states()[FIRST].why.startswith("waiting for labels: 3 of 8;")
    assert study_run(lab, only="ppo") == 77
    assert "waiting for labels: 3 of 8;" in lab.screen.getvalue()
    assert label_folder(lab.config, lab.root.parent) == place

    label(place)
    assert lab.states()[FIRST].why == "there are enough labels: 8 of 8; next: run the study"
    assert study_run(lab, only="ppo") == 77
    assert "end ppo-s-s0-r1" in lab.events() and "end reward-s-s0" not in lab.events()
    later = labeling(lab, LAST)
    assert f"waiting  {later.name}: waiting for labels: 0 of 12" in lab.screen.getvalue()
    assert label_folder(lab.config, lab.root.parent) == later
    policies = {summary.policy for item in read_items(later / ITEMS) for summary in item.summaries}
    assert {item.batch for item in read_items(later / ITEMS)} == {"3 policies"} and len(policies) == 2

    label(later)
    assert study_run(lab, only="ppo") == 0
    assert lab.events()[-1] == "end ppo-s-s0"
    assert study_run(lab, only="ppo") == 0
    assert label_folder(lab.config, lab.root.parent) == later, "the last one, when none waits"
    assert not {status.state for status in lab.states().values()} - {"done", "waiting"}


def test_the_labels_are_those_that_the_same_answers_give_when_written_directly(lab: Lab) -> None:
    place = ask(lab, LAST, "labels.page.labelers_per_item=2", "labels.k=[3,3]")
    items = read_items(place / ITEMS)
    label(place, number=1)  # in another order than the files'
    label(place, number=0)
    folder = again(lab, "labels.page.labelers_per_item=2", "labels.k=[3,3]")
    for split, count in (("train", 8), ("valid1", 2), ("valid2", 2)):
        rows = load_comparisons(folder / f"{split}.jsonl")
        direct = [
            Ranking(
                info=item.info,
                summaries=item.summaries,
                rank=robot_answer(item, labelers.WORKERS[number]).model_dump()["rank"],
                worker=f"worker-{number:02d}",
                batch=item.batch,
                split=split,  # type: ignore[arg-type]
            )
            for item in [item for item in items if item.split == split][:count]
            for number in (0, 1)
        ]
        assert sorted(map(without_times, rows)) == sorted(map(without_times, direct))
        assert [row.info.id for row in rows] == [row.info.id for row in direct], "in the order of the items"
        assert all(row.extra.model_dump()["seconds"] >= 0 for row in rows)
    report = json.loads((folder / "agreement.json").read_text())
    assert report["rankings"] == {"train": 16, "valid1": 4, "valid2": 4}
    # all items have two labels, also the spare ones
    both = [[robot_answer(item, labelers.WORKERS[number]) for number in (0, 1)] for item in items]
    compared = [agreement(*pair) for pair in both if agreement(*pair)[1]]
    assert report["pairs"] == len(compared) >= 12
    assert report["agreement"] == pytest.approx(sum(same / of for same, of in compared) / len(compared))
    assert report["interval"][0] < report["agreement"] < report["interval"][1]
    assert len(list((folder / "given").iterdir())) == 1


def test_a_label_that_comes_late_changes_nothing_even_if_the_run_is_made_again(
    lab: Lab, same_code: dict[str, str]
) -> None:
    place = ask(lab)
    people = People(place)
    items = read_items(place / ITEMS)
    shown = people.project.desk.next(people.of(0))
    assert shown is not None and shown.item == items[0]
    people.project.desk.skip(people.of(0), Sent(shown.ticket, "skip-0001"), "cannot-tell")
    while not progress_of(
        counting(read_given(place)), Wanted({"train": 8, "valid1": 2, "valid2": 2}, 1)
    ).enough:
        assert people.answer(1) == 1
    folder = again(lab)
    names = ("train.jsonl", "valid1.jsonl", "valid2.jsonl", "agreement.json", "DONE")
    before = [(folder / name).read_bytes() for name in names]
    assert items[0].info.id not in {row.info.id for row in load_comparisons(folder / "train.jsonl")}
    # another answers what the first had skipped, and all else
    assert people.answer(1000, number=1) >= 1
    assert {label.item.id for label in counting(read_given(place))} >= {items[0].id}
    assert lab.states(ONE_ROUND)[LAST].state == "done"
    module = "tldr.stages.labels.people"
    same_code[module] = "edited"
    assert "the code changed" in lab.stale(ONE_ROUND)[LAST]
    assert study_run(lab, ONE_ROUND, only="labels") == 0
    assert "set aside" in lab.screen.getvalue()
    assert [(folder / name).read_bytes() for name in names] == before
    people.project.database.close()


def test_a_stale_run_asks_nothing_again(lab: Lab, same_code: dict[str, str]) -> None:
    place = ask(lab)
    assert label(place, 5) == 5
    same_code["tldr.stages.labels.people"] = "edited"
    assert study_run(lab, ONE_ROUND) == 77
    assert "set aside" in lab.screen.getvalue() and "waiting for labels: 5 of 12" in lab.screen.getvalue()
    _, runs = lab.load(ONE_ROUND)
    everything = removable(runs, lab.root, lab.files, everything=True)
    cleaned = CliRunner().invoke(
        app, ["study", "clean", str(lab.config), "--set", ONE_ROUND, "--all", "--runs", str(lab.root.parent)]
    )
    assert "kept  labeling: what people have labeled" in cleaned.stderr
    assert len(everything) >= 5 and not [path for path in everything if LABELING in path.parts]
    label(place)
    assert study_run(lab, ONE_ROUND) == 0


def test_changed_items_are_refused_if_people_have_labeled_and_replaced_if_not(
    lab: Lab, same_code: dict[str, str]
) -> None:
    place = ask(lab)
    first = (place / ITEMS).read_bytes()
    lab.behave(**{LAST: "other"})
    same_code["tldr.stages.labels.people"] = "edited"
    assert study_run(lab, ONE_ROUND) == 77, "nobody has labeled: the new items take the place of the old ones"
    second = (place / ITEMS).read_bytes()
    assert second != first
    assert label(place, 1) == 1
    lab.behave()
    same_code["tldr.stages.labels.people"] = "edited again"
    assert study_run(lab, ONE_ROUND) == 1
    assert "people have labeled other items than this run makes now" in lab.screen.getvalue()
    assert (place / ITEMS).read_bytes() == second and len(read_given(place)) == 1


def test_dropped_and_held_out_labelers_do_not_count(lab: Lab) -> None:
    place = ask(lab)
    people = People(place)
    people.project.labelers.add("held", 0.0, held_out=True)
    held = next(who for who in people.project.labelers.all() if who.held_out)
    assert robot_labels(people.project.desk, held, labelers.WORKERS[3], 1000) == 16
    assert lab.states(ONE_ROUND)[LAST].why.startswith("waiting for labels: 0 of 12;")
    assert people.answer(12, number=0) == 12, "what held-out labelers have answered is open to others"
    assert lab.states(ONE_ROUND)[LAST].why.startswith("there are enough")
    people.project.labelers.set_status(people.of(0).worker, "dropped")
    with pytest.raises(Waiting, match="0 of 12"):
        again(lab)
    assert people.answer(1000, number=1) == 16
    folder = again(lab)
    rows = load_comparisons(folder / "train.jsonl")
    assert len(rows) == 8 and {row.worker for row in rows} == {people.of(1).worker}
    people.project.database.close()


def test_the_runner_stays_until_people_have_labeled(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "ASK_AGAIN", 0.05)
    runner = lab.runner(ONE_ROUND, only="labels")
    runner.wait = True
    place = labeling(lab, LAST, ONE_ROUND)

    def answer() -> None:
        try:
            wait_for(lambda: "waiting for labels: 0 of 12" in lab.screen.getvalue())
            label(place, 7)
            wait_for(lambda: "waiting for labels: 7 of 12" in lab.screen.getvalue())
            label(place)
        except BaseException:
            if not ended.is_set():
                signal.raise_signal(signal.SIGTERM)  # else the runner would stay for ever
            raise

    ended = threading.Event()
    helper = threading.Thread(target=answer)
    helper.start()
    try:
        assert runner.run() == 0
    finally:
        ended.set()
        helper.join()
    starts = [line for line in lab.events() if line.startswith(f"start {LAST} ")]
    assert len(starts) == 2, "once to ask, and once to take the labels"


def test_a_failure_outweighs_waiting(lab: Lab) -> None:
    lab.behave(**{"pretrain-s-s1": "fail"})
    assert study_run(lab, ONE_ROUND, "seeds=[0,1]") == 1
    screen = lab.screen.getvalue()
    assert "waiting for labels: 0 of 12" in screen
    other = run_of(lab, "labels-s1", ONE_ROUND, "seeds=[0,1]").name
    assert f"not run  {other}: it needs a run that failed" in screen


def test_jobs_behind_people_are_not_submitted(lab: Lab) -> None:
    def todo() -> tuple[list[str], list[str]]:
        study, runs = lab.load(ONE_ROUND)
        made = submit.Submission(study, needed_for(runs, "ppo"), lab.root, lab.files, Resources())
        said: list[str] = []
        return [run.title for run in submit.unfinished(made, {}, said.append)], said

    found, said = todo()
    assert found == ["data", "pretrain-s-s0", "sft-s-s0", LAST]
    name = run_of(lab, LAST, ONE_ROUND).name
    assert [line.partition(": ")[2] for line in said] == [
        f"it needs {name}",
        f"it needs {run_of(lab, 'reward-s-s0', ONE_ROUND).name}",
    ]
    place = ask(lab)
    found, said = todo()
    assert not found and said[0].startswith(f"not submitted  {name}: waiting for labels: 0 of 12;")
    label(place)
    assert todo()[0] == [LAST, "reward-s-s0", "ppo-s-s0"]


def test_a_job_that_waits_says_so_and_ends_with_its_own_code(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(lab)
    study, runs = lab.load(ONE_ROUND)
    made = submit.Submission(study, needed_for(runs, "ppo"), lab.root, lab.files, Resources(), program=FAKE)
    run = next(run for run in runs if run.title == LAST)
    job, path = made.job([run], LAST)
    write_json(path, job.model_dump(mode="json"))
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    ended = CliRunner().invoke(app, ["_job", str(path)])
    behind = ", ".join(run_of(lab, title, ONE_ROUND).name for title in ("reward-s-s0", "ppo-s-s0"))
    assert ended.exit_code == 77 and "error" not in ended.output
    assert f"{run.name}: waiting for labels: 0 of 12;" in ended.stdout
    assert f"not started before: {behind}" in ended.stdout
    assert "then submit the study again" in ended.stdout


def test_a_status_that_cannot_open_the_labels_tells_the_last_known(lab: Lab) -> None:
    place = ask(lab)
    (place / "labels.sqlite").write_bytes(b"this is no database, " * 100)
    assert lab.states(ONE_ROUND)[LAST].why.startswith("waiting for labels: 0 of 12; no two people")
    with pytest.raises(LabError, match="cannot be used"):
        again(lab)


def test_what_only_shows_keeps_the_labels_and_what_counts_asks_anew(lab: Lab) -> None:
    name = run_of(lab, LAST).name
    for change in ("page.title=Mine", "page.naive_first=true", "page.lease_seconds=60", "page.shared=0.5"):
        assert run_of(lab, LAST, f"labels.{change}").name == name
    for change in ("page.labelers_per_item=2", "pairs=9", "control=0.2", "further_temperatures=[1.0]"):
        assert run_of(lab, LAST, f"labels.{change}").name != name


def test_instructions_of_the_study_reach_the_page(lab: Lab, tmp_path: Path) -> None:
    text = tmp_path / "mine.txt"
    change = f"labels.page.instructions={text}"
    with pytest.raises(UsageError, match="not a text file"):
        ask(lab, LAST, change)
    text.write_text("Read twice.")
    place = ask(lab, LAST, change)
    project = open_project(place, [], tmp_path)
    assert project.instructions == "Read twice." and project.settings.shared == 0.0
    project.database.close()


def test_the_owners_own_training_items_stay(lab: Lab, same_code: dict[str, str]) -> None:
    place = ask(lab)
    item = read_items(place / ITEMS)[0]
    extra = item.model_copy(
        update={"id": "mine", "role": "training", "known": {"confidence": 1}, "explanation": "so"}
    )
    with (place / ITEMS).open("a") as file:
        file.write(extra.to_json() + "\n")
    label(place)
    assert "mine" in {label.item.id for label in read_given(place)}
    assert len(load_comparisons(again(lab) / "train.jsonl")) == 8


def adopted(lab: Lab, folder: Path) -> Adoption:
    study, runs = lab.load(ONE_ROUND)
    return adopt(study, needed_for(runs, "labels"), lab.root, folder, vouch=True)


def from_before(lab: Lab, folder: Path, title: str = LAST) -> Path:
    """Move all runs and what people have labeled to a folder of an older code; the labeling folder there."""
    names, place = age(lab, folder), labeling(lab, title, ONE_ROUND)
    old = folder / LABELING / names[place.name]
    old.parent.mkdir()
    return place.rename(old)


def test_an_adopted_run_keeps_what_people_have_labeled(
    lab: Lab, tmp_path: Path, same_code: dict[str, str]
) -> None:
    place = ask(lab)
    label(place)
    train = (again(lab) / "train.jsonl").read_bytes()
    before = [given.answer_id for given in read_given(place)]
    old = from_before(lab, tmp_path / "before")
    assert not place.exists()
    found = adopted(lab, tmp_path / "before")
    assert found.left == {} and found.names[old.name] == place.name
    assert [given.answer_id for given in read_given(place)] == before
    assert [given.answer_id for given in read_given(old)] == before, "the old folder stays as it is"
    same_code["tldr.stages.labels.people"] = "edited"
    assert study_run(lab, ONE_ROUND) == 0, "the run is made again from the labels that came along"
    assert (run_of(lab, LAST, ONE_ROUND) / "train.jsonl").read_bytes() == train


def test_labels_of_a_run_that_waits_come_along_and_replace_no_others(lab: Lab, tmp_path: Path) -> None:
    place = ask(lab)
    assert label(place, 5) == 5
    old = from_before(lab, tmp_path / "before")
    (tmp_path / "before" / old.name / "DONE").unlink()
    left = adopted(lab, tmp_path / "before").left
    assert left == {LAST: f"{old.name}: it waits for people; their labels so far are in {place}"}
    assert study_run(lab, ONE_ROUND) == 77
    assert "waiting for labels: 5 of 12" in lab.screen.getvalue()
    assert label(place, 1) == 1
    left = adopted(lab, tmp_path / "before").left
    assert f"people have labeled in {place}; to adopt these labels instead, move that" in left[LAST]
    assert len(read_given(place)) == 6 and len(read_given(old)) == 5


def known_file(path: Path, *numbers: int) -> Path:
    """Comparisons by a researcher about posts of the toy world."""
    rows = []
    for number in numbers:
        rng = random.Random(number)
        post = world.draw_post(rng, f"known-{number}")
        a, b = (labelers.Candidate(text, "ref") for text in ("my boat sank", "a dog ate it"))
        rows.append(labelers.compare(post, a, b, rng, worker=labelers.WORKERS[0]))
    write_records(path, rows)
    return path


def test_known_answers_are_mixed_in_and_train_nothing(lab: Lab, tmp_path: Path) -> None:
    changes = (f"labels.known={tmp_path / 'known.jsonl'}", "labels.page.calibration=0.5")
    with pytest.raises(UsageError, match=r"no such file.*labels.known|labels.known.*no such file"):
        ask(lab, LAST, *changes)
    known_file(tmp_path / "known.jsonl", 0, 1)
    place = ask(lab, LAST, *changes)
    assert place == labeling(lab, LAST, ONE_ROUND), "they do not change which batch it is"
    assert label(place, 6) == 6
    tested = {given.item.id for given in read_given(place) if given.item.role == "calibration"}
    assert len(tested) == 2, tested
    known_file(tmp_path / "known.jsonl", 1, 2)
    ask(lab, LAST, *changes)
    roles = Counter(item.role for item in read_items(place / ITEMS))
    assert roles == {"label": 16, "calibration": 3}, "another one is added; what was asked stays"
    label(place)
    folder = again(lab, *changes)
    for split, count in (("train", 8), ("valid1", 2), ("valid2", 2)):
        rows = load_comparisons(folder / f"{split}.jsonl")
        assert len(rows) == count and not any((row.info.id or "").startswith("known") for row in rows)
    assert len(read_records(folder / "given" / "calibration" / "comparisons.jsonl", Comparison)) == 3


def test_known_answers_come_to_a_page_only_while_nobody_is_served(lab: Lab, tmp_path: Path) -> None:
    place = ask(lab)
    known = known_file(tmp_path / "known.jsonl", 0)
    changes = (f"labels.known={known}", "labels.page.calibration=0.5")
    with sole_server(place), pytest.raises(UsageError, match="end `tldr-lab label serve` first"):
        again(lab, *changes)
    with pytest.raises(Waiting):
        again(lab, *changes)
    assert len(read_items(place / ITEMS)) == 17


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("labels.known=some.jsonl", "at the share page.calibration, but that is 0"),
        ("labels.writer_share=0.5", "writer_share is for simulated or given labels alone"),
        ("labels.folds=3", "folds is for simulated or given labels alone"),
        ("labels.k=[2,12]", "people rank at most 9 summaries"),
        ("labels.valid_pairs=1", "valid1 and valid2 need a label each"),
        ("labels.further_temperatures=[0.85]", "the temperature 0.85 again"),
        ("labels.page.labelers=3", "did you mean 'labelers_per_item'"),
        ("labels.kind=robots", "expected 'simulated' or 'people'"),
    ],
)
def test_settings_that_people_have_not(config: Path, change: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        load_study(config, [change])


def test_a_share_of_comparisons_needs_comparisons(config: Path) -> None:
    with pytest.raises(UsageError, match="control is a share of comparisons"):
        load_study(config, ["labels.control=0.2", "labels.k=[3,3]"])
    with pytest.raises(UsageError, match="but references is 0"):
        load_study(config, ["labels.control=0.2", "labels.references=0.0"])
    with pytest.raises(UsageError, match="control is for people's labels alone"):
        load_study(config, ["labels={kind: simulated, control: 0.2}", ONE_ROUND])


FILES = """
name: real
data: {kind: files, sft: sft.jsonl, valid1: v1.jsonl, valid2: v2.jsonl}
tokenizer: {path: org/tokenizer}
ladder: {s: {path: org/policy}}
labels: {kind: people}
rounds: [{}]
"""


def test_files_without_comparisons_are_for_people_alone(
    tmp_path: Path, refusal: Callable[[Callable[[], object]], str]
) -> None:
    path = tmp_path / "real.yaml"
    path.write_text(FILES)
    assert load_study(path).rounds[0].labels.kind == "people"
    assert "data.comparisons is missing" in refusal(
        lambda: load_study(path, ["labels.kind=simulated", "rounds=[]"])
    )
    assert "drop one of them" in refusal(lambda: load_study(path, ["data.comparisons=c.jsonl"]))
    mixed = ["rounds=[{labels: {kind: simulated}}]"]
    assert "rounds: each needs new labels" in refusal(lambda: load_study(path, mixed))
    plans = labeling_plans(load_study(path), tmp_path)
    assert [(plan.title, plan.labels, plan.basis) for plan in plans] == [
        ("labels-s0-r1", 10_000, "assumed"), ("labels-s0", 10_000, "assumed")
    ]  # fmt: skip


def test_the_plans_hours_by_hand(lab: Lab) -> None:
    def hours(*overrides: str) -> list[tuple[float, str]]:
        study = lab.load(ONE_ROUND, *overrides)[0]
        return [(plan.hours, plan.basis) for plan in labeling_plans(study, lab.root)]

    assert hours() == [(12 * 60 / 3600, "assumed")]
    assert hours("labels.k=[4,4]", "labels.page.labelers_per_item=3") == [(36 * 120 / 3600, "assumed")]
    place = ask(lab)
    project: Project = open_project(place, [], lab.root)
    project.labelers.add("Ann", 0.0)
    with project.database.writing() as sql:
        for number, seconds in enumerate((20.0, 90.0, 30.0)):
            item = read_items(place / ITEMS)[number].id
            answer = ComparisonAnswer(confidence=2).model_dump_json()
            sql.execute(
                "INSERT INTO labels(item, labeler, answer_id, ticket, shown, answer, seconds, idle, at)"
                " VALUES(?, 1, ?, '', '[0, 1]', ?, ?, 0, 0)",
                (item, f"answer-{number}", answer, seconds),
            )
    project.database.close()
    assert hours() == [(12 * 30 / 3600, "median of 3 answers")]
    result = CliRunner().invoke(
        app, ["plan", str(lab.config), "--set", ONE_ROUND, "--only", "labels", "--runs", str(lab.root.parent)]
    )
    assert result.exit_code == 0 and "0.1 hours of labeling" in result.stdout
    assert not labeling_plans(lab.load(ONE_ROUND, "labels={kind: simulated}")[0], lab.root)


def test_taking_depends_on_no_time_and_spreads_over_the_labelers(lab: Lab) -> None:
    place = ask(lab, LAST, "labels.pairs=40", "labels.page.shared=1.0")
    for number in (1, 0):
        label(place, number=number)
    labels = counting(read_given(place))
    taken = take(labels, Wanted({"train": 40, "valid1": 2, "valid2": 2}, 1), seed=0)
    assert [len(rows) for rows in taken.values()] == [40, 2, 2]
    workers = [row.labeler.worker for row in taken["train"]]
    assert 8 <= workers.count("worker-00") <= 32
    order = {item.id: place for place, item in enumerate(read_items(place / ITEMS))}
    by_time = sorted(labels, key=lambda label: (order[label.item.id], label.at))
    assert by_time != labels
    assert take(by_time, Wanted({"train": 40, "valid1": 2, "valid2": 2}, 1), seed=0) == taken


def test_a_study_that_asks_nobody_yet(lab: Lab) -> None:
    with pytest.raises(UsageError, match="has not asked people yet"):
        label_folder(lab.config, lab.root.parent)
