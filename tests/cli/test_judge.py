"""``judge`` as a user types it."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.judge.judge_server import Reply, says, serving
from tldr.cli import judge as command
from tldr.cli.main import app
from tldr.records import Judgement, Post, Sample, read_records, write_records

Tell = Callable[..., Result]
WORDS = ["cat", "dog", "boss", "friend", "city", "late", "money", "letter"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw = random.Random(0)
    posts = [
        Post(
            id=f"p{n}",
            subreddit="r",
            title="A title",
            post=" ".join(draw.choices(WORDS, k=20)),
            summary="the dog",
        )
        for n in range(4)
    ]
    samples = [
        Sample(
            id=post.id,
            policy=policy,
            run=f"run-{policy}",
            temperature=0.0,
            text=" ".join(draw.choices(WORDS, k=k)),
        )
        for post in posts
        for policy, k in (("sft", 3), ("ppo", 5))
    ]
    write_records(tmp_path / "posts.jsonl", posts)
    write_records(tmp_path / "samples.jsonl", samples)
    return tmp_path


@pytest.fixture
def tell(folder: Path) -> Tell:
    def call(judge: str, *more: object, out: str = "out.jsonl") -> Result:
        args = ["judge", folder / "samples.jsonl", "--posts", folder / "posts.jsonl", "--judge", judge]
        return CliRunner().invoke(
            app, list(map(str, [*args, "--out", folder / out, *more])), env={"COLUMNS": "200"}
        )

    return call


def measures(result: Result) -> dict[tuple[str, str, str], str]:
    """The printed values by judge, policy and measure."""
    assert result.exit_code == 0, result.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:5]] for line in result.stdout.splitlines()[2:]]
    return {(row[0], row[1], row[2]): row[3].split()[0] for row in rows if len(row) == 4}


def longer(prompt: str, _: int) -> Reply:
    a, b = (prompt.split(f"Summary {letter}:\n> ")[1].split("\n")[0] for letter in "AB")
    return says("tie" if len(a) == len(b) else "A" if len(a) > len(b) else "B")


def test_samples_are_judged_and_told(tell: Tell, folder: Path) -> None:
    with serving(longer) as server:
        local = ("--base-url", server.url)
        free = tell("openai:tiny", *local, "--price", "0/0")
        assert free.exit_code == 0, free.stderr
        assert "8 pairs in both orders: 16 questions, 0 already answered" in free.stderr
        rows = read_records(folder / "out.jsonl", Judgement)
        assert len(rows) == 16 and {row.judge for row in rows} == {"openai:tiny"}
        assert {tuple(row.runs) for row in rows} == {("run-sft",), ("run-ppo",)}
        values = {
            name: measures(free)["openai:tiny", "ppo", name] for name in ("preference", "position_bias")
        }
        assert values == {"preference": "1.000", "position_bias": "0.500"}

        again = tell(
            "openai:tiny", *local, "--price", "0/0", "--axis", "overall", "--axis", "coverage", "--limit", "2"
        )
        assert (
            again.exit_code == 0
            and "4 pairs in both orders: 16 questions, 8 already answered" in again.stderr
        )
        rows = read_records(folder / "out.jsonl", Judgement)
        assert len(rows) == 16 + 8 and sum(row.axis == "coverage" for row in rows) == 8
        assert "preference_coverage" in again.stdout and len(server.requests) == 24

        versus = tell("openai:tiny", *local, "--price", "0/0", "--against", "sft", out="versus.jsonl")
        assert {key[:2] for key in measures(versus)} == {("openai:tiny", "ppo")}
        rows = read_records(folder / "versus.jsonl", Judgement)
        assert {tuple(row.policies) for row in rows} == {("ppo", "sft")} and rows[0].runs == [
            "run-ppo",
            "run-sft",
        ]


def test_nothing_is_spent_unasked(tell: Tell, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = SimpleNamespace(there=False)
    monkeypatch.setattr(command, "at_terminal", lambda: terminal.there)
    with serving(longer) as server:
        local = ("--base-url", server.url)
        for more, said in (
            ((), "price of tiny is unknown"),
            (("--max-cost", "1"), "price of tiny is unknown"),
            (("--price", "cheap"), "is not a price"),
            (("--price", "1/1"), "--max-cost"),
            (("--price", "1/1", "--yes"), "--max-cost"),
        ):
            refused = tell("openai:tiny", *local, *more)
            assert refused.exit_code == 2 and said in refused.stderr, more
        terminal.there = True
        dear = (*local, "--price", "1000/1000")
        monkeypatch.setattr(command.typer, "confirm", lambda *_, **__: False)
        assert tell("openai:tiny", *dear).exit_code == 1
        assert not server.requests and not (folder / "out.jsonl").exists()
        assert tell("openai:tiny", *dear, "--yes").exit_code == 0
        assert len(server.requests) == 16
        assert tell("openai:tiny", *dear).exit_code == 0  # all paid: nothing to ask
        assert tell("openai:other", *local, "--price", "1/1").exit_code == 0  # a cent
        assert len(server.requests) == 32


def test_a_stop_at_max_cost_keeps_what_was_paid(tell: Tell, folder: Path) -> None:
    """Every pair in the file has both orders; the rest waits in the cache."""
    with serving(longer) as server:
        args = ("--base-url", server.url, "--price", "1000/1000", "--concurrency", "1")
        stopped = tell("openai:tiny", *args, "--max-cost", "1.6")
        assert stopped.exit_code == 1 and "the maximum cost is reached" in stopped.stderr
        asked = len(server.requests)
        rows = read_records(folder / "out.jsonl", Judgement)
        assert 0 < len(rows) == asked - asked % 2 < 16
        assert ("1 judgements stay in the cache" in stopped.stderr) == bool(asked % 2)
        done = tell("openai:tiny", *args, "--max-cost", "100")
        assert done.exit_code == 0 and len(server.requests) == 16
    assert len(read_records(folder / "out.jsonl", Judgement)) == 16


def test_a_missing_extra_is_named(tell: Tell, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package, judge, extra in (
        ("openai", "openai:gpt", "judge"),
        ("sentence_transformers", "embed:x", "embed"),
    ):
        monkeypatch.setitem(sys.modules, package, None)
        missing = tell(judge, "--price", "0/0")
        assert missing.exit_code == 2 and f"tldr-feedback[{extra}]" in missing.stderr
    assert not (folder / "out.jsonl").exists()


def test_wrong_requests_are_told_before_anything_is_asked(tell: Tell, folder: Path) -> None:
    assert "unknown axis wit" in tell("openai:tiny", "--axis", "wit").stderr
    for judge in ("gpt", "openai:", "llama:x"):
        wrong = tell(judge)
        assert wrong.exit_code == 2 and "openai:MODEL" in wrong.stderr
    (folder / "out.jsonl").write_text('{"precious": "data"}\n')
    with serving(longer) as server:
        wrong = tell("openai:tiny", "--base-url", server.url, "--price", "0/0")
        assert wrong.exit_code == 1 and "out.jsonl:1" in wrong.stderr and not server.requests
    assert json.loads((folder / "out.jsonl").read_text()) == {"precious": "data"}
    assert "no key" in tell("openai:gpt", "--price", "1/1", "--max-cost", "1", out="o").stderr


def test_a_reward_model_judges_by_its_own_scores(tell: Tell, folder: Path) -> None:
    import torch

    from tests.texts import encode_query, encode_response
    from tldr.models.ladder import build_policy
    from tldr.models.reward import reward_from_policy, save_reward
    from tldr.queries.tokenizer import train_bpe
    from tldr.settings.models import Lengths, ModelSpec
    from tldr.study.folder import RunFile

    posts = read_records(folder / "posts.jsonl", Post)
    tokenizer = train_bpe([post.post for post in posts] * 5, 300)
    ids: dict[str, Any] = {"eos_id": tokenizer.eos_token_id, "pad_id": tokenizer.pad_token_id}
    spec = ModelSpec(d_model=16, layers=2, heads=2, context=640)
    reward = reward_from_policy(build_policy(spec, vocab_size=len(tokenizer), seed=0, **ids), 1).eval()
    save_reward(reward, tokenizer, folder / "reward" / "checkpoint", "A reward model.")
    lengths = Lengths(query=60, response=10, rm_response=16)
    RunFile(stage="reward", settings={}, lengths=lengths, precision="fp32").write(folder / "reward")
    done = tell(f"rm:{folder / 'reward'}")
    assert done.exit_code == 0, done.stderr
    rows = read_records(folder / "out.jsonl", Judgement)
    assert len(rows) == 16 and {row.judge for row in rows} == {"rm:reward"}

    def score(post: Post, text: str) -> float:
        tokens = encode_query(tokenizer, post, lengths.query) + encode_response(tokenizer, text, 16)
        with torch.inference_mode():
            return float(reward(torch.tensor([tokens])).logits[0, 0])

    for row in rows:
        assert row.texts is not None and row.probability is not None
        post = next(post for post in posts if post.id == row.id)
        a, b = (score(post, row.texts[side]) for side in row.order)
        assert row.verdict == ("A" if a > b else "B")
        assert row.probability == pytest.approx(1 / (1 + 2.718281828 ** (b - a)), abs=1e-5)
    shown = measures(done)
    assert shown["rm:reward", "sft", "inconsistent"] == "0.000"
    assert shown["rm:reward", "sft", "position_bias"] == "0.500"

    write_records(folder / "samples.jsonl", [Sample(id="p0", policy="rambler", text="cat " * 40)])
    refused = tell(f"rm:{folder / 'reward'}", out="long.jsonl")
    assert refused.exit_code == 2 and "longer than the reward model's window" in refused.stderr


@pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None, reason="sentence-transformers is not installed"
)
def test_an_embedding_prefers_what_is_closer_to_the_post(tell: Tell, folder: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    from tldr.queries.tokenizer import train_bpe

    posts = read_records(folder / "posts.jsonl", Post)
    tokenizer = train_bpe([post.post for post in posts] * 5, 300)
    encoder = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=32)])
    encoder.save(str(folder / "embedder"))
    done = tell(f"embed:{folder / 'embedder'}")
    assert done.exit_code == 0, done.stderr
    rows = read_records(folder / "out.jsonl", Judgement)
    assert len(rows) == 16 and all(row.probability is None for row in rows)
    row = next(row for row in rows if row.order == [0, 1])
    post = next(post for post in posts if post.id == row.id)
    near, far = encoder.similarity(encoder.encode(post.post), encoder.encode(row.texts))[0].tolist()
    assert row.verdict == ("A" if near > far else "B")
    copied = [Sample(id=post.id, policy="copy", text=post.post) for post in posts]
    write_records(folder / "samples.jsonl", copied)
    copies = measures(tell(f"embed:{folder / 'embedder'}", out="copies.jsonl"))
    assert copies["embed:embedder", "copy", "preference"] == "1.000"


def test_bad_lines_stop_it_or_are_set_aside_and_told(folder: Path, tell: Tell) -> None:
    with (folder / "samples.jsonl").open("a") as file:
        file.write("{broken\n")
    with serving(longer) as server:
        asked = ("openai:tiny", "--base-url", server.url, "--price", "0/0")
        stopped = tell(*asked)
        assert stopped.exit_code == 1 and "samples.jsonl:9" in stopped.stderr and not server.requests
        skipped = tell(*asked, "--on-error", "skip")
    assert skipped.exit_code == 0, skipped.stderr
    assert "samples.jsonl: 1 invalid lines skipped, 8 read" in skipped.stderr
    assert len(read_records(folder / "out.jsonl", Judgement)) == 16


def test_verdicts_that_another_judge_wrote_meanwhile_are_kept(
    tell: Tell, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two judges with one --out: the second ends while the first is asking."""
    seen: list[int] = []

    def asked(prompt: str, number: int) -> Reply:
        if not seen:
            seen.append(number)
            other = tell("openai:other", *local, "--cache", folder / "other.sqlite")
            assert other.exit_code == 0, other.stderr
        return longer(prompt, number)

    with serving(longer) as there, serving(asked) as here:
        local: tuple[object, ...] = ("--base-url", there.url, "--price", "0/0", "--limit", 2)
        first = tell("openai:tiny", "--base-url", here.url, *local[2:], "--concurrency", 1)
        assert first.exit_code == 0, first.stderr
    rows = read_records(folder / "out.jsonl", Judgement)
    assert {row.judge: sum(one.judge == row.judge for one in rows) for row in rows} == {
        "openai:tiny": 8,
        "openai:other": 8,
    }


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_judge_that_is_told_to_end_keeps_its_verdicts(folder: Path, signum: int) -> None:
    def answers() -> Iterator[Judgement]:
        for order in ([0, 1], [1, 0]):
            yield Judgement(id="p0", policies=["a", "b"], order=order, judge="rm:x", verdict="A", runs=["r"])
        os.kill(os.getpid(), signum)
        yield from answers()

    def ended(*_: object) -> None:
        raise KeyboardInterrupt

    inherited = signal.signal(signum, ended)  # a program started in the background ignores SIGINT
    try:
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            command._collect(answers(), 4, folder / "out.jsonl")
        assert signal.getsignal(signum) == ended
    finally:
        signal.signal(signum, inherited)
    assert len(read_records(folder / "out.jsonl", Judgement)) == 2
