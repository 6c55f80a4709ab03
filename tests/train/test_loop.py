"""The loop: a run that is killed ends with the same bits as one that is not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import torch
from tiny_run import BATCHES, next_token_loss, stepper, train

from tldr.errors import CheckpointError, NonFiniteError
from tldr.mathematics.schedule import lr_multiplier
from tldr.settings.training import Training
from tldr.train.checkpoint import hash_module
from tldr.train.loop import TrainLoop
from tldr.train.metrics import TIMES, MetricsRow, read_metrics
from tldr.train.precision import peak_flops
from tldr.train.stepper import Stepper

CPU = torch.device("cpu")


def log(folder: Path) -> list[MetricsRow]:
    rows = read_metrics(folder / "metrics.jsonl")
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[MetricsRow]]:
    """An uninterrupted run: the hash of its weights, and its log."""
    folder = tmp_path_factory.mktemp("whole")
    return train(folder), log(folder)


def start(folder: Path, held: int) -> subprocess.Popen[bytes]:
    """A run in a process of its own, which stays in update `held`."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    script = Path(__file__).with_name("tiny_run.py")
    return subprocess.Popen([sys.executable, str(script), str(folder), "0.2", str(held)], env=environment)


def wait_for_rows(folder: Path, rows: int) -> None:
    path = folder / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not path.exists() or path.read_bytes().count(b"\n") < rows:
        assert time.monotonic() < deadline, "the run made no progress"
        time.sleep(0.005)


def test_log_of_a_whole_run(tmp_path: Path) -> None:
    train(tmp_path)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["update"] for row in rows] == list(range(1, 13))
    shares = [lr_multiplier(i, 12, schedule="cosine", warmup=2, final=0.0) for i in range(12)]
    assert [row["lr"] for row in rows] == pytest.approx([0.02 * share for share in shares])
    assert {"loss", "grad_norm", "tokens_per_s", "mfu", "seconds", "accuracy"} < rows[0].keys()
    per_token = stepper().flops_per_token
    for before, row in zip([{"seconds": 0.0}, *rows], rows, strict=False):
        assert row["seconds"] > before["seconds"] and row["tokens_per_s"] > 0
        assert row["mfu"] == pytest.approx(row["tokens_per_s"] * per_token / peak_flops(CPU, "fp32"))
    progress = json.loads((tmp_path / "progress.json").read_text())
    assert (progress["done"], progress["total"], progress["eta"]) == (12, 12, 0.0)
    assert progress["loss"] == rows[-1]["loss"]


def test_killed_run_ends_with_the_same_bits(tmp_path: Path, whole: tuple[str, list[MetricsRow]]) -> None:
    draw = random.Random(time.time_ns())
    rows, pause = draw.randint(1, 11), draw.uniform(0, 0.06)
    run = start(tmp_path, held=12)
    wait_for_rows(tmp_path, rows)
    time.sleep(pause)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert (train(tmp_path), log(tmp_path)) == whole, f"killed after {rows} rows and {pause} s"


def test_terminated_run_saves_and_goes_on(tmp_path: Path, whole: tuple[str, list[MetricsRow]]) -> None:
    run = start(tmp_path, held=6)
    wait_for_rows(tmp_path, 4)
    run.send_signal(signal.SIGTERM)
    (tmp_path / "go").touch()
    assert run.wait(timeout=60) == 143
    done = len(log(tmp_path))
    assert 4 <= done <= 6
    assert (tmp_path / "state" / f"step-{done:08d}" / "state.json").exists()
    assert (train(tmp_path), log(tmp_path)) == whole


def test_ctrl_c_saves_as_sigterm_does(tmp_path: Path, whole: tuple[str, list[MetricsRow]]) -> None:
    before = signal.getsignal(signal.SIGINT)

    def interrupt(done: int, _: MetricsRow) -> None:
        if done == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, on_update=interrupt)
    assert signal.getsignal(signal.SIGINT) == before
    assert (tmp_path / "state" / "step-00000003" / "state.json").exists()
    assert (train(tmp_path), log(tmp_path)) == whole


@pytest.mark.parametrize("stop", [1, 3, 7, 12])
def test_stopped_at_any_update(tmp_path: Path, whole: tuple[str, list[MetricsRow]], stop: int) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def terminate(done: int, _: MetricsRow) -> None:
        if done == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as stopped:
        train(tmp_path, on_update=terminate)
    assert stopped.value.code == 143 and signal.getsignal(signal.SIGTERM) == before
    torch.rand(stop)  # what the process drew in between does not matter
    assert (train(tmp_path), log(tmp_path)) == whole


def test_damaged_newest_state_costs_no_bit(tmp_path: Path, whole: tuple[str, list[MetricsRow]]) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, on_update=interrupt_at(8))
    newest = tmp_path / "state" / "step-00000006" / "module.policy.safetensors"
    newest.write_bytes(newest.read_bytes()[:-4])
    with pytest.warns(RuntimeWarning, match="step-00000006 is damaged"):
        assert (train(tmp_path), log(tmp_path)) == whole


def interrupt_at(update: int):
    def interrupt(done: int, _: MetricsRow) -> None:
        if done == update:
            raise KeyboardInterrupt

    return interrupt


def simple_loop(folder: Path, total: int = 6, **more) -> tuple[TrainLoop, Stepper]:
    step = stepper()
    return TrainLoop("toy stage", folder, step, total, Training(save_every=2), **more), step


