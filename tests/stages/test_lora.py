"""Stages under LoRA: what is trained, kept and saved; the reference that is no second copy."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.stages import forks
from tests.stages import lab as laboratory
from tests.stages.test_resume import figures, kill_after
from tldr.errors import UsageError
from tldr.models.ladder import load_policy
from tldr.models.packed import PackedBatch, collate, response_logprobs
from tldr.stages.ppo import stage as ppo
from tldr.stages.ppo.algorithm import PPO
from tldr.train import stepper
from tldr.train.checkpoint import hash_folder
from tldr.train.frozen import Frozen, LoraOff
from tldr.train.metrics import read_metrics

IDS = torch.arange(3, 19)[None]
LORA = {"rank": 4, "alpha": 16}
JOBS: dict[str, dict[str, Any]] = {
    "sft": {"lora": LORA | {"dropout": 0.1}, "select": "valid_loss", "save_every": 2},
    "reward": {"lora": LORA | {"dropout": 0.1, "targets": ["query_key_value", "dense"]}, "save_every": 2},
    "ppo": {"lora": LORA, "save_steps": 1},
}
PARENTS = {"sft": "pretrain", "reward": "reward", "ppo": "sft", "ppo/value": "reward"}


def run(lab: Path, folder: Path, stage: str, **changes: Any) -> Path:
    settings = laboratory.changed(stage, JOBS[stage] | changes)
    return laboratory.run(laboratory.context(stage, lab, folder, settings=settings), stage)


def logits(model: nn.Module) -> Tensor:
    model.eval()
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("stage", JOBS)
def test_what_is_saved_is_plain_and_gives_the_trained_models_logits(
    lab: Path, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[Tensor] = []
    merge = stepper.merge_lora

    def spy(model: nn.Module) -> None:
        assert any("lora_A" in name for name, _ in model.named_parameters())
        ends.append(logits(model))
        merge(model)

    monkeypatch.setattr(stepper, "merge_lora", spy)
    run(lab, tmp_path, stage)
    kinds = {"ppo/value": AutoModelForSequenceClassification, "reward": AutoModelForSequenceClassification}
    places = ["ppo", "ppo/value"] if stage == "ppo" else [stage]
    shift = json.loads((tmp_path / "evaluation.json").read_text())["shift"] if stage == "reward" else 0.0
    assert len(ends) == len(places)
    for place, end in zip(places, ends, strict=True):
        inner = "value" if "/" in place else "checkpoint"
        kind = kinds.get(place, AutoModelForCausalLM)
        saved, parent = kind.from_pretrained(tmp_path / inner), PARENTS[place]
        assert torch.allclose(logits(saved), end - shift, atol=1e-5, rtol=0), place
        names = [
            set(load_file(f / "model.safetensors")) for f in (tmp_path / inner, lab / parent / "checkpoint")
        ]
        assert names[0] == names[1]
        before = kind.from_pretrained(lab / parent / "checkpoint")
        assert (logits(before) - logits(saved)).abs().max() > 1e-3, "nothing was trained"
        if place != "reward":  # whose norm takes the shift
            learnt = {n for n, p in saved.named_parameters() if not torch.equal(p, before.get_parameter(n))}
            assert all(name == "score.weight" or saved.get_parameter(name).ndim == 2 for name in learnt)
            assert not [name for name in learnt if "embed" in name]
    if stage == "ppo":
        rows = read_metrics(tmp_path / "metrics.jsonl")
        assert rows[0]["kl"] == pytest.approx(0, abs=1e-6) and abs(rows[-1]["kl"]) > 1e-4
        assert all(abs(row["first_ratio"] - 1) < 1e-6 for row in rows)


@pytest.mark.parametrize("stage", JOBS)
def test_killed_under_lora_and_resumed_equals_uninterrupted(lab: Path, tmp_path: Path, stage: str) -> None:
    whole, killed = (forks.prepare(stage, lab, tmp_path / name, JOBS[stage]) for name in ("whole", "killed"))
    forks.finish(whole)
    total = len(read_metrics(whole / "metrics.jsonl"))
    (process,) = forks.start(killed, held=total // 2)
    assert kill_after(process, killed / "metrics.jsonl", total // 2), "ended before the kill"
    state = sorted((killed / "state").glob("step-*[0-9]"))[-1]
    sizes = {}
    for path in state.glob("*.safetensors"):
        sizes[path.name] = {name: tensor.shape for name, tensor in load_file(path).items()}
    modules = [names for file, names in sizes.items() if file.startswith("module.")]
    assert all("lora_" in name or name == "score.weight" for names in modules for name in names)
    for file, names in sizes.items():
        if file.startswith("optimizer."):
            learnt = sizes[file.replace("optimizer.", "module.")]
            moments = [shape for name, shape in names.items() if name.endswith(".exp_avg")]
            assert sorted(moments) == sorted(learnt.values())
    forks.finish(killed)
    assert hash_folder(killed / "checkpoint") == hash_folder(whole / "checkpoint")
    assert figures(killed) == figures(whole)


def ppo_stage(lab: Path, folder: Path, **inputs: Path) -> PPO:
    ctx = laboratory.context("ppo", lab, folder, settings=laboratory.changed("ppo", {"lora": LORA}))
    return laboratory.ppo_of(laboratory.rewired(ctx, **inputs))


def batch() -> PackedBatch:
    return collate([[5, 6, 7], [8, 9]], [[[10, 11, 12]], [[13, 14]]], 1)


def reference_logprobs(stage: PPO) -> Tensor:
    with torch.no_grad(), stage.reference.at_work() as call:
        found: Tensor = call(response_logprobs, batch())
    return found


def test_trap_the_reference_under_lora_is_the_sft_model_and_no_second_copy(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Any] = []
    monkeypatch.setattr(
        ppo, "load_policy", lambda *args, **how: loads.append(args) or load_policy(*args, **how)
    )
    stage = ppo_stage(lab, tmp_path)
    policy = stage.stepper.modules["policy"]
    learnt = [p for p in policy.parameters() if p.requires_grad]
    with torch.no_grad():
        for parameter in learnt:
            parameter.add_(0.1)
    own = response_logprobs(load_policy(lab / "sft" / "checkpoint"), batch())
    assert torch.allclose(reference_logprobs(stage), own, atol=1e-6, rtol=0)
    assert (response_logprobs(policy, batch()) - own).abs().max() > 0.01, "the adapters are in use again"
    assert all(parameter.requires_grad for parameter in learnt)
    assert isinstance(stage.reference, LoraOff) and len(loads) == 1
    with stage.reference.at_work() as call:
        assert call(lambda model: model is policy)


def test_another_reference_is_a_copy(lab: Path, tmp_path: Path) -> None:
    stage = ppo_stage(lab, tmp_path, reference=lab / "pretrain")
    own = response_logprobs(load_policy(lab / "pretrain" / "checkpoint"), batch())
    assert isinstance(stage.reference, Frozen)
    assert torch.allclose(reference_logprobs(stage), own, atol=1e-6, rtol=0)


def test_trap_no_adapter_dropout_in_rl() -> None:
    with pytest.raises(ValidationError, match="dropout is off in RL"):
        laboratory.changed("ppo", {"lora": LORA | {"dropout": 0.1}})


@pytest.mark.parametrize(
    ("package", "changes", "where"),
    [
        ("peft", {"lora": LORA}, "sft.lora"),
        ("bitsandbytes", {"optimizer": {"kind": "adamw8bit"}}, "sft.optimizer.kind"),
    ],
)
def test_a_missing_package_is_named_before_anything_is_done(
    lab: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    changes: dict[str, Any],
    where: str,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    folder = forks.prepare("sft", lab, tmp_path, changes)
    with pytest.raises(UsageError, match=f"needs the package {package}, which is not installed") as caught:
        forks.execute(folder)
    assert caught.value.where == where
    assert (caught.value.remedy or "").startswith("pip install 'tldr-feedback[")
    assert not (folder / "metrics.jsonl").exists()
    assert where in json.dumps(json.loads((folder / "FAILED").read_text()))
