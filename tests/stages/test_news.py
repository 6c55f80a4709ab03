"""The policies on news articles: the query they read, the scores, and what the data stage takes in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.stages import lab as laboratory
from tests.texts import encode_response
from tldr.errors import UsageError
from tldr.models.ladder import load_policy
from tldr.models.packed import collate, response_logprobs, response_scores
from tldr.queries.encode import encode_texts
from tldr.records import Article, Comparison, Sample, read_records, write_records
from tldr.stages.data import stage as data_stage
from tldr.stages.data.settings import FileData
from tldr.stages.shared.common import Device, open_reward, open_tokenizer
from tldr.stages.shared.context import RunContext
from tldr.stages.shared.settings import EvaluationSettings, ZeroShot

PARAGRAPH = "My brother moved to the city. He asked me for money and I said no."
ARTICLES = [
    Article(id="a0", site="cnn", article=PARAGRAPH, summary="Brother moved."),
    Article(id="a1", article="\n\n".join([PARAGRAPH] * 9), summary="He asked for money. I said no."),
    Article(id="a2", article="Never read.", summary="Never."),
]


def context(stage: str, lab: Path, folder: Path, method: str = "ppo", **changes: Any) -> RunContext[Any]:
    data = folder.parent / "data"
    inputs = {"policy": lab / {"pretrained": "pretrain"}.get(method, method), "data": data}
    if stage == "score":
        inputs |= {"sft": lab / "sft", "reward": lab / "reward", "samples": folder.parent / "sample"}
    tags = {"size": "s", "method": method, "dataset": "cnndm"}
    settings = EvaluationSettings(
        temperatures=[0.0], posts=2, zero_shot=ZeroShot(examples=2, query_tokens=200)
    )
    fields = {"settings": settings, "inputs": inputs, "tags": tags} | changes
    return laboratory.context(stage, lab, folder, **fields)


@pytest.fixture(scope="module")
def runs(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("news")
    shutil.copytree(lab / "data", root / "data")
    write_records(root / "data" / "cnndm.jsonl", ARTICLES)
    for stage in ("sample", "score"):
        laboratory.run(context(stage, lab, root / stage), stage)
    return root


def queries(lab: Path) -> list[list[int]]:
    """The transfer format; the long article loses its last line, be it empty, until it fits."""
    tokenizer, text = open_tokenizer(lab / "ppo"), ARTICLES[1].article
    while len(long := encode_texts(tokenizer, [f"{text}\n\nTL;DR:"])[0]) > 96:
        text = text[: text.rindex("\n")]
    assert text.startswith(PARAGRAPH + "\n") and len(text) < len(ARTICLES[1].article)
    return [encode_texts(tokenizer, [f"{PARAGRAPH}\n\nTL;DR:"])[0], long]


def test_articles_are_sampled_in_the_transfer_format(lab: Path, runs: Path) -> None:
    """Greedy tokens found one forward pass at a time, from the query text written out by hand."""
    rows = read_records(runs / "sample" / "samples.jsonl", Sample)
    assert [(row.id, row.temperature, row.tags["dataset"]) for row in rows] == [
        ("a0", 0.0, "cnndm"),
        ("a1", 0.0, "cnndm"),
    ]
    policy, eos = load_policy(lab / "ppo" / "checkpoint").eval(), open_tokenizer(lab / "ppo").eos_token_id
    for row, query in zip(rows, queries(lab), strict=True):
        ids = list(query)
        with torch.inference_mode():
            while len(ids) < len(query) + 48 and not (len(ids) > len(query) and ids[-1] == eos):
                ids.append(int(policy(torch.tensor([ids])).logits[0, -1].argmax()))
        assert row.response_ids == ids[len(query) :]


def test_scores_are_of_the_article_and_its_highlights(lab: Path, runs: Path) -> None:
    reward, policy = open_reward(lab / "reward", Device.open("fp32")), load_policy(lab / "ppo" / "checkpoint")
    tokenizer = open_tokenizer(lab / "ppo")
    rows = read_records(runs / "score" / "samples.jsonl", Sample)
    for row, query, article in zip(rows, queries(lab), ARTICLES, strict=False):
        reference = encode_response(tokenizer, article.summary or "", 64)
        with torch.inference_mode():
            logprob = response_logprobs(policy, collate([query], [[row.response_ids or []]], 0)).sum()
            scores = response_scores(reward, collate([query], [[row.response_ids or [], reference]], 0))
        assert row.logprob == pytest.approx(float(logprob), abs=1e-3) and row.logprob_sft is not None
        assert row.scores == pytest.approx(
            {"rm": float(scores[0, 0]), "rm_reference": float(scores[0, 1])}, abs=1e-3
        ), "and no planted truth"


def test_in_context_examples_are_for_posts_alone(lab: Path, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(runs / "data")
    folder = laboratory.run(context("sample", lab, tmp_path / "sample", "pretrained"), "sample")
    row = read_records(folder / "samples.jsonl", Sample)[0]
    policy, query = load_policy(lab / "pretrain" / "checkpoint").eval(), queries(lab)[0]
    with torch.inference_mode():
        first = int(policy(torch.tensor([query])).logits[0, -1].argmax())
    assert (row.response_ids or [None])[0] == first and "\n" not in row.text


def file_data(lab: Path, folder: Path, **more: str) -> RunContext[Any]:
    files = {name: str(lab / "data" / f"{name}.jsonl") for name in ("sft", "valid1", "valid2")}
    settings = laboratory.SETTINGS["data"].model_copy(update={"data": FileData(**files, **more)})
    return laboratory.context("data", lab, folder, settings=settings)


def test_data_stage_takes_articles_in_and_refuses_those_of_training_labels(lab: Path, tmp_path: Path) -> None:
    news = str(write_records(tmp_path / "news.jsonl", ARTICLES))
    data_stage.run(file_data(lab, tmp_path / "data", cnndm=news))
    assert read_records(tmp_path / "data" / "cnndm.jsonl", Article) == ARTICLES
    assert json.loads((tmp_path / "data" / "manifest.json").read_text())["records"]["cnndm"] == 3
    label = {
        "info": {"id": "renamed", "article": ARTICLES[1].article.replace("\n\n", "\n")},
        "summaries": [{"text": "a", "policy": "p"}, {"text": "b", "policy": "p"}],
        "choice": 0, "worker": "w", "batch": "b",
    }  # fmt: skip
    for split in ("valid2", "train"):
        labels = str(
            write_records(tmp_path / "labels.jsonl", [Comparison.model_validate(label | {"split": split})])
        )
        ctx = file_data(lab, tmp_path / split, cnndm=news, comparisons=labels)
        if split == "valid2":
            data_stage.run(ctx)
        else:
            with pytest.raises(UsageError, match="'cnndm' are in 'labels/train'"):
                data_stage.run(ctx)
