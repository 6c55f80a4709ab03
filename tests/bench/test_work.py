"""The benchmark measures the stages' own updates, and counts what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from tldr.bench.measure import Case, rounds
from tldr.bench.run import STAGES, cases, measured
from tldr.bench.texts import EOS, made_up_queries, made_up_responses
from tldr.bench.work import work_of
from tldr.cli.main import app
from tldr.study.load import load_study

STUDY = """
name: tiny
data: {kind: files, sft: a.jsonl, valid1: b.jsonl, valid2: c.jsonl, comparisons: d.jsonl, corpus: e.jsonl}
tokenizer: {vocab_size: 512}
precision: fp32
lengths: {query: 64, response: 16, rm_response: 32}
ladder: {t: {arch: gpt_neox, d_model: 32, layers: 2, heads: 2, context: 128}}
pretrain: {}
sft: {batch: 8}
reward: {batch: 4}
ppo: {batch: 8, epochs: 2, micro_batch: 4}
"""


@pytest.fixture(scope="module")
def study_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "tiny.yaml"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="module")
def found(study_file: Path) -> dict[str, Case]:
    made = list(cases(load_study(study_file), STAGES, rounds=2, updates=1))
    assert all(isinstance(case, Case) for case in made)
    return {case.stage: case for case in made if isinstance(case, Case)}


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    precision = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(precision)


def test_made_up_texts_have_the_papers_lengths() -> None:
    queries = made_up_queries(4000, 512, 1000, seed=0)
    lengths = [len(query) for query in queries]
    assert 290 < sum(lengths) / len(lengths) < 306 and max(lengths) == 512 and min(lengths) > 0
    # of batches of 8 as they are drawn a third is padding (measured on TL;DR: 36 %)
    widest = sum(8 * max(lengths[i : i + 8]) for i in range(0, 4000, 8))
    assert 0.3 < 1 - sum(lengths) / widest < 0.42
    responses = made_up_responses(1000, 48, 1000, seed=0)
    assert {len(response) for response in responses} == set(range(24, 49))
    assert all(response[-1] == EOS and EOS not in response[:-1] for response in responses)


@pytest.mark.parametrize("stage", STAGES)
def test_an_update_is_a_step_of_the_stage(found: dict[str, Case], stage: str) -> None:
    work = work_of(found[stage].settings, found[stage].setting)
    before = {name: p.detach().clone() for name, p in work.stepper._joint.named_parameters()}
    done = work.update(0)
    moved = {name for name, p in work.stepper._joint.named_parameters() if not p.equal(before[name])}
    # adding to both scores of a pair changes no loss, so the last norm's bias has no gradient
    still = {"parts.reward.gpt_neox.final_layer_norm.bias"} if stage == "reward" else set()
    assert moved == set(before) - still
    assert {"sft": 8, "reward": 4, "ppo": 8}[stage] == len(done.rows)
    once = sum(query + sum(responses) for query, responses in done.rows)
    assert done.tokens == once * {"sft": 1, "reward": 1, "ppo": 2}[stage]  # PPO goes through them twice


def test_speed_is_that_of_real_tokens_and_useful_work(found: dict[str, Case]) -> None:
    """6 FLOPs a matrix entry and token (2 forward, 4 backward); the attention's and the head's beside."""
    d, layers, vocab = 32, 2, 512
    (row,) = rounds(replace(found["sft"], rounds=1, updates=3))
    assert row["tokens"] < 3 * 8 * (64 + 16), "padding was counted"
    assert row["tokens_per_s"] == pytest.approx(row["tokens"] / row["seconds"])
    assert row["mfu"] == pytest.approx(row["flops"] / row["seconds"] / row["gemm_fp32"])
    low = 6 * layers * 12 * d * d * row["tokens"]
    high = low + 3 * (4 * layers * d * 80 * row["tokens"] + 3 * 2 * vocab * d * 8 * 16)
    assert low < row["flops"] < high


def test_what_is_recomputed_is_no_useful_work(found: dict[str, Case]) -> None:
    case = found["sft"]
    again = replace(case, settings=case.settings.model_copy(update={"gradient_checkpointing": True}))
    again = replace(again, options=replace(case.options, checkpointing=True))
    one, two = (next(iter(rounds(replace(c, rounds=1)))) for c in (case, again))
    assert one["flops"] == two["flops"] and two["gradient_checkpointing"]


def test_ppo_is_timed_by_phase(found: dict[str, Case]) -> None:
    row = next(iter(rounds(replace(found["ppo"], rounds=1))))
    phases = [row[f"{name}_s"] for name in ("generation", "scoring", "update")]
    assert min(phases) > 0 and sum(phases) == pytest.approx(row["seconds"])
    assert row["episodes_per_s"] == pytest.approx(8 / row["seconds"])


def test_a_stage_that_fails_is_a_line_and_not_a_crash(found: dict[str, Case]) -> None:
    case = found["sft"]
    huge = case.settings.model_copy(update={"batch": 0})  # no batch can be made of it
    rows = list(measured(replace(case, settings=huge)))
    assert len(rows) == 1 and rows[0]["stage"] == "sft" and "error" in rows[0]


def test_a_stage_that_does_not_fit_is_told_beforehand(study_file: Path) -> None:
    study = load_study(study_file, ["ladder.t.path=facebook/opt-13b", "pretrain=null"])
    (row,) = cases(study, ["ppo"], rounds=1, updates=1)
    assert (
        isinstance(row, dict) and "does not fit" in row["error"] and "ppo.frozen_dtype=bf16" in row["error"]
    )


def test_the_command_writes_a_line_a_round_and_a_table(study_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    line = [
        "bench",
        str(study_file),
        "--stage",
        "reward",
        "--rounds",
        "2",
        "--updates",
        "2",
        "--out",
        str(out),
    ]
    done = CliRunner().invoke(app, [*line, "--set", "reward.batch=2"])
    assert done.exit_code == 0, done.output
    rows: list[dict[str, Any]] = [json.loads(text) for text in out.read_text().splitlines()]
    assert [row["round"] for row in rows] == [0, 1] and all(row["batch"] == 2 for row in rows)
    assert all(row["pairs_per_s"] * row["seconds"] == pytest.approx(4) for row in rows)
    assert "reward-t" in done.output and "pairs" in done.output


def test_a_stage_that_cannot_be_measured_is_refused(study_file: Path) -> None:
    done = CliRunner().invoke(app, ["bench", str(study_file), "--stage", "labels"])
    assert done.exit_code == 2 and "cannot measure 'labels'" in done.output
