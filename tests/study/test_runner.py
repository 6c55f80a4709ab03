"""The runner with fake stages in real processes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.study import fake_stages
from tests.study.conftest import Lab
from tldr.errors import DiskFullError, LabError
from tldr.records import write_json
from tldr.settings.models import ModelSpec
from tldr.study import runner as runners
from tldr.study.folder import RunFile, execute, locked
from tldr.study.graph import expand
from tldr.study.load import load_study
from tldr.study.model_size import scale
from tldr.study.prepare import describe, write_run
from tldr.study.runner import critical_paths, default_jobs, fitting_jobs
from tldr.study.runs import Run


def wait_for(condition: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def test_runs_in_order_and_once(lab: Lab) -> None:
    assert lab.run() == 0
    events = lab.events()
    starts = [line.split()[1] for line in events if line.startswith("start")]
    assert sorted(starts) == sorted(
        ["data", "pretrain-s-s0", "pretrain-m-s0", "sft-s-s0", "sft-m-s0", "labels-s0"]
    )
    for parent, child in (
        ("data", "pretrain-m-s0"),
        ("pretrain-m-s0", "sft-m-s0"),
        ("sft-s-s0", "labels-s0"),
    ):
        assert events.index(f"end {parent}") < events.index(f"start {child} 0")
    assert 'labels-s0 seed 0 {"data"' in (lab.folder("labels-s0") / "out.txt").read_text()
    assert "done      labels-s0" in lab.screen.getvalue()
    assert {row.state for title, row in lab.states().items() if title in starts} == {"done"}

    assert lab.run() == 0
    assert lab.events() == events, "what is done is not done again"
    assert "6 of 6 runs are already done" in lab.screen.getvalue()


def test_a_package_that_a_later_run_needs_is_asked_for_before_the_first(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(LabError, match=r"sft\.lora: needs the package peft.*\n.*tldr-feedback\[lora\]"):
        lab.run("sft.lora.rank=8")
    assert not lab.events()
    assert lab.run("reward.lora.rank=8") == 0, "no reward model is made here"


def test_two_at_once_the_longest_way_first(lab: Lab) -> None:
    lab.behave(**{"pretrain-s-s0": "hold", "pretrain-m-s0": "hold"})
    runner = lab.runner(only="pretrain", jobs=2)

    def release() -> None:
        wait_for(lambda: sum(line.startswith("start pretrain") for line in lab.events()) == 2)
        (lab.root / "go").touch()

    helper = threading.Thread(target=release)
    helper.start()
    assert runner.run() == 0
    helper.join()
    urgency = {name.rsplit("-", 1)[0]: value for name, value in runner._urgency.items()}
    assert urgency["data"] > urgency["pretrain-m-s0"] > urgency["pretrain-s-s0"]


def test_one_job_takes_the_big_model_first(lab: Lab) -> None:
    lab.make(only="data")
    assert lab.run(only="pretrain", jobs=1) == 0
    starts = [line.split()[1] for line in lab.events() if line.startswith("start")]
    assert starts == ["data", "pretrain-m-s0", "pretrain-s-s0"]


def test_critical_paths_add_up(lab: Lab) -> None:
    """By hand: weight x layers x d_model^2, s = 256, m = 2048; SFT of m, then the labels of both."""
    runner = lab.runner(only="labels")
    paths = {run.title: critical_paths(runner.runs)[run.name] for run in runner.runs}
    assert paths["labels-s0"] == 2 * (256 + 2048)
    assert paths["sft-m-s0"] == 1 * 2048 + 4608
    assert paths["pretrain-s-s0"] == 4 * 256 + 1 * 256 + 4608
    assert paths["data"] == 2304 + 4 * 2048 + 2048 + 4608


def test_a_failure_stops_its_dependants_only(lab: Lab) -> None:
    lab.behave(**{"pretrain-s-s0": "fail"})
    assert lab.run() == 1
    done = {line.split()[1] for line in lab.events() if line.startswith("end")}
    assert done == {"data", "pretrain-m-s0", "sft-m-s0"}
    screen = lab.screen.getvalue()
    assert "here: no luck" in screen and "log.txt" in screen
    assert "not run  labels-s0" in screen and "not run  sft-s-s0" in screen
    states = lab.states()
    assert states["pretrain-s-s0"].state == "failed" and "no luck" in states["pretrain-s-s0"].why
    assert states["labels-s0"].state == "waiting"

    lab.behave()
    assert lab.run(only="pretrain") == 0, "a failed run is tried again"


@pytest.mark.parametrize(("how", "told"), [("crash", "ZeroDivisionError"), ("empty", "wrote nothing")])
def test_a_fault_is_told_with_its_log(lab: Lab, how: str, told: str) -> None:
    lab.behave(data=how)
    assert lab.run(only="data") == 1
    assert told in lab.screen.getvalue()
    assert told in (lab.folder("data") / "log.txt").read_text()


def test_a_process_that_cannot_start_is_told(lab: Lab) -> None:
    runner = lab.runner(only="data")
    runner.command = [sys.executable, "-S", "-c", "raise SystemExit('no such thing')"]
    assert runner.run() == 1
    assert "ended with code 1: no such thing" in lab.screen.getvalue()


def test_a_killed_run_goes_on_where_it_was(lab: Lab) -> None:
    lab.behave(**{"data": "die"})
    assert lab.run(only="data") == 1
    assert "ended with code -9" in lab.screen.getvalue()
    assert lab.states()["data"].why == "interrupted, will resume"
    assert lab.states()["data"].progress == 0.5
    assert lab.run(only="data") == 0
    assert lab.events() == ["start data 0", "start data 2", "end data"]


def test_ctrl_c_lets_the_runs_end_and_the_next_runner_go_on(lab: Lab) -> None:
    lab.behave(data="hold")
    runner = lab.runner(only="data")

    def interrupt() -> None:
        wait_for(lab.events)
        os.kill(os.getpid(), signal.SIGTERM)

    helper = threading.Thread(target=interrupt)
    helper.start()
    with pytest.raises(KeyboardInterrupt):
        runner.run()
    helper.join()
    assert [job.process.returncode for job in runner._active] == [143]
    assert lab.states()["data"].state == "waiting"
    (lab.root / "go").touch()
    assert lab.run(only="data") == 0


def test_two_runners_share_a_run(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that another process holds is waited for, and not done twice."""
    monkeypatch.setattr(runners, "RETRY", 0.1)
    lab.behave(data="hold")
    study, runs = lab.load()
    folder = write_run(runs[0], study, lab.root)
    other = subprocess.Popen([sys.executable, str(Path(__file__).with_name("fake_stages.py")), str(folder)])
    wait_for(lab.events)
    assert lab.states()["data"].state == "running"

    def release() -> None:
        try:
            wait_for(lambda: "another runner is executing it" in lab.screen.getvalue())
        finally:
            (lab.root / "go").touch()

    runner = lab.runner(only="data")
    helper = threading.Thread(target=release)
    helper.start()
    assert runner.run() == 0
    helper.join()
    assert other.wait(60) == 0
    assert lab.events() == ["start data 0", "end data"]
    assert "another runner is executing it" in lab.screen.getvalue()


