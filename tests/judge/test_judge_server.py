"""A judge at a real endpoint: transformers' own OpenAI-compatible server, with a tiny model in it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from eval.judge.measure import judge_results
from tests.judge.judge_server import make_pairs
from tldr.judge.budget import Price
from tldr.judge.cache import Cache
from tldr.judge.endpoint import Connection, Endpoint
from tldr.judge.llm import Limits, LLMJudge
from tldr.judge.prompt import build_prompt
from tldr.models.ladder import build_policy
from tldr.queries.tokenizer import load_tokenizer, train_bpe
from tldr.settings.models import ModelSpec

for package in ("fastapi", "uvicorn"):
    pytest.importorskip(package, reason="transformers' server is not installed: transformers[serving]")

ANSWER = "Both say much the same.\nPreferred: A"
CHAT = "{% for message in messages %}<|user|>{{ message.content }}{% endfor %}<|judge|>"


def teach(policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Train a tiny model to give one answer, whatever it is asked."""
    torch.manual_seed(0)
    answer = tokenizer("<|judge|>" + ANSWER + tokenizer.eos_token).input_ids
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    policy.train(False)
    for _ in range(80):
        noise = torch.randint(len(tokenizer) - 4, (8, 12))
        ids = torch.cat([noise, torch.tensor([answer] * 8)], 1)
        labels = ids.clone()
        labels[:, :13] = -100
        loss = policy(input_ids=ids, labels=labels, position_ids=None).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge's checkpoint, with a chat template."""
    folder = tmp_path_factory.mktemp("judge")
    (pair,) = make_pairs(1)
    tokenizer = train_bpe([build_prompt(pair.post, *pair.texts), ANSWER] * 20, 400)
    tokenizer.add_tokens([AddedToken(name, special=True) for name in ("<|user|>", "<|judge|>")])
    tokenizer.chat_template = CHAT
    policy = build_policy(
        ModelSpec(arch="gpt_neox", d_model=32, layers=1, heads=2, context=1024),
        vocab_size=len(tokenizer),
        eos_id=tokenizer.eos_token_id,
        pad_id=tokenizer.pad_token_id,
        seed=0,
    )
    teach(policy, tokenizer)
    policy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def url(model: Path) -> Iterator[str]:
    """The server's address."""
    from transformers.cli.serve import Serve

    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    server = Serve(
        str(model), host="127.0.0.1", port=port, device="cpu", log_level="error", non_blocking=True
    )
    yield f"http://127.0.0.1:{port}/v1"
    server.kill_server()


def test_a_real_server_is_judged_with(url: str, model: Path, tmp_path: Path) -> None:
    """Real prompts, tokens and answers: this model always says A, and the measures say so."""
    pairs = make_pairs(2)
    with (
        closing(Endpoint(Connection(str(model), url))) as endpoint,
        closing(Cache(tmp_path / "cache.sqlite")) as cache,
    ):
        judge = LLMJudge(endpoint, cache, Price(1, 1), Limits(answer_tokens=60, concurrency=2))
        before = judge.estimate(pairs, ["overall", "accuracy"])
        rows = list(judge.judge(pairs, ["overall", "accuracy"]))
        after = judge.estimate(pairs, ["overall", "accuracy"])
        tokenizer = load_tokenizer(model)
        prompts = [one.question.prompt for one in judge._questions(pairs, ["overall", "accuracy"])]
    assert before.questions == 8 == len(rows) == after.answered
    assert {row.raw for row in rows} == {ANSWER}
    prompt_tokens = sum(len(tokenizer(f"<|user|>{prompt}<|judge|>").input_ids) for prompt in prompts)
    answer_tokens = 8 * len(tokenizer(ANSWER + tokenizer.eos_token).input_ids)
    assert after.paid == pytest.approx((prompt_tokens + answer_tokens) / 1e6)  # as the server counted
    found = {row.measure: row.value for row in judge_results(rows)}
    assert found["position_bias"] == found["inconsistent"] == found["position_bias_accuracy"] == 1
    assert found["preference"] == 0.5 and found["invalid"] == 0


def test_a_cut_answer_is_invalid(url: str, model: Path, tmp_path: Path) -> None:
    with (
        closing(Endpoint(Connection(str(model), url))) as endpoint,
        closing(Cache(tmp_path / "cache.sqlite")) as cache,
    ):
        judge = LLMJudge(endpoint, cache, Price(0, 0), Limits(answer_tokens=3))
        rows = list(judge.judge(make_pairs(1), ["overall"]))
    assert [row.verdict for row in rows] == ["invalid"] * 2
    assert all(row.raw and row.raw != ANSWER and ANSWER.startswith(row.raw) for row in rows)
