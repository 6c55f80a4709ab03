"""Damaged states and logs: never loaded, never another error than the project's own."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from tests.fuzz.mutate import COUNTS, mutated
from tests.sources.test_mutations import sound
from tldr.errors import CheckpointError, LabError, RecordError
from tldr.study.folder import read_outputs
from tldr.train.checkpoint import TrainingState, hash_folder, load_state, save_state, write_done
from tldr.train.metrics import read_metrics


def trained(seed: int) -> tuple[dict[str, nn.Module], dict[str, AdamW]]:
    torch.manual_seed(seed)
    module = nn.Linear(3, 2)
    adamw = AdamW(module.parameters(), lr=0.01)
    module(torch.ones(1, 3)).sum().backward()
    adamw.step()
    return {"policy": module}, {"policy": adamw}


def _number(value: Any) -> bool:
    return type(value) in (int, float)


def weights(modules: dict[str, nn.Module]) -> list[Any]:
    return [tensor.tolist() for tensor in modules["policy"].state_dict().values()]


@pytest.mark.parametrize("count", COUNTS)
def test_a_damaged_state_is_skipped(count: int, tmp_path: Path) -> None:
    rng = random.Random(count)
    saved, fresh = trained(1), trained(2)
    state = TrainingState(3, extra={"beta": 0.1, "name": "x"}, tensors={"rows": torch.arange(4)})
    folder = save_state(tmp_path, state, *saved)
    files = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    assert len(files) == 4
    before, loaded = weights(fresh[0]), 0
    warnings.simplefilter("ignore", RuntimeWarning)
    for _ in range(count):
        path = rng.choice(list(files))
        damaged = mutated(files[path], rng)
        path.write_bytes(damaged)
        found = load_state(tmp_path, *fresh)
        if found is None:
            assert weights(fresh[0]) == before
        else:  # white space alone has changed
            assert path.suffix == ".json" and json.loads(damaged) == json.loads(files[path]), damaged
            assert found.extra == state.extra and weights(fresh[0]) == weights(saved[0])
            loaded += 1
            fresh = trained(2)
        path.write_bytes(files[path])
    assert loaded < count / 20
    again = load_state(tmp_path, *fresh)
    assert again is not None and again.extra == state.extra and weights(fresh[0]) == weights(saved[0])
    print("states", {"skipped": count - loaded, "white space": loaded})


@pytest.mark.parametrize("count", COUNTS)
def test_a_damaged_log_is_refused_by_its_line(count: int, tmp_path: Path) -> None:
    rng, path = random.Random(count), tmp_path / "metrics.jsonl"
    whole = b"".join(b'{"update": %d, "loss": %.3f, "kl": -1e-05}\n' % (n, 1 / n) for n in range(1, 5))
    read = 0
    for _ in range(count):
        damaged = mutated(whole, rng)
        path.write_bytes(damaged)
        rows = [sound(line) for line in damaged.split(b"\n")[:-1]]
        rows = [row if row is not None and all(map(_number, row.values())) else None for row in rows]
        bad = [
            n
            for n, row in enumerate(rows, start=1)
            if row is None or type(row.get("update")) not in (int, float)
        ]
        try:
            assert read_metrics(path) == rows and not bad, damaged
        except RecordError as error:
            assert bad and error.where == f"{path}:{bad[0]}", damaged
            continue
        read += 1
    assert count / 20 < read < count


@pytest.mark.parametrize("count", COUNTS)
def test_damaged_marks_of_finished_runs_and_weights_are_told(count: int, tmp_path: Path) -> None:
    rng = random.Random(count)
    save_state(tmp_path, TrainingState(1), *trained(1))
    file = next(tmp_path.rglob("module.policy.safetensors")).rename(tmp_path / "model.safetensors")
    write_done(tmp_path, [file.name])
    done = tmp_path / "DONE"
    outputs, tensors, digest = done.read_bytes(), file.read_bytes(), hash_folder(tmp_path)
    for _ in range(count):
        done.write_bytes(mutated(outputs, rng))
        try:
            assert all(map(isinstance, read_outputs(tmp_path).items(), [tuple]))
        except LabError as error:
            assert error.where == str(done)
        damaged = mutated(tensors, rng)
        file.write_bytes(damaged)
        try:
            other = hash_folder(tmp_path)
        except CheckpointError as error:
            assert error.where == str(file) and error.what.startswith("damaged weights")
        else:
            assert other != digest or len(damaged) >= len(tensors)