def test_a_changed_output_is_not_built_upon(lab: Lab) -> None:
    """The run is made again, what was changed is kept aside, and what is built stands on the new outputs."""
    lab.make(only="data")
    folder = lab.folder("data")
    made = (folder / "out.txt").read_text()
    (folder / "out.txt").write_text("edited by hand")
    assert lab.run(only="sft") == 0
    assert "out.txt changed since it was done; set aside as" in lab.screen.getvalue().replace("\n", "")
    assert (lab.root / "set-aside" / f"{folder.name}.1" / "out.txt").read_text() == "edited by hand"
    assert (folder / "out.txt").read_text() == made
    assert "edited by hand" not in (lab.folder("pretrain-s-s0") / "out.txt").read_text()


def test_the_best_reward_model_is_taken(lab: Lab) -> None:
    study, runs = lab.load("reward.seeds=2")
    by_title = {run.title: run for run in runs}
    for title, valid1, valid2 in (("reward-s-s0", 0.7, 0.99), ("reward-s-s0-rm1", 0.9, 0.5)):
        folder = lab.root / by_title[title].name
        folder.mkdir(parents=True)
        evaluation = {"valid1_accuracy": valid1, "valid2_accuracy": valid2}  # only valid1 may choose
        (folder / "evaluation.json").write_text(json.dumps(evaluation))
    spec = RunFile.read(write_run(by_title["ppo-s-s0"], study, lab.root))
    assert spec.parents["reward"].run == by_title["reward-s-s0-rm1"].name
    (lab.root / by_title["reward-s-s0"].name / "evaluation.json").write_text("{}")
    with pytest.raises(LabError, match="valid1_accuracy"):
        write_run(by_title["ppo-s-s0"], study, lab.root)


