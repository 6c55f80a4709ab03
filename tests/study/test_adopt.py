"""Finished runs from before are taken over where their outputs are known to be equal, and only then."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.study import fake_stages
from tests.study.conftest import Lab
from tldr.errors import LabError
from tldr.study.adopt import Adoption, adopt, rename_results
from tldr.study.folder import RunFile
from tldr.study.registry import STAGES
from tldr.study.runs import needed_for

PROVEN = {name: f"{number:064x}" for number, name in enumerate(STAGES)}
"""Codes of runs before, which these tests take to be known to write the same outputs."""


@pytest.fixture(autouse=True)
def proven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tldr.study.adopt.PROVEN", PROVEN)


def age(lab: Lab, folder: Path, **codes: str) -> dict[str, str]:
    """Turn the finished runs into what the code before left in another folder; new name -> old name."""
    folder.mkdir()
    places = sorted(path.parent for path in lab.root.glob("*/run.json"))
    names = {
        place.name: f"{place.name.rpartition('-')[0]}-{index:010x}" for index, place in enumerate(places)
    }
    for place in places:
        note = json.loads((place / "run.json").read_text())
        old = folder / names[place.name]
        place.rename(old)
        (old / "out.txt").write_text(f"written by {old.name}\n")
        (old / "model.safetensors").write_bytes(b"weights")
        fake_stages.write_done(old, ["out.txt", "model.safetensors"])
        for name in ("code", "toy", "adopted"):
            del note[name]
        note["run"] = old.name
        note["ingredients"]["code"] = codes.get(note["stage"], PROVEN[note["stage"]])
        note["parents"] = {
            name: {"run": names[parent["run"]], "done": "0" * 64} for name, parent in note["parents"].items()
        }
        (old / "run.json").write_text(json.dumps(note))
    return names


def take(lab: Lab, folder: Path, *overrides: str, vouch: bool = False) -> Adoption:
    study, runs = lab.load(*overrides)
    return adopt(study, needed_for(runs, "sft"), lab.root, folder, vouch=vouch)


def test_finished_runs_from_before_are_taken_over_and_nothing_is_run(lab: Lab, tmp_path: Path) -> None:
    lab.make(only="sft")
    names = age(lab, tmp_path / "before")
    found = take(lab, tmp_path / "before")
    assert found.names == {old: new for new, old in names.items()} and found.left == {}
    assert {
        row.state for title, row in lab.states().items() if title.startswith(("data", "pretrain", "sft"))
    } == {"done"}
    sft = lab.folder("sft-s-s0")
    assert (sft / "out.txt").read_text() == f"written by {sft.name}\n", "its own name is today's"
    old = tmp_path / "before" / names[sft.name]
    assert (old / "out.txt").read_text() == f"written by {old.name}\n", "what was there is left as it was"
    assert os.path.samefile(old / "model.safetensors", sft / "model.safetensors")
    assert RunFile.read(sft).adopted == {"run": old.name, "code": f'"{PROVEN["sft"]}"'}
    before = lab.events()
    assert lab.runner(only="sft").run() == 0 and lab.events() == before


def test_runs_of_unknown_code_are_left_unless_the_user_vouches(lab: Lab, tmp_path: Path) -> None:
    lab.make(only="sft")
    age(lab, tmp_path / "before", pretrain="f" * 64)
    found = take(lab, tmp_path / "before")
    assert {name.split("-")[0] for name in found.names.values()} == {"data"}
    assert "its code is not known to write the same" in found.left["pretrain-s-s0"]
    assert "its policy was pretrain-s-s0-" in found.left["sft-s-s0"]
    assert take(lab, tmp_path / "before", vouch=True).left == {}


def test_other_settings_are_not_taken_over(lab: Lab, tmp_path: Path) -> None:
    lab.make(only="sft")
    age(lab, tmp_path / "before")
    found = take(lab, tmp_path / "before", "sft.batch=64")
    assert "batch 128 -> 64" in found.left["sft-s-s0"]


@pytest.mark.parametrize(("value", "taken"), [(False, True), (True, False)])
def test_a_setting_that_is_new_has_to_have_its_default(
    lab: Lab, tmp_path: Path, value: bool, taken: bool
) -> None:
    lab.make(f"sft.query_loss={str(value).lower()}", only="sft")
    names = age(lab, tmp_path / "before")
    for old in names.values():
        path = tmp_path / "before" / old / "run.json"
        note = json.loads(path.read_text())
        note["ingredients"]["settings"].pop("query_loss", None)
        path.write_text(json.dumps(note))
    found = take(lab, tmp_path / "before", f"sft.query_loss={str(value).lower()}")
    assert ("sft-s-s0" not in found.left) == taken


def test_a_run_of_fewer_posts_is_not_taken_for_one_of_all(lab: Lab, tmp_path: Path) -> None:
    """`sft.limit` is no part of a run's name at its default, but it is where a run had another value."""
    lab.make("sft.limit=128", only="sft")
    age(lab, tmp_path / "before")
    assert "limit 128 -> null" in take(lab, tmp_path / "before").left["sft-s-s0"]
    assert "limit 128 -> 256" in take(lab, tmp_path / "before", "sft.limit=256").left["sft-s-s0"]
    assert not take(lab, tmp_path / "before", "sft.limit=128").left


def test_a_damaged_run_is_not_taken_over(lab: Lab, tmp_path: Path) -> None:
    lab.make(only="sft")
    names = age(lab, tmp_path / "before")
    old = tmp_path / "before" / names[next(name for name in names if name.startswith("data"))]
    (old / "out.txt").write_text("edited")
    with pytest.raises(LabError, match=r"out.txt: changed since the run finished"):
        take(lab, tmp_path / "before")


def test_runs_whose_code_changed_harmlessly_are_taken_where_they_are(
    lab: Lab, same_code: dict[str, str]
) -> None:
    lab.make(only="sft")
    same_code["tldr.stages.sft.stage"] = "a comment's worth"
    assert set(lab.stale()) == {"sft-s-s0", "sft-m-s0"}
    assert "not known to write the same" in take(lab, lab.root).left["sft-s-s0"]
    assert len(take(lab, lab.root, vouch=True).names) == 2
    assert lab.stale() == {} and lab.states()["sft-s-s0"].state == "done"


def test_tables_of_results_name_the_runs_of_today(lab: Lab, tmp_path: Path) -> None:
    _, runs = lab.load()
    by_title = {run.title: run for run in runs}
    old = {title: f"{title}-{index:010x}" for index, title in enumerate(by_title)}
    sft, ppo = old["sft-s-s0"], old["ppo-s-s0"]
    (tmp_path / "claims.csv").write_text(f"claim,runs\nRL,{sft} {ppo}\nother,strange-s-s0-0123456789\n")
    (tmp_path / "runs.csv").write_text(f"run,key,made from\n{ppo},{'a' * 64},{sft}\n")
    (tmp_path / "runs.md").write_text(f"| {ppo} | {'a' * 64} | {sft} |\n")
    assert rename_results(runs, tmp_path) == {sft: by_title["sft-s-s0"].name, ppo: by_title["ppo-s-s0"].name}
    text = (tmp_path / "claims.csv").read_text()
    assert text == (
        f"claim,runs\nRL,{by_title['sft-s-s0'].name} {by_title['ppo-s-s0'].name}\n"
        "other,strange-s-s0-0123456789\n"
    )
    key = by_title["ppo-s-s0"].key
    assert (tmp_path / "runs.csv").read_text().splitlines()[1].split(",")[1] == key
    assert key in (tmp_path / "runs.md").read_text()
    assert rename_results(runs, tmp_path) == {}
