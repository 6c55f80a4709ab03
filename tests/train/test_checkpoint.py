"""Resumable state: whole or not at all, bit for bit, no pickle."""

from __future__ import annotations

import ast
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tiny_run import Tiny
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import AdamW

from tldr.errors import CheckpointError, LabError
from tldr.study.folder import read_outputs
from tldr.train import checkpoint
from tldr.train.checkpoint import (
    TrainingState,
    full_state_dict,
    hash_folder,
    hash_module,
    load_state,
    save_state,
    write_done,
)

ROOT = Path(checkpoint.__file__).parents[1]


class Trained:
    """A module and its AdamW, a few steps in."""

    def __init__(self, steps: int = 0, lr: float = 0.01):
        self.module = Tiny()
        groups = [{"params": list(self.module.parameters()), "weight_decay": 0.1}]
        self.adamw = AdamW(groups, lr=lr, betas=(0.8, 0.9), fused=True)
        self.modules, self.optimizers = {"policy": self.module}, {"policy": self.adamw}
        self.walk(steps)

    def walk(self, steps: int) -> None:
        for step in range(steps):
            torch.manual_seed(step)
            self.module(torch.arange(9)).logsumexp(-1).sum().backward()
            self.adamw.step()
            self.adamw.zero_grad()

    def save(self, folder: Path, step: int) -> Path:
        return save_state(folder, TrainingState(step, extra={"step": step}), self.modules, self.optimizers)

    def load(self, folder: Path) -> checkpoint.TrainingState | None:
        return load_state(folder, self.modules, self.optimizers)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "state").iterdir())


def test_weights_and_optimizer_come_back_bit_for_bit(tmp_path: Path) -> None:
    saved = Trained(steps=4)
    saved.adamw.param_groups[0]["lr"] = 0.1 / 3
    rollout = torch.arange(12.0).view(3, 4)
    tensors = {
        "rows": rollout[1:],
        "transposed": rollout.T,
        "half": torch.tensor(1 / 3, dtype=torch.bfloat16),
    }
    extra = {"beta": 0.1 + 0.2, "names": ["a"], "none": None}
    save_state(tmp_path, TrainingState(4, 0, extra, tensors), saved.modules, saved.optimizers)

    fresh = Trained()
    assert hash_module(fresh.module) != hash_module(saved.module)
    state = fresh.load(tmp_path)
    assert state is not None and state.step == 4 and state.extra == extra
    assert {name: t.equal(tensors[name]) for name, t in state.tensors.items()} == dict.fromkeys(tensors, True)
    assert state.tensors["half"].dtype == torch.bfloat16
    assert hash_module(fresh.module) == hash_module(saved.module)
    assert fresh.module.head.weight is fresh.module.embed.weight
    before, after = saved.adamw.state_dict(), fresh.adamw.state_dict()
    assert before["param_groups"] == after["param_groups"]
    assert after["param_groups"][0]["betas"] == (0.8, 0.9)
    for index, values in before["state"].items():
        assert values.keys() == {"step", "exp_avg", "exp_avg_sq"} and values["step"] == 4
        for key, tensor in values.items():
            assert (
                tensor.equal(after["state"][index][key]) and tensor.dtype == after["state"][index][key].dtype
            )
    saved.walk(2)
    fresh.walk(2)
    assert hash_module(fresh.module) == hash_module(saved.module)


def test_tied_weights_are_saved_once(tmp_path: Path) -> None:
    module = Tiny()
    assert "head.weight" in module.state_dict()
    assert full_state_dict(module).keys() == module.state_dict().keys() - {"head.weight"}
    untied = Trained()
    untied.module.head.weight = nn.Parameter(untied.module.embed.weight.detach().clone())
    Trained().save(tmp_path, 1)
    with pytest.raises(CheckpointError, match="another model"):
        untied.load(tmp_path)


def test_two_newest_are_kept(tmp_path: Path) -> None:
    run = Trained(steps=1)
    for step in (2, 4, 6, 7):
        run.save(tmp_path, step)
    assert names(tmp_path) == ["step-00000006", "step-00000007"]
    run.save(tmp_path, 7)
    assert names(tmp_path) == ["step-00000006", "step-00000007"]
    run.save(tmp_path, 6)  # a run that had to go on from before 6: 7 is no longer its future
    assert names(tmp_path) == ["step-00000006"]


def damage_cut(state: Path) -> None:
    path = state / "module.policy.safetensors"
    path.write_bytes(path.read_bytes()[:-20])


def damage_bit(state: Path) -> None:
    path = state / "optimizer.policy.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def damage_json(state: Path) -> None:
    (state / "state.json").write_text('{"step": 6, "ext')


def damage_missing(state: Path) -> None:
    (state / "tensors.safetensors").unlink()


def damage_figure(state: Path) -> None:
    text = (state / "state.json").read_text()
    assert '"lr": 0.01' in text
    (state / "state.json").write_text(text.replace('"lr": 0.01', '"lr": 0.02'))


def damage_key(state: Path) -> None:
    text = (state / "state.json").read_text()
    (state / "state.json").write_text(text.replace('"param_groups"', '"param_groupz"'))


