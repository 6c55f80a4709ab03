"""Two processes, by DDP or FSDP2, do what one does: losses, samples, files that load anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.stages import forks
from tests.stages import lab as laboratory
from tldr.models.packed import PackedBatch
from tldr.models.reward import load_reward
from tldr.records import Sample, read_records
from tldr.stages.reward.algorithm import RankedPrompt, ranked_posts, shared_scores
from tldr.study.folder import last_error
from tldr.study.launch import Launch
from tldr.train.metrics import TIMES, read_metrics

ADAMW = {"lr": 1e-3, "eps": 1e-4}
"""With an eps so large AdamW does not turn rounding errors of vanishing gradients into full steps."""
JOBS: dict[str, dict[str, Any]] = {
    "sft": {"epochs": 0.4, "select": "valid_loss", "dropout": 0.0, "micro_batch": 2, "optimizer": ADAMW},
    "reward": {"epochs": 0.3, "optimizer": ADAMW},
    "ppo": {"episodes": 32, "micro_batch": 3, "frozen_place": "shard", "optimizer": ADAMW},
}


def run(lab: Path, out: Path, **how: Any) -> Path:
    folders = [forks.prepare(stage, lab, out / stage, changes) for stage, changes in JOBS.items()]
    forks.finish(*folders, **how)
    return out


@pytest.fixture(scope="module")
def alone(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stages run in one process."""
    return run(lab, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module", params=["ddp", "fsdp2"])
def shared(lab: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The stages run in two processes."""
    environment = forks.FSDP2 if request.param == "fsdp2" else {}
    return run(lab, tmp_path_factory.mktemp(request.param), processes=2, environment=environment)


def test_two_processes_log_the_figures_of_one(alone: Path, shared: Path) -> None:
    for stage in JOBS:
        one, two = (read_metrics(out / stage / "metrics.jsonl") for out in (alone, shared))
        assert len(one) == len(two) >= 2
        for a, b in zip(one, two, strict=True):
            assert a.keys() == b.keys()
            expected = {name: a[name] for name in a.keys() - TIMES}
            assert {name: b[name] for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-5), stage


def test_two_processes_sample_what_one_does(alone: Path, shared: Path) -> None:
    """A sample depends on its place in the batch, not on the process that draws it."""
    one, two = (read_records(out / "ppo" / "rollouts.jsonl", Sample) for out in (alone, shared))
    assert [(s.id, s.response_ids) for s in one] == [(s.id, s.response_ids) for s in two]
    assert len({tuple(s.response_ids or ()) for s in one}) > 8, "the processes draw the same"


def test_two_processes_judge_as_one_does(alone: Path, shared: Path) -> None:
    one, two = (json.loads((out / "reward" / "evaluation.json").read_text()) for out in (alone, shared))
    assert two.keys() == one.keys() and two.pop("shift_in") == one.pop("shift_in")
    assert two == pytest.approx(one, rel=1e-4, abs=1e-4) and one["valid2_pairs"] > 20


@pytest.mark.parametrize("environment", [{}, forks.FSDP2], ids=["ddp", "fsdp2"])
def test_two_processes_keep_the_epochs_of_one(lab: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    """A copy of the weights is taken in the middle of training, also where they are sharded."""
    changes = {"epochs": 2.0, "select": "reward", "dropout": 0.0, "limit": 32, "optimizer": ADAMW}
    one, two = (forks.prepare("sft", lab, tmp_path / name, changes) for name in ("one", "two"))
    forks.finish(one)
    forks.finish(two, processes=2, environment=environment)
    weights = [
        {name: load_file(folder / name / "model.safetensors") for name in ("epoch-1", "checkpoint")}
        for folder in (one, two)
    ]
    apart = max(
        float((tensor - weights[1][name][key]).abs().max())
        for name, tensors in weights[0].items()
        for key, tensor in tensors.items()
    )
    moved = max(
        float((weights[0]["epoch-1"][key] - last).abs().max())
        for key, last in weights[0]["checkpoint"].items()
    )
    assert apart < 1e-4 and moved > 10 * apart


def test_the_processes_share_what_is_judged(lab: Path) -> None:
    """Each scores batches of its own, and calls as often as the other."""
    model = load_reward(lab / "reward" / "checkpoint")
    examples = [
        RankedPrompt([5] * (20 + row % 150), [[6, 7], [8]][: 1 + row % 2], [1, 2]) for row in range(600)
    ]
    calls: list[int] = []

    def call(function: Callable[..., Tensor], packed: PackedBatch) -> Tensor:
        calls.append(len(packed.query))
        return function({"reward": model}, packed)

    def scores(process: int, processes: int) -> list[list[float]]:
        accelerator = SimpleNamespace(
            process_index=process,
            num_processes=processes,
            device=torch.device("cpu"),
            reduce=lambda tensor, _: tensor,
        )
        stepper: Any = SimpleNamespace(accelerator=accelerator, modules={"reward": model}, call=call)
        return shared_scores(stepper, ranked_posts(examples, share=False), 0)

    whole, often = scores(0, 1), len(calls)
    parts = [scores(process, 4) for process in range(4)]
    assert often % 4 and len(calls) - often == 4 * -(-often // 4)
    assert len(calls) > 5 and [len(row) for row in whole] == [len(one.responses) for one in examples]
    for row, *shares in zip(whole, *parts, strict=True):
        assert sorted(share != [0.0] * len(row) for share in shares) == [False, False, False, True]
        assert np.allclose(np.sum(shares, axis=0), row, atol=1e-6)


def test_what_two_processes_save_loads_in_plain_transformers(lab: Path, alone: Path, shared: Path) -> None:
    ids = torch.arange(3, 19)[None]
    causal, classifier = AutoModelForCausalLM, AutoModelForSequenceClassification
    for stage, parent, kind in (
        ("sft", "pretrain", causal),
        ("reward", "reward", classifier),
        ("ppo", "sft", causal),
        ("ppo/value", "reward", classifier),
    ):
        folders = [out / (stage if "/" in stage else f"{stage}/checkpoint") for out in (alone, shared)]
        with torch.inference_mode():
            before, one, two = (
                kind.from_pretrained(folder)(input_ids=ids).logits
                for folder in (lab / parent / "checkpoint", *folders)
            )
        assert torch.allclose(two, one, atol=1e-4, rtol=1e-4), stage
        assert (one - before).abs().max() > 1e-3, "a stage that trained nothing would pass too"


def test_sharded_bf16_keeps_float32_weights(lab: Path, tmp_path: Path) -> None:
    """Gathered in bf16 to compute with; what is updated, kept and saved is float32."""
    changes = {**JOBS["sft"], "epochs": 0.2}
    one, two = (forks.prepare("sft", lab, tmp_path / name, changes, "bf16") for name in ("one", "two"))
    forks.finish(one)
    forks.finish(two, processes=2, environment=forks.FSDP2)
    losses = [[row["loss"] for row in read_metrics(place / "metrics.jsonl")] for place in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    for name, weight in load_file(two / "checkpoint" / "model.safetensors").items():
        assert weight.dtype == torch.float32 and not weight.equal(weight.bfloat16().float()), name


def test_recomputed_activations_change_no_figure_of_ppo(lab: Path, tmp_path: Path) -> None:
    """Training mode, which recomputing needs, brings no dropout back, and sampling keeps its cache."""
    changes = {"gradient_checkpointing": True, "episodes": 32}
    settings = [laboratory.changed("ppo", {**changes, "gradient_checkpointing": on}) for on in (False, True)]
    rows = []
    for number, one in enumerate(settings):
        laboratory.run(laboratory.context("ppo", lab, tmp_path / str(number), settings=one), "ppo")
        rows.append(read_metrics(tmp_path / str(number) / "metrics.jsonl"))
    for before, after in zip(*rows, strict=True):
        expected = {name: before[name] for name in before.keys() - TIMES}
        assert {name: after[name] for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.slow
def test_accelerate_launches_a_run_stops_it_and_goes_on(lab: Path, tmp_path: Path) -> None:
    """The shipped configs; SIGTERM to the launcher lets all processes save."""
    root = Path(__file__).parents[2]
    folder = forks.prepare("sft", lab, tmp_path / "sft", {**JOBS["sft"], "epochs": 1.0, "save_every": 100})
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    for name in ("2cpu-ddp", "2cpu-fsdp2"):
        command = Launch.read(root / "configs" / "accelerate" / f"{name}.yaml").command()
        with (folder / "log.txt").open("ab") as log:
            process = subprocess.Popen([*command, str(folder)], env=environment, stdout=log, stderr=log)
        if name == "2cpu-ddp":
            while len(read_metrics(folder / "metrics.jsonl")) < 3:
                assert process.poll() is None, (folder / "log.txt").read_text()[-3000:]
                time.sleep(0.01)
            process.terminate()
            assert process.wait() != 0
            assert list((folder / "state").glob("step-????????")) and last_error(folder) is None
    assert process.wait() == 0, (folder / "log.txt").read_text()[-3000:]
    assert (folder / "DONE").exists() and len(read_metrics(folder / "metrics.jsonl")) == 12
