"""A tiny study in which SFT has three epochs and a reward model chooses one of them, run to its report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from eval.common.paper import PAPER_FOLDER
from eval.common.runs import load_runs
from eval.common.study import StudyResults
from eval.runs.section import runs_section
from tldr.models.packed import collate, response_scores
from tldr.models.reward import load_reward
from tldr.queries.encode import encode_queries
from tldr.records import Sample, read_records
from tldr.stages.shared.posts import read_posts
from tldr.stages.shared.tokenizers import open_tokenizer, pad_id
from tldr.study.folder import RunFile, execute
from tldr.study.graph import expand
from tldr.study.hashes import FileHashes
from tldr.study.load import load_study
from tldr.study.prepare import write_run
from tldr.study.runs import needed_for
from tldr.study.status import write_listing
from tldr.train.checkpoint import hash_folder
from tldr.train.metrics import read_metrics

STUDY = """
name: tiny
precision: fp32
data: {kind: toy, corpus: 200, sft_posts: 64, ppo_posts: 32, valid1_posts: 16, valid2_posts: 8}
tokenizer: {vocab_size: 512}
lengths: {query: 96, response: 32, rm_response: 48}
ladder: {s: {d_model: 16, layers: 2, heads: 2, context: 256, init: mimetic}}
pretrain: {steps: 24, batch: 8, optimizer: {lr: 1.0e-2}}
sft: {epochs: 3, batch: 8, select: reward, optimizer: {lr: 2.0e-2, schedule: constant}}
labels: {pairs: 64, valid_pairs: 16}
reward: {batch: 8, optimizer: {lr: 5.0e-3}}
epoch: {temperature: 0.5, posts: 12}
ppo: {batch: 16, episodes: 16, minibatches: 1, epochs: 1}
rounds: [{labels: {pairs: 32}}]
best_of_n: null
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    config = root / "tiny.yaml"
    config.write_text(STUDY)
    loaded = load_study(config)
    runs = expand(loaded, FileHashes())
    for run in needed_for(runs, "score"):
        execute(write_run(run, loaded, root))
    write_listing(loaded, runs, root)
    return root


def folder(root: Path, title: str) -> Path:
    (found,) = root.glob(f"{title}-" + "[0-9a-f]" * 10)
    return found


def test_the_choice_is_that_of_the_rewards_computed_again(study: Path) -> None:
    chosen, reward = folder(study, "epoch-s-s0"), folder(study, "reward-s-s0-r1")
    assert RunFile.read(chosen).parents["reward"].run == reward.name
    data = folder(study, "data")
    tokenizer, model = open_tokenizer(data), load_reward(reward / "checkpoint")
    posts = read_posts(data, "valid1")[:12]
    queries = dict(zip([post.id for post in posts], encode_queries(tokenizer, posts, 96), strict=True))
    means: dict[float, list[float]] = {}
    for row in read_records(chosen / "epoch_samples.jsonl", Sample):
        batch = collate([queries[row.id]], [[row.response_ids or []]], pad_id(tokenizer))
        with torch.no_grad():
            value = float(response_scores(model, batch)[0, 0])
        assert value == pytest.approx(row.scores["rm"], abs=1e-4)
        means.setdefault(float(row.tags["epoch"]), []).append(value)
    assert {epoch: len(values) for epoch, values in means.items()} == {1.0: 12, 2.0: 12, 3.0: 12}
    best = max(means, key=lambda epoch: sum(means[epoch]))
    found = json.loads((chosen / "evaluation.json").read_text())
    assert found["epoch"] == best
    name = {1.0: "epoch-1", 2.0: "epoch-2", 3.0: "checkpoint"}[best]
    assert hash_folder(chosen / "checkpoint") == hash_folder(folder(study, "sft-s-s0") / name)


def test_ppo_starts_from_the_chosen_epoch_and_is_held_to_it(study: Path) -> None:
    chosen = folder(study, "epoch-s-s0")
    for title in ("ppo-s-s0-r1", "ppo-s-s0"):
        read = RunFile.read(folder(study, title)).parents
        assert read["policy"].run == read["reference"].run == chosen.name
        assert read_metrics(folder(study, title) / "metrics.jsonl")[0]["kl"] == pytest.approx(0, abs=1e-6)
    samples = folder(study, "score-s-s0-sft")
    rows = read_records(samples / "samples.jsonl", Sample)
    assert [row.logprob for row in rows] == [row.logprob_sft for row in rows]


def test_the_report_has_the_epochs(study: Path) -> None:
    results = StudyResults(load_runs(study), PAPER_FOLDER, draws=20)
    (table,) = [one for one in runs_section(results).tables if one.name == "epochs"]
    found = json.loads((folder(study, "epoch-s-s0") / "evaluation.json").read_text())
    rows: list[Any] = table.frame.to_dict("records")
    assert [row["epoch"] for row in rows] == [1, 2, 3] and {row["posts"] for row in rows} == {12}
    assert [row["chosen"] for row in rows] == ["yes" if e == found["epoch"] else "" for e in (1, 2, 3)]
    for row, told in zip(rows, found["epochs"], strict=True):
        assert row["valid1 loss"] == told["valid1_loss"]
        for name, key in (("reward", "rm"), ("rouge", "rouge"), ("gold", "gold")):
            assert row[name] == pytest.approx(told[key])
            assert row[f"{name} low"] < row[name] < row[f"{name} high"]
    assert results.samples is not None and set(results.samples["id"]) == {
        post.id for post in read_posts(folder(study, "data"), "valid2")
    }