def damage_depth(state: Path) -> None:
    (state / "state.json").write_text("[" * 100_000)


def damage_kind(state: Path) -> None:
    (state / "state.json").write_text("[]")


@pytest.mark.parametrize(
    "damage",
    [
        damage_cut,
        damage_bit,
        damage_json,
        damage_missing,
        damage_figure,
        damage_key,
        damage_depth,
        damage_kind,
    ],
)
def test_damaged_state_is_passed_over(tmp_path: Path, damage) -> None:
    run = Trained(steps=1)
    run.save(tmp_path, 3)
    good = hash_module(run.module)
    run.walk(2)
    damage(run.save(tmp_path, 6))
    fresh = Trained()
    with pytest.warns(RuntimeWarning, match="step-00000006 is damaged"):
        state = fresh.load(tmp_path)
    assert state is not None and state.step == 3 == state.extra["step"]
    assert hash_module(fresh.module) == good
    damage(tmp_path / "state" / "step-00000003")
    untouched = Trained()
    with pytest.warns(RuntimeWarning, match="damaged"):
        assert untouched.load(tmp_path) is None
    assert hash_module(untouched.module) == hash_module(Trained().module)


def test_a_kill_while_saving_leaves_the_state_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Trained(steps=1)
    run.save(tmp_path, 3)

    def killed(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "_sha256", killed)
    with pytest.raises(KeyboardInterrupt):
        run.save(tmp_path, 6)
    monkeypatch.undo()
    assert names(tmp_path) == ["step-00000003", "step-00000006.partial"]
    state = Trained().load(tmp_path)
    assert state is not None and state.step == 3
    run.save(tmp_path, 6)
    assert names(tmp_path) == ["step-00000003", "step-00000006"]


STEPS = ("mkdir", "save_file", "write_json", "sync", "rename", "rmtree")
"""What a save does with the disk."""


