"""The held-out corpus: further documents that nothing trains on, and a policy's loss on each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.stages import lab as laboratory
from tests.toy.conftest import SMALL
from tldr.models.ladder import load_policy
from tldr.models.vocabulary import mask_logits
from tldr.records import DocumentLoss, read_records
from tldr.stages.data.settings import DataSettings, FileData
from tldr.stages.score.stage import CORPUS_LOSS, write_corpus_loss
from tldr.stages.shared.corpus import CORPUS, CORPUS_HELD_OUT, read_corpus
from tldr.stages.shared.device import Device
from tldr.stages.shared.tokenizers import open_tokenizer
from tldr.toy.generate import generate_toy
from tldr.toy.settings import ToyData


def test_the_world_is_the_same_with_a_held_out_corpus_and_shares_no_post_with_it(tmp_path: Path) -> None:
    generate_toy(SMALL, tmp_path / "plain")
    generate_toy(SMALL.model_copy(update={"corpus_held_out": 50}), tmp_path / "held-out")
    for path in (tmp_path / "plain").glob("*.jsonl"):
        assert (tmp_path / "held-out" / path.name).read_bytes() == path.read_bytes(), path.name
    assert not (tmp_path / "plain" / CORPUS_HELD_OUT).exists()
    held_out = read_corpus(tmp_path / "held-out", CORPUS_HELD_OUT)
    assert len(held_out) == 50
    posts = {str(row["text"])[: int(row["query_chars"])] for row in read_corpus(tmp_path / "held-out")}
    assert not posts & {str(row["text"])[: int(row["query_chars"])] for row in held_out}


def test_by_default_it_is_no_part_of_a_name() -> None:
    assert "corpus_held_out" not in DataSettings(data=ToyData()).naming()["data"]
    assert DataSettings(data=ToyData(corpus_held_out=9)).naming()["data"]["corpus_held_out"] == 9
    files = FileData(sft="a", valid1="b", valid2="c")
    assert "corpus_held_out" not in DataSettings(data=files).naming()["data"]


def test_the_loss_is_that_of_every_document_alone(lab: Path, tmp_path: Path) -> None:
    """Batches are padded; alone, without padding, a document has the same loss. EOS counts, the first token
    does not, and what is beyond the context neither."""
    texts = ["a short one.", "my dog ran. " * 9, "the same again. " * 90]
    lines = "".join(json.dumps({"text": text, "query_chars": 2}) + "\n" for text in texts)
    (tmp_path / CORPUS_HELD_OUT).write_text(lines)
    device = Device.open("fp32")
    write_corpus_loss(tmp_path, lab / "sft", tmp_path, device)
    tokenizer = open_tokenizer(lab / "sft")
    policy = load_policy(lab / "sft" / "checkpoint", tokenizer).eval()
    for text, found in zip(texts, read_records(tmp_path / CORPUS_LOSS, DocumentLoss), strict=True):
        ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        ids = ids[: laboratory.MODEL.context]
        with torch.no_grad():
            logits = policy(torch.tensor([ids])).logits[0, :-1]
            logprobs = mask_logits(policy, logits).log_softmax(-1)
        expected = -sum(float(row[token]) for row, token in zip(logprobs, ids[1:], strict=True))
        assert found.tokens == len(ids) - 1
        assert found.nats == pytest.approx(expected, rel=1e-4)


def test_the_score_stage_measures_it_where_the_data_has_one(lab: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for path in (lab / "data").iterdir():
        (data / path.name).symlink_to(path)
    documents = read_corpus(data, CORPUS)[:7]
    (data / CORPUS_HELD_OUT).write_text("".join(json.dumps(row) + "\n" for row in documents))
    inputs = {name: lab / parent for name, parent in laboratory.INPUTS["score"].items()} | {"data": data}
    for name, tags in (("main", {}), ("news", {"dataset": "test"})):
        if tags:
            (data / "test.jsonl").symlink_to(lab / "data" / "valid2.jsonl")
        ctx = laboratory.context("score", lab, tmp_path / name, inputs=inputs)
        laboratory.run(type(ctx)(**{**vars(ctx), "tags": tags}), "score")
    losses = read_records(tmp_path / "main" / CORPUS_LOSS, DocumentLoss)
    assert len(losses) == 7 and all(0 < loss.nats < 20 * loss.tokens for loss in losses)
    assert not (tmp_path / "news" / CORPUS_LOSS).exists()
