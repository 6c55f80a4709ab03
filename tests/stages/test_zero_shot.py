"""The pretrained policies' baseline with examples in context: what is sampled from, what is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.stages import lab as laboratory
from tldr.errors import UsageError
from tldr.inputs.posts import load_posts
from tldr.models.ladder import load_policy
from tldr.models.packed import collate, response_logprobs, response_scores
from tldr.queries.encode import encode_queries
from tldr.queries.zero_shot import choose_examples, newline_ids, zero_shot_queries
from tldr.records import Sample, read_records, write_records
from tldr.settings.models import Lengths, ModelSpec
from tldr.stages.pretrain.settings import PretrainSettings
from tldr.stages.sample import stage as sample
from tldr.stages.shared import reporting as queries
from tldr.stages.shared.common import (
    ATTENTION_PAIRS,
    Device,
    inference_batches,
    open_reward,
    open_tokenizer,
)
from tldr.stages.shared.context import RunContext
from tldr.stages.shared.settings import EvaluationSettings, ZeroShot
from tldr.study.settings import Study
from tldr.toy.settings import ToyData

SETTINGS = EvaluationSettings(temperatures=[0.0], posts=6, zero_shot=ZeroShot(examples=4, query_tokens=200))


def context(stage: str, lab: Path, folder: Path, **changes: Any) -> RunContext[Any]:
    inputs = {"policy": lab / "pretrain", "data": lab / "data"}
    if stage == "score":
        inputs |= {"sft": lab / "sft", "reward": lab / "reward", "samples": folder.parent / "sample"}
    tags = {"size": "s", "method": "pretrained"}
    fields = {"settings": SETTINGS, "inputs": inputs, "tags": tags, "seed": 3} | changes
    return laboratory.context(stage, lab, folder, **fields)


@pytest.fixture(scope="module")
def runs(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("zero_shot")
    for stage in ("sample", "score"):
        laboratory.run(context(stage, lab, root / stage), stage)
    return root


def expected(lab: Path) -> dict[str, list[int]]:
    tokenizer = open_tokenizer(lab / "pretrain")
    posts = load_posts(lab / "data" / "valid2.jsonl")[:6]
    examples = choose_examples(tokenizer, load_posts(lab / "data" / "sft.jsonl"), 4)
    rows = zero_shot_queries(tokenizer, posts, examples, 200)
    assert all(len(row) == 200 for row in rows)
    return {post.id: row for post, row in zip(posts, rows, strict=True)}


def test_pretrained_policy_is_sampled_from_behind_its_examples(lab: Path, runs: Path) -> None:
    """Greedy tokens found one forward pass at a time in plain transformers."""
    policy, queries_of = load_policy(lab / "pretrain" / "checkpoint").eval(), expected(lab)
    tokenizer = open_tokenizer(lab / "pretrain")
    stops = {tokenizer.eos_token_id, *newline_ids(tokenizer)}
    for row in read_records(runs / "sample" / "samples.jsonl", Sample)[:3]:
        ids = list(queries_of[row.id])
        with torch.inference_mode():
            while len(ids) < 248 and not (len(ids) > 200 and ids[-1] in stops):
                ids.append(int(policy(torch.tensor([ids])).logits[0, -1].argmax()))
        assert row.response_ids == ids[200:]


def test_trap_logprob_is_of_the_query_that_was_sampled_from(lab: Path, runs: Path) -> None:
    """... and under SFT and the reward model, of the TL;DR query, with EOS where a newline ended it."""
    tokenizer, newlines = open_tokenizer(lab / "pretrain"), newline_ids(open_tokenizer(lab / "pretrain"))
    pretrained, sft = (load_policy(lab / name / "checkpoint") for name in ("pretrain", "sft"))
    reward = open_reward(lab / "reward", Device.open("fp32"))
    posts = {post.id: post for post in load_posts(lab / "data" / "valid2.jsonl")}
    queries_of = expected(lab)
    for row in read_records(runs / "score" / "samples.jsonl", Sample):
        ids, query = row.response_ids or [], encode_queries(tokenizer, [posts[row.id]], 96)
        ended = [*ids[:-1], tokenizer.eos_token_id] if ids[-1] in newlines else ids
        with torch.inference_mode():
            own = response_logprobs(pretrained, collate([queries_of[row.id]], [[ids]], 0)).sum()
            other = response_logprobs(sft, collate(query, [[ended]], 0)).sum()
            score = response_scores(reward, collate(query, [[ended]], 0))
        assert row.logprob == pytest.approx(float(own), abs=1e-3)
        assert row.logprob_sft == pytest.approx(float(other), abs=1e-3)
        assert row.scores["rm"] == pytest.approx(float(score), abs=1e-3)


def test_a_newline_is_eos_to_the_models_that_did_not_write_it(lab: Path, runs: Path, tmp_path: Path) -> None:
    tokenizer, (row, *_) = (
        open_tokenizer(lab / "sft"),
        read_records(runs / "sample" / "samples.jsonl", Sample),
    )
    newline = min(newline_ids(tokenizer))
    same = [[*(row.response_ids or [])[:5], end] for end in (newline, tokenizer.eos_token_id)]
    rows = [row.model_copy(update={"response_ids": ids, "tokens": 6, "stopped": True}) for ids in same]
    write_records(tmp_path / "sample" / "samples.jsonl", rows)
    laboratory.run(context("score", lab, tmp_path / "score"), "score")
    by_newline, by_eos = read_records(tmp_path / "score" / "samples.jsonl", Sample)
    assert by_newline.scores["rm"] == pytest.approx(by_eos.scores["rm"], abs=1e-4)
    assert by_newline.logprob_sft == pytest.approx(by_eos.logprob_sft, abs=1e-4)
    assert by_newline.logprob != pytest.approx(by_eos.logprob, abs=0.01)
    tuned = context("score", lab, tmp_path / "tuned", tags={"size": "s", "method": "sft"})
    laboratory.run(tuned, "score")  # a fine-tuned policy's newline is a token like any other
    by_newline, by_eos = read_records(tmp_path / "tuned" / "samples.jsonl", Sample)
    assert by_newline.scores["rm"] != pytest.approx(by_eos.scores["rm"], abs=1e-3)


def test_other_policies_and_studies_without_examples_read_the_tldr_format(lab: Path, tmp_path: Path) -> None:
    tokenizer, posts = open_tokenizer(lab / "sft"), load_posts(lab / "data" / "valid2.jsonl")[:3]
    plain = encode_queries(tokenizer, posts, 96)
    tuned = context("sample", lab, tmp_path, tags={"method": "sft"})
    bare = context("sample", lab, tmp_path, settings=EvaluationSettings())
    for ctx in (tuned, bare):
        assert queries.policy_queries(ctx, tokenizer, posts) == plain
    assert queries.policy_queries(context("sample", lab, tmp_path), tokenizer, posts) != plain


def test_a_window_beyond_the_models_positions_is_refused_first(lab: Path, tmp_path: Path) -> None:
    settings = EvaluationSettings(zero_shot=ZeroShot(examples=1, query_tokens=209))
    with pytest.raises(UsageError, match=r"209 query and 48 response .* context of 256") as caught:
        sample.run(context("sample", lab, tmp_path, settings=settings))
    assert "at most 208" in str(caught.value) and "evaluation.zero_shot.query_tokens" in str(caught.value)


def test_an_evaluation_post_among_the_examples_is_refused(lab: Path, tmp_path: Path) -> None:
    posts = load_posts(lab / "data" / "sft.jsonl")
    tokenizer = open_tokenizer(lab / "data")
    example = choose_examples(tokenizer, posts, 4)[3]
    for shared in (example, example.model_copy(update={"id": "renamed", "post": example.post + "\n"})):
        write_records(tmp_path / "sft.jsonl", posts)
        ctx = context("sample", lab, tmp_path, inputs={"policy": lab / "sft", "data": tmp_path})
        with pytest.raises(UsageError, match="zero-shot examples"):
            queries.policy_queries(ctx, tokenizer, [shared])


def test_long_queries_are_batched_by_their_attention_too() -> None:
    batches = list(inference_batches([2047] * 40, budget=65536))
    assert [index for batch in batches for index in batch] == list(range(40))
    assert all(len(batch) * 2047**2 <= ATTENTION_PAIRS < (len(batch) + 1) * 2047**2 for batch in batches[:-1])
    assert [len(batch) for batch in inference_batches([560] * 200, budget=65536)] == [117, 83]


def test_study_refuses_a_ladder_too_short_for_the_window() -> None:
    fields: dict[str, Any] = {
        "name": "short",
        "data": ToyData(),
        "lengths": Lengths(query=96, response=48, rm_response=64),
        "ladder": {"s": ModelSpec(context=256)},
        "pretrain": PretrainSettings(),
    }
    Study(**fields, evaluation=EvaluationSettings(zero_shot=ZeroShot(query_tokens=208)))
    with pytest.raises(ValueError, match=r"ladder.s.context 256 .* = 257"):
        Study(**fields, evaluation=EvaluationSettings(zero_shot=ZeroShot(query_tokens=209)))