class FullDisk:
    """Has the n-th thing that a save does with the disk fail for want of room."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: int):
        self.done, self.fails = 0, fails
        owners = {"mkdir": Path, "rename": Path, "rmtree": checkpoint.shutil}
        for step in STEPS:
            owner = owners.get(step, checkpoint)
            monkeypatch.setattr(owner, step, self.counted(getattr(owner, step)))

    def counted(self, real):
        def step(*args, **more):
            self.done += 1
            if self.done == self.fails:
                if real.__name__ == "save_file":  # half of it is there
                    Path(args[1]).write_bytes(b"half")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args, **more)

        return step


def test_a_full_disk_leaves_the_states_before(tmp_path: Path) -> None:
    run = Trained(steps=1)
    run.save(tmp_path, 3)
    good = hash_module(run.module)
    run.walk(1)
    stops = 0
    while True:
        with pytest.MonkeyPatch.context() as monkeypatch:
            FullDisk(monkeypatch, stops + 1)
            try:
                run.save(tmp_path, 6)
            except CheckpointError as error:
                assert os.strerror(errno.ENOSPC) in error.what and "free disk space" in (error.remedy or "")
            else:
                break
        stops += 1
        assert names(tmp_path)[0] == "step-00000003"
        if names(tmp_path) == ["step-00000003"]:
            fresh = Trained()
            assert fresh.load(tmp_path) is not None and hash_module(fresh.module) == good
        shutil.rmtree(tmp_path / "state" / "step-00000006", ignore_errors=True)
    assert stops >= 8 and names(tmp_path) == ["step-00000003", "step-00000006"]
    fresh = Trained()
    assert fresh.load(tmp_path) is not None and hash_module(fresh.module) == hash_module(run.module)


def test_states_inside_an_update_lie_between_those_around_it(tmp_path: Path) -> None:
    run = Trained(steps=1)
    for step, part in ((2, 0), (2, 1), (2, 12), (3, 0)):
        save_state(tmp_path, TrainingState(step, part), run.modules, run.optimizers, keep=9)
    order = ["step-00000002", "step-00000002-000001", "step-00000002-000012", "step-00000003"]
    assert names(tmp_path) == order
    save_state(tmp_path, TrainingState(2, 3), run.modules, run.optimizers, keep=2)
    assert names(tmp_path) == ["step-00000002-000001", "step-00000002-000003"]
    state = run.load(tmp_path)
    assert state is not None and (state.step, state.part) == (2, 3)


def test_state_of_another_model_is_refused_and_nothing_changed(tmp_path: Path) -> None:
    Trained(steps=1).save(tmp_path, 3)
    other = Trained()
    other.module.norm = nn.LayerNorm(8)
    before = hash_module(other.module)
    with pytest.raises(CheckpointError, match="belongs to another model or optimizer"):
        other.load(tmp_path)
    run = Trained()
    with pytest.raises(CheckpointError):
        load_state(tmp_path, run.modules | {"value": Tiny()}, run.optimizers)
    run.adamw.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    with pytest.raises(CheckpointError):
        run.load(tmp_path)
    assert hash_module(other.module) == before
    assert Trained().load(tmp_path / "elsewhere") is None


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_sharded_state_is_whole_and_fits_any_layout(tmp_path: Path) -> None:
    def sharded(steps: int) -> Trained:
        run = Trained()
        mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
        fully_shard(run.module, mesh=mesh)
        run.adamw = AdamW(run.module.parameters(), lr=0.01, fused=True)
        run.optimizers = {"policy": run.adamw}
        run.walk(steps)
        assert all(isinstance(p, DTensor) for p in run.module.parameters())
        return run

    saved = sharded(steps=2)
    saved.save(tmp_path, 2)
    fresh = sharded(steps=0)
    assert fresh.load(tmp_path) is not None
    whole = Trained()
    whole.adamw = AdamW(whole.module.parameters(), lr=0.01, fused=True)
    whole.optimizers = {"policy": whole.adamw}
    assert whole.load(tmp_path) is not None
    for run in (saved, fresh, whole):
        run.walk(1)
    assert hash_module(saved.module) == hash_module(fresh.module) == hash_module(whole.module)


def test_hashes_tell_weights_apart(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    a = {"x": torch.tensor([1.0, 2.0]), "y": torch.tensor(3, dtype=torch.int64)}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    save_file(a, tmp_path / "a" / "model.safetensors")
    save_file({"y": a["y"]}, tmp_path / "b" / "1.safetensors")
    save_file({"x": a["x"]}, tmp_path / "b" / "2.safetensors", metadata={"format": "pt"})
    assert hash_folder(tmp_path / "a") == hash_folder(tmp_path / "b")
    for other in ({"x": -a["x"]}, {"x": a["x"].double()}, {"x": a["x"][None]}, {"z": a["x"]}):
        save_file(other, tmp_path / "b" / "2.safetensors")
        assert hash_folder(tmp_path / "a") != hash_folder(tmp_path / "b")
    with pytest.raises(CheckpointError, match="no safetensors"):
        hash_folder(tmp_path / "none")
    weights = next((tmp_path / "a").rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"safetensors: damaged weights"):
        hash_folder(tmp_path / "a")
    module = Tiny()
    before = hash_module(module)
    with torch.no_grad():
        module.body.bias[3] += 1e-6
    assert hash_module(module) != before


def test_done_names_every_output_and_removes_the_state(tmp_path: Path) -> None:
    assert not (tmp_path / "DONE").exists()
    Trained(steps=1).save(tmp_path, 1)
    (tmp_path / "checkpoint" / "inner").mkdir(parents=True)
    (tmp_path / "checkpoint" / "inner" / "a.txt").write_text("abc")
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(CheckpointError, match="did not write"):
        write_done(tmp_path, ["checkpoint", "samples.jsonl"])
    assert not (tmp_path / "DONE").exists() and (tmp_path / "state").exists()
    written = write_done(tmp_path, ["checkpoint", "metrics.jsonl"])
    assert (
        written
        == read_outputs(tmp_path)
        == {
            "checkpoint/inner/a.txt": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "metrics.jsonl": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        }
    )
    assert not (tmp_path / "state").exists()
    (tmp_path / "DONE").write_text("{}")
    with pytest.raises(LabError, match="not a valid DONE file"):
        read_outputs(tmp_path)


def test_trap_no_pickle(tmp_path: Path) -> None:
    run = Trained(steps=1)
    state = run.save(tmp_path, 1)
    assert {path.suffix for path in state.iterdir()} == {".safetensors", ".json"}
    for name in ("optimizer.pt", "state.pkl", "pytorch_model.bin"):
        (state / name).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    assert Trained().load(tmp_path) is not None
    meta = json.loads((state / "state.json").read_text())
    meta["state"]["sha256"]["optimizer.pt"] = checkpoint._sha256(state / "optimizer.pt")
    meta["sha256"] = checkpoint._digest(meta["state"])
    (state / "state.json").write_text(json.dumps(meta))
    with pytest.warns(RuntimeWarning, match="damaged"):
        assert Trained().load(tmp_path) is None


PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def pickle_use(path: Path) -> list[str]:
    """What in a source file could read or write a pickle."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in PICKLES]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module] if (node.module or "").split(".")[0] in PICKLES else []
            found += [a.name for a in node.names if node.module == "torch" and a.name in {"load", "save"}]
        elif isinstance(node, ast.Attribute) and node.attr in {"load", "load_state", "save"}:
            owner = ast.unparse(node.value)
            found += [f"{owner}.{node.attr}"] if owner in {"torch", "accelerator", "self.accelerator"} else []
        elif isinstance(node, ast.keyword) and node.arg in {"allow_pickle", "weights_only"}:
            found += [ast.unparse(node)]
    return found


def test_trap_no_code_here_can_load_a_pickle(tmp_path: Path) -> None:
    uses = {str(path.relative_to(ROOT)): pickle_use(path) for path in ROOT.rglob("*.py")}
    assert "train/checkpoint.py" in uses and {path: use for path, use in uses.items() if use} == {}
    bad = tmp_path / "bad.py"
    bad.write_text("import pickle\nfrom torch import load\ntorch.load(p, weights_only=True)\n")
    assert len(pickle_use(bad)) == 4
