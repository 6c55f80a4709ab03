"""States of runs and why, cleaning up, the listing for the report, what the screen shows."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path

from rich.console import Console

from tests.study import fake_stages
from tests.study.conftest import Lab
from tldr.files import host
from tldr.study.display import Display, clock, headline
from tldr.study.folder import locked
from tldr.study.status import differences, removable, remove, run_folders, set_aside, write_listing


def test_a_changed_setting_makes_runs_stale_and_says_which(lab: Lab) -> None:
    lab.make(only="sft")
    assert lab.stale() == {}
    assert lab.stale("sft.epochs=2") == {"sft-s-s0": "epochs 1.0 -> 2.0", "sft-m-s0": "epochs 1.0 -> 2.0"}
    rows = lab.rows("sft.epochs=2")
    assert {row.state for row in rows if row.run.startswith("pretrain")} == {"done"}
    assert [row.state for row in rows if row.run.startswith("sft")] == [
        "waiting",
        "waiting",
        "stale",
        "stale",
    ]


def test_changed_code_makes_a_run_stale_and_its_children_wait(lab: Lab, same_code: dict[str, str]) -> None:
    lab.make(only="sft")
    same_code["tldr.stages.pretrain.stage"] = "edited"
    assert lab.stale() == dict.fromkeys(
        ("pretrain-s-s0", "pretrain-m-s0"), "the code changed: tldr.stages.pretrain.stage"
    )
    child = lab.states()["sft-s-s0"]
    assert child.state == "waiting" and child.why.startswith(
        "finished before; checked again when pretrain-s-s0-"
    )
    assert lab.states()["data"].state == "done"


def test_a_stale_run_is_set_aside_and_made_again_and_equal_bytes_leave_its_children_done(
    lab: Lab, same_code: dict[str, str]
) -> None:
    lab.make(only="sft")
    made = lab.folder("pretrain-s-s0")
    (made / "notes.txt").write_text("mine")
    same_code["tldr.stages.pretrain.stage"] = "edited"
    before = lab.events()
    assert lab.runner(only="sft").run() == 0
    assert sorted(lab.events()[len(before) :]) == [
        "end pretrain-m-s0",
        "end pretrain-s-s0",
        "start pretrain-m-s0 0",
        "start pretrain-s-s0 0",
    ]
    aside = lab.root / "set-aside" / f"{made.name}.1"
    assert (aside / "notes.txt").read_text() == "mine" and not (made / "notes.txt").exists()
    assert {lab.states()[title].state for title in ("pretrain-s-s0", "sft-s-s0", "sft-m-s0")} == {"done"}


def test_other_bytes_of_a_parent_make_its_children_stale(lab: Lab) -> None:
    lab.make(only="sft")
    pretrain = lab.folder("pretrain-s-s0")
    (pretrain / "out.txt").write_text("of another kernel")
    fake_stages.write_done(pretrain, ["out.txt"])
    assert lab.stale() == {"sft-s-s0": f"its policy was run again with other outputs ({pretrain.name})"}
    before = lab.events()
    assert lab.runner(only="sft").run() == 0
    assert lab.events()[len(before) :] == ["start sft-s-s0 0", "end sft-s-s0"]
    assert list(lab.stale().values()) == ["set aside"]


def test_a_run_no_longer_in_the_study(lab: Lab) -> None:
    lab.make(only="pretrain")
    assert lab.stale("seeds=[1]") == dict.fromkeys(
        ("pretrain-s-s0", "pretrain-m-s0"), "no longer in the study"
    )


def test_a_data_file_that_changes_makes_its_run_stale(lab: Lab) -> None:
    folder = lab.config.parent
    for name in ("sft", "valid1", "valid2", "comparisons"):
        (folder / f"{name}.jsonl").write_text(name)
    paths = ", ".join(f"{name}: {folder / name}.jsonl" for name in ("sft", "valid1", "valid2", "comparisons"))
    study = f"data={{kind: files, {paths}}}"
    lab.make(study, only="sft")
    assert lab.stale(study) == {}
    (folder / "valid1.jsonl").write_text("valid2")
    stale = lab.stale(study)
    assert stale["data"] == "the file data.valid1 changed"
    assert stale["sft-s-s0"] == "its data changed; its policy changed"


def test_an_output_that_changes_makes_its_run_stale(lab: Lab) -> None:
    lab.make(only="sft")
    path = lab.folder("data") / "out.txt"
    kept = path.read_bytes()
    path.write_text("x")
    assert lab.stale() == {"data": "out.txt changed since it was done"}
    path.unlink()
    assert lab.stale() == {"data": "out.txt is missing since it was done"}
    path.write_bytes(kept)
    assert lab.stale() == {}, "the same again is good again"


def test_trap_a_parent_made_anew_is_not_the_parent(lab: Lab) -> None:
    """A child of a parent that was removed and came out otherwise is stale; come out equal, it is not."""
    lab.make(only="pretrain")
    data = lab.folder("data")
    remove([data])
    lab.make(only="pretrain")
    assert lab.stale() == {}
    (data / "DONE").write_text(json.dumps({"outputs": {}}))
    why = f"its data was run again with other outputs ({data.name})"
    assert lab.stale() == {"pretrain-s-s0": why, "pretrain-m-s0": why}


def test_a_broken_mark_is_stale_not_done(lab: Lab) -> None:
    lab.make(only="data")
    (lab.folder("data") / "DONE").write_text("{")
    assert "not a valid DONE file" in lab.stale()["data"]


def test_cleaning_removes_what_is_stale_and_nothing_else(lab: Lab) -> None:
    lab.make(only="pretrain")
    (lab.root / "notes").mkdir()
    _, runs = lab.load("pretrain.steps=9")
    folders = removable(runs, lab.root, lab.files, everything=False)
    assert sorted(folder.name.rpartition("-")[0] for folder in folders) == ["pretrain-m-s0", "pretrain-s-s0"]
    with locked(folders[0]):
        assert removable(runs, lab.root, lab.files, everything=False) == folders[1:], "not one at work"
    assert len(removable(runs, lab.root, lab.files, everything=True)) == 3
    remove(folders)
    assert run_folders(lab.root) == [lab.folder("data")]
    assert (lab.root / "notes").is_dir()


def test_differences_in_words() -> None:
    old = {
        "settings": {"lr": 1, "data": {"sft": "0" * 64}},
        "parents": {"policy": "x"},
        "seed": 0,
    }
    new = {
        "settings": {"lr": 2, "data": {"sft": "1" * 64}},
        "parents": {"policy": "y"},
        "seed": 0,
    }
    assert differences(old, old) == ""
    assert differences(old, new) == "lr 1 -> 2; the file data.sft changed; its policy changed"
    assert differences({"settings": {}}, {"settings": {"limit": 5}}) == "limit null -> 5"


def test_the_listing_names_every_run_and_its_parents(lab: Lab) -> None:
    study, runs = lab.load()
    sample = next(run for run in runs if run.title == "sample-m-s0-sft")
    (lab.root / sample.name).mkdir()
    (lab.root / sample.name / "samples.jsonl").write_text('{"tags": {"params": 1234}}\n')
    listing = json.loads(write_listing(study, runs, lab.root).read_text())
    assert listing["study"]["name"] == "tiny"
    rows = {row["run"].rpartition("-")[0]: row for row in listing["runs"]}
    assert len(rows) == len(runs)
    assert rows["ppo-m-s0"]["params"] == 1234 and rows["ppo-s-s0"]["params"] is None
    assert rows["labels-s0"]["parents"]["policy-sft-s"] == rows["sft-s-s0"]["run"]
    assert (rows["data"]["seed"], rows["score-s-s0-ppo"]["variant"]) == (None, "")


def test_clock() -> None:
    assert [clock(one) for one in (None, 0, 59.6, 61, 3723)] == ["-", "0:00", "1:00", "1:01", "1:02:03"]


def test_headlines(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"update": 1, "loss": 3.0}\n{"update": 2, "loss": 2.0, "score": 0.51234, "kl": 1.5}\n'
    )
    (tmp_path / "evaluation.json").write_text('{"valid1_accuracy": 0.75}')
    assert headline(tmp_path, "pretrain") == "loss 2"
    assert headline(tmp_path, "ppo") == "score 0.5123, kl 1.5"
    assert headline(tmp_path, "reward") == "valid1_accuracy 0.75"
    assert headline(tmp_path, "sft") == "" == headline(tmp_path, "data")


def test_bars_on_a_terminal_lines_elsewhere(lab: Lab) -> None:
    _, runs = lab.load()
    folder = lab.root / runs[0].name
    folder.mkdir()
    note = {"done": 3, "total": 4, "seconds": 1.0, "eta": 65.0, "loss": 2.345678}
    (folder / "progress.json").write_text(json.dumps(note))
    for terminal in (True, False):
        screen = io.StringIO()
        with Display(Console(file=screen, force_terminal=terminal, width=120), 5) as display:
            display.started(runs[0])
            display.refresh(runs[0].name, folder)
            display.counted(2)
        shown = screen.getvalue()
        for part in ("3/4", "1:05 left", "loss 2.346", "2/5 runs"):
            assert (part in shown) == terminal
        assert ("started" in shown) != terminal


def test_cleaning_removes_a_link_and_not_what_it_points_to(lab: Lab, tmp_path: Path) -> None:
    lab.make(only="pretrain")
    _, runs = lab.load()
    data = lab.folder("data")
    elsewhere = tmp_path / "another disk" / data.name
    elsewhere.parent.mkdir()
    data.rename(elsewhere)
    data.symlink_to(elsewhere)
    nowhere = lab.root / "sft-s-s0-0123456789"
    nowhere.symlink_to(tmp_path / "gone")
    begun = lab.root / "sft-m-s0-0123456789"
    begun.mkdir()
    (begun / ".lock").touch()
    (lab.root / "notes-0123456789").mkdir()
    (lab.root / "notes-0123456789" / "text").touch()
    wanted = removable(runs, lab.root, lab.files, everything=True)
    assert len(wanted) == 5 and {data, nowhere, begun} < set(wanted)
    assert remove(wanted) == {}
    assert {path.name for path in lab.root.iterdir() if "-" in path.name} == {"notes-0123456789"}
    assert (elsewhere / "DONE").exists() and (elsewhere / "out.txt").exists()


def test_cleaning_goes_on_behind_a_run_that_cannot_be_removed(lab: Lab) -> None:
    lab.make(only="pretrain")
    _, runs = lab.load()
    folders = removable(runs, lab.root, lab.files, everything=True)
    with locked(folders[0]):
        left = remove(folders)
    assert left == {folders[0]: f"process {os.getpid()} on {host()} is executing this run"}
    assert run_folders(lab.root) == [folders[0]]


def test_a_linked_run_is_set_aside_as_a_link_that_still_leads_there(lab: Lab, tmp_path: Path) -> None:
    lab.make(only="data")
    data, elsewhere = lab.folder("data"), tmp_path / "data"
    data.rename(elsewhere)
    data.symlink_to("../../data")
    (elsewhere / "out.txt").write_text("changed")
    place = set_aside(data, lab.files)
    assert place is not None and (place / "out.txt").read_text() == "changed"
    assert not data.is_symlink() and (elsewhere / "DONE").exists()


def test_a_run_at_work_names_its_process(lab: Lab) -> None:
    lab.make(only="data")
    with locked(lab.folder("data")):
        row = lab.states()["data"]
    assert (row.state, row.why) == ("running", f"process {os.getpid()} on {host()}")


def test_runs_of_round_10_come_after_those_of_round_9(lab: Lab) -> None:
    lab.make(only="data")
    names = ["labels-s0-r10-aaaaaaaaaa", "labels-s0-r9-bbbbbbbbbb"]
    for name in names:
        shutil.copytree(lab.folder("data"), lab.root / name)
    assert [path.name for path in run_folders(lab.root)][1:] == names[::-1]
