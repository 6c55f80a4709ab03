"""One optimizer step: the gradient of sum over count, whatever the micro-batches."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import torch
from tiny_run import OPTIMIZER, VOCAB, Tiny, corpus, next_token_loss, stepper, train
from torch import Tensor, nn

from tldr.errors import NonFiniteError, UsageError
from tldr.models.ladder import build_policy
from tldr.settings.models import ModelSpec
from tldr.settings.training import Optimizer, Training
from tldr.stages.shared.language import EncodedDocument, collate_documents, language_loss
from tldr.train.batching import micro_batches
from tldr.train.metrics import TIMES, read_metrics
from tldr.train.processes import make_accelerator
from tldr.train.stepper import Loss, Stepper, _flops_per_token

BATCH = corpus(8)
TEXT = collate_documents([EncodedDocument(ids.tolist(), 0) for ids in BATCH], 1, 1.0)


def weights(step: Stepper) -> Tensor:
    return torch.cat([p.detach().flatten() for m in step.modules.values() for p in m.parameters()])


def after_step(
    size: int, loss=next_token_loss, optimizer: Optimizer = OPTIMIZER
) -> tuple[Tensor, dict[str, float]]:
    step = stepper(dropout=0.0, optimizer=optimizer)
    rows = [step.step(loss, micro_batches(BATCH, size)) for _ in range(2)]
    return weights(step), rows[-1]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_micro_batches_change_nothing(size: int) -> None:
    assert len({len(sequence) for sequence in BATCH}) > 3
    whole, whole_row = after_step(8)
    parts, row = after_step(size)
    assert torch.allclose(parts, whole, atol=1e-6, rtol=0)
    assert row == pytest.approx(whole_row, abs=1e-6)
    assert row["tokens"] == sum(map(len, BATCH))


def test_mean_of_means_would_be_noticed() -> None:
    def mean_loss(modules: nn.ModuleDict, sequences: list[Tensor]) -> Loss:
        loss = next_token_loss(modules, sequences)
        return Loss(loss.total / loss.count, 1.0)

    plain = Optimizer(lr=0.02, eps=1.0)  # a large eps: AdamW does not hide the gradient's size
    whole, _ = after_step(8, mean_loss, plain)
    parts, _ = after_step(1, mean_loss, plain)
    assert not torch.allclose(parts, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("clip", [0.5, 50.0])
def test_equals_a_loop_written_out(clip: float) -> None:
    eps = 1.0  # so large that AdamW does not hide the gradient's size
    module = Tiny(dropout=0.0)
    matrices = [p for p in module.parameters() if p.ndim == 2]
    vectors = [p for p in module.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=0.02, betas=(0.9, 0.95), eps=eps)
    settings = Optimizer(lr=0.02, weight_decay=0.1, eps=eps, clip=clip)
    step = stepper(dropout=0.0, optimizer=settings)
    assert weights(step).equal(torch.cat([p.detach().flatten() for p in module.parameters()]))
    for _ in range(3):
        loss = next_token_loss(nn.ModuleDict({"policy": module}), BATCH)
        mean = loss.total / loss.count
        mean.backward()
        norm = nn.utils.clip_grad_norm_(module.parameters(), clip)
        adamw.step()
        adamw.zero_grad()
        row = step.step(next_token_loss, micro_batches(BATCH, 3))
        assert row["loss"] == pytest.approx(mean.item(), abs=1e-6)
        assert row["grad_norm"] == pytest.approx(norm.item(), rel=1e-5)
        assert row["accuracy"] == pytest.approx(float(loss.stats["accuracy"] / loss.count))
        assert 0.5 < row["grad_norm"] < 50.0  # one limit at work, one not
    expected = torch.cat([p.detach().flatten() for p in module.parameters()])
    assert torch.allclose(weights(step), expected, atol=1e-6, rtol=0)


def test_each_parameter_moves() -> None:
    step = stepper()
    before = {name: p.detach().clone() for name, p in step.modules["policy"].named_parameters()}
    step.step(next_token_loss, [BATCH])
    for name, parameter in step.modules["policy"].named_parameters():
        assert not parameter.equal(before[name]), name
        assert parameter.grad is None


def two_models(lr: float = 0.02) -> Stepper:
    modules = {"policy": Tiny(0.0), "value": nn.Sequential(nn.Embedding(VOCAB, 4), nn.Linear(4, 1))}
    torch.nn.init.ones_(modules["value"][1].weight)
    settings = Training(optimizer=Optimizer(lr=lr, clip=1e-3))
    return Stepper(make_accelerator("fp32"), modules, settings, 1, {"value": 3 * lr})


def both_losses(modules: nn.ModuleDict, sequences: list[Tensor]) -> Loss:
    policy = next_token_loss(modules, sequences)
    value = sum((modules["value"](ids[1:]) ** 2).sum() for ids in sequences)
    return Loss(policy.total + value, policy.count, policy.tokens, {"value_loss": value})


def test_two_models_have_a_rate_and_a_limit_each() -> None:
    step = two_models()
    step.set_lr(0, 4)
    row = step.step(both_losses, micro_batches(BATCH, 3))
    assert row["lr_policy"] == 0.02 and row["lr_value"] == pytest.approx(0.06)
    assert {"grad_norm_policy", "grad_norm_value", "value_loss"} < row.keys() and "lr" not in row
    settings = Training(optimizer=Optimizer(lr=0.02, clip=1e-3))
    alone = Stepper(make_accelerator("fp32"), {"policy": Tiny(0.0)}, settings, 1)
    alone.step(next_token_loss, micro_batches(BATCH, 3))
    policy = torch.cat([p.detach().flatten() for p in step.modules["policy"].parameters()])
    assert policy.equal(weights(alone))


def test_schedule_sets_the_rates() -> None:
    step = two_models()
    step.settings = Optimizer(lr=0.02, schedule="linear", warmup=2, final=0.5)
    rates = []
    for update in range(6):
        step.set_lr(update, 6)
        rates.append([g["lr"] for o in step.optimizers.values() for g in o.param_groups])
    expected = [0.01, 0.02, 0.02, 0.0175, 0.015, 0.0125]
    assert rates == [pytest.approx([lr, lr, 3 * lr, 3 * lr]) for lr in expected]


def test_nan_changes_no_weight() -> None:
    def poisoned(modules: nn.ModuleDict, sequences: list[Tensor]) -> Loss:
        loss = next_token_loss(modules, sequences)
        return Loss(loss.total * float("nan"), loss.count)

    def steep(modules: nn.ModuleDict, sequences: list[Tensor]) -> Loss:  # d sqrt(x) at 0
        zero = (modules["policy"].body.bias * 0).sum()
        return Loss(zero.sqrt(), 1.0)

    def empty(modules: nn.ModuleDict, sequences: list[Tensor]) -> Loss:
        return Loss(next_token_loss(modules, sequences).total * 0, 0.0)

    step = stepper()
    before = weights(step)
    for loss, message in ((poisoned, "the loss is nan"), (steep, "gradient norm is"), (empty, "count of 0")):
        with pytest.raises(NonFiniteError, match=message):
            step.step(loss, micro_batches(BATCH, 3))
        assert weights(step).equal(before) and step.steps == 0
    clean = stepper()
    clean.step(next_token_loss, [BATCH])
    step.step(next_token_loss, [BATCH])
    assert weights(step).equal(weights(clean))  # nothing of the bad gradients stayed behind


def test_dropout_masks_follow_the_step_not_the_process() -> None:
    masks = []

    def watched(modules: nn.ModuleDict, sequences: list[Tensor]) -> Loss:
        masks.append(modules["policy"].dropout(torch.ones(64)) > 0)
        return next_token_loss(modules, sequences)

    step = stepper()
    for _ in range(2):
        step.step(watched, micro_batches(BATCH, 4))
        torch.rand(3)
    again = stepper()
    again.steps = 1
    again.step(watched, micro_batches(BATCH, 4))
    first, second, third, fourth, fifth, sixth = masks
    assert not first.equal(second) and not first.equal(third)
    assert fifth.equal(third) and sixth.equal(fourth)


def test_bf16_computes_in_bf16_and_keeps_float32_weights() -> None:
    seen = []

    def watched(modules: nn.ModuleDict, sequences: list[Tensor]) -> Loss:
        seen.append(modules["policy"].body(torch.ones(2, 16)).dtype)
        return next_token_loss(modules, sequences)

    exact, rough = stepper(0.0), stepper(0.0, "bf16")
    assert (exact.precision, rough.precision) == ("fp32", "bf16")
    loss = exact.step(next_token_loss, [BATCH])["loss"]
    assert rough.step(watched, [BATCH])["loss"] == pytest.approx(loss, rel=0.02)
    assert rough.call(lambda modules: modules["policy"].body(torch.ones(2, 16)).dtype) == torch.bfloat16
    assert seen == [torch.bfloat16]
    assert all(p.dtype == torch.float32 for p in rough.modules["policy"].parameters())


@pytest.mark.parametrize("arch", ["gpt_neox", "gpt2", "opt", "llama"])
def test_recomputed_layers_give_the_same_gradients(arch: str) -> None:
    """... and are recomputed: each layer runs twice."""
    rows, ends, passes = [], [], []
    for recompute in (False, True):
        spec = ModelSpec(arch=arch, d_model=16, layers=2, heads=2, context=32)
        policy = build_policy(spec, vocab_size=VOCAB, eos_id=0, pad_id=1, seed=1)
        (layer,) = [m for name, m in policy.named_modules() if name.endswith(("layers.1", "h.1"))]
        calls: list[int] = []
        # On a part of it: what transformers 5.23 runs again is the layer's forward, without its own hooks.
        next(layer.children()).register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        settings = Training(optimizer=Optimizer(lr=0.01, eps=1.0), gradient_checkpointing=recompute)
        step = Stepper(make_accelerator("fp32"), {"policy": policy}, settings, 1)
        rows.append(step.step(lambda parts, batch: language_loss(parts, batch), [TEXT, TEXT]))
        ends.append(weights(step))
        passes.append(len(calls))
    assert passes == [2, 4]
    assert rows[0] == pytest.approx(rows[1], rel=1e-6) and rows[0]["grad_norm"] > 0.01
    assert torch.allclose(*ends, atol=1e-7, rtol=0)


def test_a_module_without_layers_cannot_be_recomputed() -> None:
    settings = Training(gradient_checkpointing=True)
    with pytest.raises(UsageError, match="Tiny does not support gradient checkpointing"):
        Stepper(make_accelerator("fp32"), {"policy": Tiny()}, settings, 1)


def test_flops_count_the_body() -> None:
    assert stepper().flops_per_token == 6 * 16 * 16  # not the embedding, nor the head tied to it
    assert math.isclose(two_models().flops_per_token, 6 * (16 * 16 + 4))


@pytest.mark.parametrize("arch", ["opt", "llama"])
def test_flops_of_frozen_parameters_by_hand(arch: Literal["opt", "llama"]) -> None:
    """A frozen matrix takes no gradient of its own; with nothing trained below it, none goes through it."""
    spec = ModelSpec(arch=arch, d_model=16, layers=3, heads=2, context=16)
    model = build_policy(spec, vocab_size=32, eos_id=0, pad_id=1, seed=0)
    stepper = Stepper(make_accelerator("fp32"), {"policy": model}, Training(), 0)
    layers = next(part for part in model.modules() if isinstance(part, nn.ModuleList))
    layer = sum(p.numel() for p in layers[0].parameters() if p.ndim >= 2)
    assert stepper.flops_per_token == 3 * 6 * layer
    layers[1].requires_grad_(False)
    assert _flops_per_token(model) == (6 + 4 + 6) * layer
    for part in (layers[0], *(part for part in model.modules() if isinstance(part, nn.Embedding))):
        part.requires_grad_(False)
    assert _flops_per_token(model) == (2 + 2 + 6) * layer
    model.requires_grad_(False)
    assert _flops_per_token(model) == 3 * 2 * layer


def test_state_that_needs_pickle_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import Accelerator, DistributedType

    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType.DEEPSPEED)
    with pytest.raises(UsageError, match="DEEPSPEED stores its optimizer state"):
        make_accelerator("fp32")


def test_two_processes_equal_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = [sys.executable, str(Path(__file__).with_name("tiny_run.py")), str(tmp_path / "two"), "0", "0"]
    here = {"PYTHONPATH": str(Path(__file__).parents[2]), "ACCELERATE_USE_CPU": "true"}
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    ranks = [
        subprocess.Popen(
            script,
            env={**os.environ, **here, **meet, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    train(tmp_path / "one", dropout=0.0)
    hashes = [process.communicate(timeout=600)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0] and hashes[0] == hashes[1]
    one, two = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    assert len(one) == len(two) == 12
    for a, b in zip(one, two, strict=True):
        keys = a.keys() - TIMES
        assert {key: b[key] for key in keys} == pytest.approx({key: a[key] for key in keys}, rel=1e-4)