def test_a_run_begun_from_other_parents_is_not_gone_on_with(lab: Lab) -> None:
    lab.make(only="data")
    study, runs = lab.load()
    child = next(run for run in runs if run.title == "pretrain-s-s0")
    folder = write_run(child, study, lab.root)
    (folder / "state").mkdir()
    assert lab.states()["pretrain-s-s0"].state == "waiting"
    (lab.folder("data") / "out.txt").write_text("other")
    fake_stages.write_done(lab.folder("data"), ["out.txt"])
    status = lab.states()["pretrain-s-s0"]
    assert status.state == "stale" and status.why.startswith("its data was run again with other outputs")
    assert lab.run(only="pretrain") == 0
    assert (lab.root / "set-aside" / f"{folder.name}.1" / "state").is_dir()
    assert "start pretrain-s-s0 0" in lab.events() and lab.states()["pretrain-s-s0"].state == "done"


def test_run_json_draws_anew_for_further_models(lab: Lab) -> None:
    study, runs = lab.load("reward.seeds=2", "seeds=[4]")
    by_title = {run.title: run for run in runs}
    specs = [
        RunFile.read(write_run(by_title[name], study, lab.root))
        for name in ("reward-s-s4", "reward-s-s4-rm1")
    ]
    assert [spec.seed for spec in specs] == [4, 4]
    assert [spec.draw for spec in specs] == [4, 1004]