def test_nan_stops_and_leaves_the_last_good_state(tmp_path: Path) -> None:
    loop, step = simple_loop(tmp_path)
    good = []

    def update(i: int) -> MetricsRow:
        if i == 4:
            good.append(hash_module(step.modules["policy"]))
            with torch.no_grad():
                step.modules["policy"].body.bias[0] = float("nan")
        return step.step(next_token_loss, BATCHES)

    with pytest.raises(NonFiniteError) as stopped:
        loop.run(update)
    message = str(stopped.value)
    assert "toy stage, update 5 of 6" in message and "the loss is nan" in message
    assert f"the last good state is {tmp_path / 'state' / 'step-00000004'}" in message
    assert len(log(tmp_path)) == 4
    again, step = simple_loop(tmp_path)
    hashes = []

    def sound(i: int) -> MetricsRow:
        hashes.append(hash_module(step.modules["policy"]))
        return step.step(next_token_loss, BATCHES)

    again.run(sound)
    assert hashes[0] == good[0] and len(log(tmp_path)) == 6


@pytest.mark.parametrize("hook", [False, True])
def test_any_figure_that_is_not_finite_stops(tmp_path: Path, hook: bool) -> None:
    def spoil(_: int, row: MetricsRow) -> None:
        row["score"] = float("inf")

    loop, step = simple_loop(tmp_path, on_update=spoil if hook else None)

    def update(i: int) -> MetricsRow:
        return step.step(next_token_loss, BATCHES) | ({} if hook else {"kl": float("inf")})

    with pytest.raises(NonFiniteError, match=r"(score|kl) is inf(.|\n)*no state was saved yet"):
        loop.run(update)
    assert log(tmp_path) == []


def test_several_steps_an_update_and_what_a_stage_keeps(tmp_path: Path) -> None:
    """PPO's shape: an update samples, then steps twice; a coefficient and a tensor live on."""

    def run(folder: Path, stop: int | None = None) -> tuple[str, dict, torch.Tensor]:
        extra, tensors = {"beta": 0.05}, {"mean": torch.zeros(2)}
        hook = interrupt_at(stop) if stop else None
        loop, step = simple_loop(folder, extra=extra, tensors=tensors, on_update=hook)

        def update(i: int) -> MetricsRow:
            rows = [step.step(next_token_loss, BATCHES) for _ in range(2)]
            extra["beta"] *= 1 + rows[-1]["accuracy"]
            tensors["mean"] = tensors["mean"] * 0.9 + rows[0]["loss"]
            return {**rows[-1], "tokens": sum(row["tokens"] for row in rows), "beta": extra["beta"]}

        loop.run(update)
        assert step.steps == 12
        return hash_module(step.modules["policy"]), extra, tensors["mean"]

    expected = run(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", stop=5)
    weights, extra, mean = run(tmp_path / "b")
    assert (weights, extra) == expected[:2] and mean.equal(expected[2])
    assert log(tmp_path / "a") == log(tmp_path / "b")


@pytest.mark.parametrize("due", [False, True], ids=["when-told-to-end", "every-step"])
@pytest.mark.parametrize("stop", [1, 4, 5])
def test_stopped_inside_an_update(tmp_path: Path, stop: int, due: bool) -> None:
    """An update that draws a tensor, then steps three times on it: it goes on with the tensor it drew."""

    def run(folder: Path, draws: Iterator[int], stop: int | None = None) -> tuple[str, list[MetricsRow]]:
        loop, step = simple_loop(folder, total=4)

        def update(i: int) -> MetricsRow:
            if loop.part == 0:
                loop.tensors["drawn"], loop.extra["rows"] = torch.tensor([next(draws), 0.5]), []
            rows: list[MetricsRow] = loop.extra["rows"]
            for part in range(len(rows), 3):
                weights = loop.tensors["drawn"].sum().item()
                rows.append(step.step(next_token_loss, BATCHES) | {"drawn": weights})
                if step.steps == stop:
                    os.kill(os.getpid(), signal.SIGTERM)
                if part < 2:
                    loop.pause(part + 1, due=due)
            loop.tensors.clear()
            del loop.extra["rows"]
            return {**rows[-1], "first": rows[0]["drawn"], "sum": sum(row["loss"] for row in rows)}

        loop.run(update)
        return hash_module(step.modules["policy"]), log(folder)

    expected = run(tmp_path / "whole", count())
    draws = count()  # drawn again, it would be another
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "stopped", draws, stop)
    assert stopped.value.code == 143
    assert list((tmp_path / "stopped" / "state").glob(f"step-{(stop - 1) // 3:08d}-{(stop - 1) % 3 + 1:06d}"))
    assert run(tmp_path / "stopped", draws) == expected


def test_keeps_as_many_states_as_asked_for(tmp_path: Path) -> None:
    step = stepper()
    settings = Training(save_every=1, keep_states=3)
    TrainLoop("tiny", tmp_path, step, 5, settings).run(lambda i: step.step(next_token_loss, BATCHES))
    assert [path.name[-1] for path in sorted((tmp_path / "state").iterdir())] == ["3", "4", "5"]


def test_finished_run_is_not_trained_further(tmp_path: Path) -> None:
    first = train(tmp_path)
    assert train(tmp_path, on_update=interrupt_at(1)) == first
    assert len(log(tmp_path)) == 12
    with pytest.raises(CheckpointError, match="from update 12, but the run has only 6 updates"):
        train(tmp_path, updates=6)


def test_hook_adds_to_the_log(tmp_path: Path) -> None:
    def evaluate(done: int, row: MetricsRow) -> None:
        if done % 4 == 0:
            row["valid_loss"] = done / 2

    train(tmp_path, on_update=evaluate)
    assert [row.get("valid_loss") for row in log(tmp_path)] == [None] * 3 + [2.0] + [None] * 3 + [4.0] + [
        None
    ] * 3 + [6.0]
