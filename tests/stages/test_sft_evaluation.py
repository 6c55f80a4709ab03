"""The loss on valid1 by which one of several supervised policies is taken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.stages import lab as laboratory
from tldr.models.ladder import load_policy
from tldr.models.packed import response_logprobs
from tldr.stages.sft.algorithm import encode_references, pack
from tldr.stages.shared.posts import read_posts
from tldr.stages.shared.tokenizers import open_tokenizer, pad_id
from tldr.train.metrics import read_metrics


def loss_of(folder: Path, data: Path, checkpoint: str = "checkpoint") -> float:
    """Cross-entropy a token of the saved policy on the references of valid1, in one batch."""
    tokenizer = open_tokenizer(data)
    posts = read_posts(data, "valid1", references=True)
    batch = pack(encode_references(tokenizer, posts, laboratory.LENGTHS), pad_id(tokenizer))
    policy = load_policy(folder / checkpoint, tokenizer)
    with torch.no_grad():
        logprobs = response_logprobs(policy, batch)
    return float(-logprobs[batch.response_mask].mean())


@pytest.mark.parametrize("select", ["last", "valid_loss"])
def test_it_is_that_of_the_saved_policy(lab: Path, tmp_path: Path, select: str) -> None:
    ctx = laboratory.context("sft", lab, tmp_path / "sft")
    # so many passes over so few posts that the last epoch is not the best
    optimizer = ctx.settings.optimizer.model_copy(update={"lr": 0.02, "schedule": "constant"})
    changes = {"select": select, "limit": 8, "epochs": 40.0, "optimizer": optimizer}
    laboratory.run(replace(ctx, settings=ctx.settings.model_copy(update=changes)), "sft")
    found = json.loads((tmp_path / "sft" / "evaluation.json").read_text())
    assert found["valid1_loss"] == pytest.approx(loss_of(tmp_path / "sft", lab / "data"), rel=1e-4)
    assert found["posts"] == laboratory.SETTINGS["data"].data.valid1_posts  # type: ignore[attr-defined]
    rows = read_metrics(tmp_path / "sft" / "metrics.jsonl")
    losses = [row["valid_loss"] for row in rows if "valid_loss" in row]
    assert len(losses) == 40
    assert found["valid1_loss"] == (losses[-1] if select == "last" else min(losses))
    assert min(losses) < losses[-1], "the case does not tell the two apart"