def test_memory_and_waiting_of_a_run(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    env = lab.runner(jobs=4)._environment(0)
    assert env["MALLOC_TRIM_THRESHOLD_"] == "4294967296" and env["MALLOC_TOP_PAD_"] == "268435456"
    assert env["MALLOC_MMAP_THRESHOLD_"] == "1073741824"
    assert env["OMP_WAIT_POLICY"] == "PASSIVE", "a waiting thread that spins slows the other runs"
    monkeypatch.setenv("MALLOC_TOP_PAD_", "7")
    assert lab.runner(jobs=12)._environment(0)["MALLOC_TOP_PAD_"] == "7"


@pytest.mark.parametrize("jobs", [1, 2, 64])
def test_trap_the_number_of_jobs_changes_no_bits(lab: Lab, jobs: int) -> None:
    """It set the threads of a run, hence its last bits, and stood in no key."""
    runner = lab.runner("threads=3", jobs=jobs)
    assert not {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & set(runner._environment(0))
    study, runs = lab.load("threads=3")
    assert [describe(run, study, lab.root).threads for run in runs if run.stage == "data"] == [3]
    assert {run.name for run in runs}.isdisjoint(run.name for run in lab.load("threads=2")[1])


@pytest.mark.parametrize(
    ("cores", "devices", "threads", "jobs"),
    [
        (1, "", 1, 1),
        (2, "", 1, 2),
        (2, "", 2, 1),
        (2, "", 4, 1),
        (8, "", 1, 2),
        (64, "", 1, 64),
        (64, "", 3, 21),
        (64, "0", 1, 1),
        (64, "2,3", 1, 2),
        (1, "2,3", 1, 2),
    ],
)
def test_default_jobs(
    monkeypatch: pytest.MonkeyPatch, cores: int, devices: str, threads: int, jobs: int
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    monkeypatch.setattr(runners, "cores", lambda: cores)
    assert default_jobs(threads) == jobs


@pytest.mark.parametrize(("wanted", "threads", "jobs"), [(8, 1, 4), (3, 1, 3), (3, 2, 2), (1, 9, 1)])
def test_no_core_has_more_than_one_thread(
    monkeypatch: pytest.MonkeyPatch, wanted: int, threads: int, jobs: int
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(runners, "cores", lambda: 4)
    assert fitting_jobs(wanted, threads) == jobs


def test_every_run_has_a_gpu_of_its_own(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    runner = lab.runner(jobs=2)
    assert [runner._environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in (0, 1)] == ["4", "7"]
    assert "CUDA_VISIBLE_DEVICES" not in lab.runner(jobs=1)._environment(0), "one run has them all"


def test_a_held_folder_is_no_error_for_others(lab: Lab) -> None:
    study, runs = lab.load()
    folder = write_run(runs[0], study, lab.root)
    with locked(folder):
        assert lab.states()["data"].state == "running"
    assert lab.states()["data"].state == "waiting"


def test_a_full_disk_is_told_by_the_runner_and_stops_the_other_runs_in_order(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "run.json")

    monkeypatch.setattr(runners, "write_run", full)
    runner = lab.runner(only="data")
    assert runner.run() == 1
    assert "the disk is full" in lab.screen.getvalue() and "free disk space" in lab.screen.getvalue()
    assert "Traceback" not in lab.screen.getvalue()


def test_a_full_disk_is_told_though_the_run_could_not_note_it(lab: Lab) -> None:
    runner = lab.runner(only="data")
    runner.command = (sys.executable, "-c", f"import sys; sys.exit({DiskFullError.exit_code})")
    assert runner.run() == 1
    (reason,) = runner.failed.values()
    assert reason.startswith("the disk is full: free space and run again")


def test_an_error_of_the_runner_itself_ends_its_runs(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = lab.runner(only="data")
    runner.command = (sys.executable, "-c", "import time; time.sleep(600)")

    def refresh(*_: object) -> None:
        raise ZeroDivisionError("a fault of the display")

    monkeypatch.setattr(runner.display, "refresh", refresh)
    with pytest.raises(ZeroDivisionError):
        runner.run()
    assert [job.process.returncode for job in runner._active] == [-signal.SIGTERM]


def test_the_longest_first_knows_the_size_of_models_given_by_path(lab: Lab, tmp_path: Path) -> None:
    shapes = {"big": {"num_hidden_layers": 24, "hidden_size": 1024}, "wide": {"n_layer": 12, "n_embd": 768}}
    for name, shape in shapes.items():
        write_json(tmp_path / name / "config.json", shape)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "model.safetensors").write_bytes(bytes(12 * 4 * 1000))
    specs = {name: ModelSpec(path=str(tmp_path / name)) for name in (*shapes, "bare")}
    sizes = {name: scale(spec) for name, spec in specs.items()}
    assert sizes == {"big": 24 * 1024**2, "wide": 12 * 768**2, "bare": 1000}
    assert scale(ModelSpec(path="org/unknown")) == scale(ModelSpec())
    paths = ", ".join(f"{name}: {{path: {tmp_path / name}}}" for name in ("wide", "big"))
    (tmp_path / "paths.yaml").write_text(f"name: paths\ndata: {{kind: toy}}\nladder: {{{paths}}}\n")
    runs = expand(load_study(tmp_path / "paths.yaml"), lab.files)
    urgency = {run.title: critical_paths(runs)[run.name] for run in runs}
    assert urgency["sft-big-s0"] > urgency["sft-wide-s0"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_children_are_not_accepted_before_their_remade_parents(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    """``rm -rf sft-*``, and these come out with other bytes: what was made from them is made again too."""

    def at_once(_: object, run: Run, folder: Path, slot: int) -> SimpleNamespace:
        order.append(run.title)
        execute(folder)
        return SimpleNamespace(returncode=0, poll=lambda: 0)

    order: list[str] = []
    monkeypatch.setattr(runners.Runner, "_spawn", at_once)
    lab.make(only="labels")
    labels = lab.folder("labels-s0")
    for size in "sm":
        shutil.rmtree(lab.folder(f"sft-{size}-s0"))
        (lab.folder(f"pretrain-{size}-s0") / "out.txt").write_text("other bytes")
        digest = hashlib.sha256(b"other bytes").hexdigest()
        write_json(lab.folder(f"pretrain-{size}-s0") / "DONE", {"outputs": {"out.txt": digest}})
    assert lab.states()["labels-s0"].state == "waiting"
    assert lab.run(only="labels", jobs=jobs) == 0
    assert sorted(order[:2]) == ["sft-m-s0", "sft-s-s0"] and order[2:] == ["labels-s0"]
    assert "other bytes" in (labels / "out.txt").read_text()
    assert lab.run(only="labels", jobs=jobs) == 0 and len(order) == 3
