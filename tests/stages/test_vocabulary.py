"""A study on a model whose vocabulary is padded beyond its tokenizer: text, ids and log-probs agree."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from tests.stages import lab as laboratory
from tldr.errors import RecordError
from tldr.inputs.posts import load_posts
from tldr.models.ladder import load_policy
from tldr.queries.encode import encode_queries
from tldr.queries.tokenizer import load_tokenizer
from tldr.records import Sample, read_records
from tldr.settings.models import Lengths
from tldr.stages.sft.algorithm import encode_references, full_text_loss, pack, response_loss
from tldr.stages.shared.summary_scorer import sample_ids

ROWS = 64
"""Rows of the vocabulary beyond the tokenizer."""


@pytest.fixture(scope="module")
def padded(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The laboratory with an SFT policy that has 64 more ids, which it would often draw, as it would pad."""
    root = tmp_path_factory.mktemp("padded")
    for name in ("data", "labels", "reward"):
        (root / name).symlink_to(lab / name)
    folder = root / "sft" / "checkpoint"
    shutil.copytree(lab / "sft", root / "sft")
    model = AutoModelForCausalLM.from_pretrained(folder)
    known = model.config.vocab_size
    model.resize_token_embeddings(known + ROWS, mean_resizing=False)
    with torch.no_grad():
        model.get_output_embeddings().weight[known:] = 3 * model.get_output_embeddings().weight[5]
        model.get_output_embeddings().weight[1] = 3 * model.get_output_embeddings().weight[6]
    model.save_pretrained(folder)
    return root


def masked(policy: nn.Module, tokens: list[int], known: int) -> Tensor:
    """Logits of plain transformers, with those of pad and of ids without a token at -inf."""
    with torch.no_grad():
        logits: Tensor = policy(torch.tensor([tokens])).logits[0]
    logits[:, [1, *range(known, known + ROWS)]] = -math.inf
    return logits.log_softmax(-1)


def logprob(policy: nn.Module, query: list[int], ids: list[int], known: int) -> float:
    rows = masked(policy, query + ids, known)[len(query) - 1 : -1]
    return float(rows[torch.arange(len(ids)), torch.tensor(ids)].sum())


def check_samples(path: Path, folder: Path, posts: Path, **scores: str) -> list[Sample]:
    """Every id has its text, and log-probabilities are those of plain transformers with masked logits."""
    tokenizer, policy = load_tokenizer(folder), AutoModelForCausalLM.from_pretrained(folder)
    known, samples = len(tokenizer), read_records(path, Sample)
    by_id = {post.id: post for post in load_posts(posts)}
    for sample in samples:
        ids = sample.response_ids or []
        assert ids and 1 not in ids and max(ids) < known
        assert tokenizer.decode(ids[: -1 if sample.stopped else None]) == sample.text
        assert sample.tokens == len(ids)
    for sample in samples[:6]:
        (query,) = encode_queries(tokenizer, [by_id[sample.id]], laboratory.LENGTHS.query)
        for name in scores:
            expected = logprob(policy, query, sample.response_ids or [], known)
            assert getattr(sample, name) == pytest.approx(expected, abs=1e-3), name
    return samples


def run(stage: str, root: Path, folder: Path, inputs: dict[str, Path], **settings: Any) -> Path:
    ctx = laboratory.context(stage, root, folder, inputs=inputs, settings=laboratory.changed(stage, settings))
    return laboratory.run(ctx, stage)


def test_samples_and_their_scores(padded: Path, tmp_path: Path) -> None:
    inputs = {"policy": padded / "sft", "data": padded / "data"}
    drawn = run("sample", padded, tmp_path / "sample", inputs, temperatures=[0.0, 1.0])
    more = {"samples": drawn, "sft": padded / "sft", "reward": padded / "reward"}
    scored = run("score", padded, tmp_path / "score", inputs | more)
    posts, folder = padded / "data" / "valid2.jsonl", padded / "sft" / "checkpoint"
    names = {"logprob": "policy", "logprob_sft": "sft"}
    assert len(check_samples(scored / "samples.jsonl", folder, posts, **names)) == 48
    plain = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = load_tokenizer(folder)
    (query,) = encode_queries(tokenizer, load_posts(posts)[:1], laboratory.LENGTHS.query)
    with torch.no_grad():
        shares = plain(torch.tensor([query])).logits[0, -1].softmax(-1)
    share = shares[1] + shares[len(tokenizer) :].sum()
    assert share > 0.005, "in some thousand draws the model would come to what cannot be written"


def test_rollouts_updates_and_the_checkpoint_of_ppo(padded: Path, tmp_path: Path) -> None:
    inputs = {
        "policy": padded / "sft",
        "reference": padded / "sft",
        "reward": padded / "reward",
        "data": padded / "data",
    }
    folder = run("ppo", padded, tmp_path / "ppo", inputs, episodes=16, optimizer={"lr": 1e-30})
    check_samples(
        folder / "rollouts.jsonl",
        padded / "sft" / "checkpoint",
        padded / "data" / "ppo.jsonl",
        logprob="policy",
        logprob_sft="sft",
    )
    (row,) = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    assert abs(row["first_ratio"] - 1) < 1e-6 and abs(row["kl"]) < 1e-4 and row["entropy"] > 0
    card = (folder / "checkpoint" / "README.md").read_text()
    assert "ids that are no text" in card and "suppress_tokens" in card
    suppressed = json.loads((folder / "checkpoint" / "generation_config.json").read_text())["suppress_tokens"]
    tokenizer = load_tokenizer(folder / "checkpoint")
    assert suppressed == [1, *range(len(tokenizer), len(tokenizer) + ROWS)]


def test_losses_are_those_of_masked_logits(padded: Path) -> None:
    folder = padded / "sft" / "checkpoint"
    tokenizer, plain = load_tokenizer(folder), AutoModelForCausalLM.from_pretrained(folder)
    posts = load_posts(padded / "data" / "sft.jsonl")[:3]
    examples = encode_references(tokenizer, posts, laboratory.LENGTHS)
    parts = nn.ModuleDict({"policy": load_policy(folder).eval()})
    known = len(tokenizer)
    found = response_loss(parts, pack(examples, 1)).total
    expected = -sum(logprob(plain, query, ids, known) for query, ids in examples)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-5)
    found = full_text_loss(parts, pack(examples, 1)).total
    expected = -sum(logprob(plain, q[:1], q[1:] + ids, known) for q, ids in examples)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-5)
    found.backward()
    weights = parts["policy"].get_output_embeddings().weight
    assert torch.isfinite(weights.grad).all()


@pytest.mark.parametrize("token", [1, 10_000])
def test_a_sample_with_a_token_that_has_no_text_is_refused(lab: Path, token: int) -> None:
    tokenizer = load_tokenizer(lab / "sft" / "checkpoint")
    sample = Sample(id="t3_1", policy="sft", text=" a", response_ids=[5, token, 0])
    with pytest.raises(RecordError, match=f"has the token {token}, which is pad or unknown"):
        sample_ids(sample, tokenizer, Lengths())
