"""One run in its folder: what is written when, what is refused."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tldr.errors import CheckpointError, LabError, UsageError
from tldr.locks import Busy
from tldr.stages.sft import SFTInputs
from tldr.stages.sft.settings import SFTSettings
from tldr.stages.shared.context import RunContext
from tldr.stages.shared.declaration import Stage, named
from tldr.stages.shared.device import Device
from tldr.study import folder as folders
from tldr.study.environment import THREADS
from tldr.study.folder import ParentRun, RunFile, check_code, execute, is_busy, last_error, locked
from tldr.study.registry import STAGES
from tldr.train import precision as precisions

Refusal = Callable[[Callable[[], object]], str]
Act = Callable[[RunContext[Any, Any]], None]


@pytest.fixture
def act(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Act]]:
    """What the SFT stage does: the last function in the list. DONE is written by the real writer."""
    acts: list[Act] = [lambda ctx: (ctx.folder / "out.txt").write_text("made") and None]
    monkeypatch.setattr(Stage, "load", lambda self, settings: lambda ctx: acts[-1](ctx))
    yield acts


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "sft-s-s0-0123456789"
    described(seed_offset=2).write(folder)
    return folder


def described(**settings: object) -> RunFile:
    return RunFile(
        stage="sft",
        settings=SFTSettings(**settings).model_dump(mode="json"),
        study="tiny",
        run="sft-s-s0-0123456789",
        seed=3,
        draw=3,
        inputs={"policy": "./org/name", "data": "some/data"},
        tags={"size": "s"},
    )


def test_the_stage_is_given_what_run_json_says(run: Path) -> None:
    ctx = RunFile.read(run).context(run)
    assert ctx.settings == SFTSettings(seed_offset=2)
    assert ctx.seed == 3 + 2
    assert ctx.inputs == SFTInputs(policy=Path("org/name"), data=Path("some/data"))
    assert (ctx.folder, ctx.study, ctx.run, ctx.tags) == (run, "tiny", run.name, {"size": "s"})


def test_a_run_leaves_its_papers(run: Path, act: list[Act]) -> None:
    seen: list[set[str]] = []
    act.append(lambda ctx: seen.append({path.name for path in ctx.folder.iterdir()}) or act[0](ctx))
    execute(run)
    assert {"run.json", "config.json", "environment.json"} <= seen[0] and "DONE" not in seen[0]
    assert list(json.loads((run / "DONE").read_text())["outputs"]) == ["out.txt"]
    assert folders.read_outputs(run) == json.loads((run / "DONE").read_text())["outputs"]
    environment = json.loads((run / "environment.json").read_text())
    assert {"git", "packages", "device", "threads", "seconds", "started"} <= set(environment)
    config = json.loads((run / "config.json").read_text())
    assert config["settings"]["seed_offset"] == 2 and config["seed"] == 5


def test_a_run_has_the_threads_of_its_study_whatever_the_environment_says(
    run: Path, act: list[Act], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in THREADS:
        monkeypatch.setenv(name, "7")
    seen: list[tuple[int, str]] = []

    def look(ctx: RunContext[Any, Any]) -> None:
        Device.open(ctx.precision)
        seen.append((torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]))
        raise LabError("looked", where="here", remedy="none")

    act.append(look)
    before = torch.get_num_threads()
    try:
        for threads in (None, 1, 2):
            RunFile.read(run).model_copy(update={"threads": threads}).write(run)
            with pytest.raises(LabError, match="looked"):
                execute(run)
    finally:
        torch.set_num_threads(before)
    assert seen == [(7, "7"), (1, "1"), (2, "2")]


@pytest.mark.parametrize(("first", "later"), [("bf16", "fp32"), ("fp32", "bf16")])
def test_auto_precision_is_that_of_the_first_start_on_every_machine(
    run: Path, act: list[Act], monkeypatch: pytest.MonkeyPatch, first: str, later: str
) -> None:
    monkeypatch.setattr(precisions, "cpu_has_bf16", lambda: first == "bf16")
    seen: list[str] = []

    def stop(ctx: RunContext[Any, Any]) -> None:
        seen.append(ctx.precision)
        raise LabError("stopped", where="here", remedy="none")

    act.append(stop)
    with pytest.raises(LabError):
        execute(run)
    monkeypatch.setattr(precisions, "cpu_has_bf16", lambda: later == "bf16")
    act.append(lambda ctx: seen.append(ctx.precision) or act[0](ctx))
    folders._take_part(RunFile.read(run), run)  # a further process of the same run
    execute(run)
    assert seen == [first, first, first]
    assert json.loads((run / "environment.json").read_text())["precision"] == first


def test_a_precision_that_is_set_is_taken(run: Path, act: list[Act]) -> None:
    seen: list[str] = []
    act.append(lambda ctx: seen.append(ctx.precision) or act[0](ctx))
    RunFile.read(run).model_copy(update={"precision": "bf16"}).write(run)
    execute(run)
    assert seen == ["bf16"]


def test_what_is_done_is_not_done_again(run: Path, act: list[Act]) -> None:
    execute(run)
    act.append(lambda ctx: pytest.fail("done again"))
    execute(run)


def test_a_failure_is_noted_and_forgotten_on_success(run: Path, act: list[Act]) -> None:
    def fail(ctx: RunContext[Any, Any]) -> None:
        raise CheckpointError("half a file", where="there", remedy="remove it")

    act.append(fail)
    with pytest.raises(CheckpointError):
        execute(run)
    assert last_error(run) == "there: half a file"
    assert not (run / "DONE").exists()
    act.pop()
    execute(run)
    assert last_error(run) is None


def test_a_fault_is_noted_with_its_line(run: Path, act: list[Act]) -> None:
    act.append(lambda ctx: 1 / 0 and None)
    with pytest.raises(ZeroDivisionError):
        execute(run)
    assert "test_folder.py" in str(last_error(run)) and "ZeroDivisionError" in str(last_error(run))


def test_a_stage_that_writes_nothing_has_failed(run: Path, act: list[Act]) -> None:
    act.append(lambda ctx: None)
    with pytest.raises(LabError, match="wrote nothing"):
        execute(run)
    assert not (run / "DONE").exists()


def test_half_written_files_are_no_outputs(run: Path, act: list[Act]) -> None:
    act.append(lambda ctx: (ctx.folder / "x.partial").write_text("") or act[0](ctx))
    execute(run)
    assert set(folders.read_outputs(run)) == {"out.txt"}


def test_two_processes_never_work_on_one_run(run: Path, act: list[Act]) -> None:
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(run):
            inside.set()
            leave.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(60)
    try:
        assert is_busy(run)
        with pytest.raises(Busy):
            execute(run)
    finally:
        leave.set()
        holder.join()
    assert not is_busy(run)
    execute(run)


def test_a_missing_parent_run_is_refused(run: Path, act: list[Act], refusal: Refusal) -> None:
    parent = run.parent / "pretrain-s-s0-1"
    spec = RunFile.read(run)
    spec = spec.model_copy(update={"parents": {"policy": ParentRun(run=parent.name, outputs="0" * 64)}})
    spec.write(run)
    assert "its policy is missing or not done" in refusal(lambda: execute(run))
    parent.mkdir()
    (parent / "DONE").write_text('{"outputs": {}}')
    assert "its policy has changed since" in refusal(lambda: execute(run))


def test_trap_code_edited_while_the_study_runs(run: Path, refusal: Refusal) -> None:
    spec = RunFile.read(run)
    code = spec.code_now()
    spec.model_copy(update={"code": code | {"tldr.models.packed": "0" * 16}}).write(run)
    assert "code was edited after run.json was written: tldr.models.packed" in refusal(
        lambda: check_code(run)
    )
    spec.model_copy(update={"code": code}).write(run)
    check_code(run)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stage": "sft"}', '{"stage": 3, "settings": {}}'])
def test_a_broken_run_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UsageError, match=r"run.json: not a valid run"):
        RunFile.read(tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="this folder contains no run"):
        execute(tmp_path)


def test_missing_and_unknown_inputs_are_named(refusal: Refusal) -> None:
    text = refusal(lambda: STAGES["sft"].typed({"policy": "p"}))
    assert "sft lacks its input data" in text and "Folder of posts and tokenizer" in text
    text = refusal(lambda: STAGES["sft"].typed({"policy": "p", "data": "d", "reward": "r"}))
    assert "sft reads no input 'reward'" in text and "it reads data, policy" in text


def test_inputs_of_any_number_are_named_by_their_key() -> None:
    names = {"policy": "p", "labels": "l", "labels-2": "l2", "labels-10": "l10", "data": "d"}
    inputs = STAGES["reward"].typed(names)
    assert inputs.labels == "l" and inputs.further_labels == {"2": "l2", "10": "l10"}
    assert named(inputs) == names
