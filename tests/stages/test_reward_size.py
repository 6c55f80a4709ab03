"""A study of two sizes with one reward model, run for real; tokens that a reward model cannot read."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eval.best_of_n.section import largest_pools
from eval.claims.counterparts import chosen
from eval.common.paper import PAPER_FOLDER
from eval.common.runs import load_runs
from eval.common.study import StudyResults
from tldr.errors import UsageError
from tldr.models.reward import load_reward
from tldr.queries.tokenizer import load_tokenizer, train_bpe
from tldr.records import Sample, read_records
from tldr.settings.models import Lengths
from tldr.stages.shared.judging import reward_scores
from tldr.stages.shared.posts import read_posts
from tldr.stages.shared.tokenizers import check_reads_tokens_of
from tldr.study.folder import RunFile, execute
from tldr.study.graph import expand
from tldr.study.hashes import FileHashes
from tldr.study.load import load_study
from tldr.study.prepare import write_run
from tldr.study.registry import STAGES
from tldr.study.runs import Run, needed_for
from tldr.study.settings import Study
from tldr.study.status import write_listing

STUDY = """
name: two
precision: fp32
data: {kind: toy, corpus: 200, sft_posts: 64, ppo_posts: 64, valid1_posts: 16, valid2_posts: 24}
tokenizer: {vocab_size: 512}
lengths: {query: 64, response: 24, rm_response: 40}
ladder:
  s: {d_model: 16, layers: 1, heads: 2, context: 128}
  m: {d_model: 32, layers: 2, heads: 2, context: 128}
sizes: [s]
pretrain: {steps: 6, batch: 8}
sft: {batch: 16}
rounds: [{labels: {pairs: 16, valid_pairs: 8}, ppo: {episodes: 8}}]
labels: {pairs: 32, valid_pairs: 16}
reward: {batch: 8, size: m}
ppo: {batch: 8, episodes: 16}
best_of_n: {n: 4, posts: 8}
evaluation: {temperatures: [0.0], posts: 8}
variants:
  shared: {kind: ppo, set: {value_network: shared}}
  pool: {kind: best_of_n, set: {n: 8, posts: 8}}
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path, dict[str, Run]]:
    folder = tmp_path_factory.mktemp("two")
    (folder / "two.yaml").write_text(STUDY)
    study = load_study(folder / "two.yaml")
    root, runs = folder / "runs", expand(study, FileHashes())
    for run in needed_for(runs, "score"):
        execute(write_run(run, study, root))
    for run in runs:
        if run.stage == "best_of_n" and not (root / run.name).exists():
            execute(write_run(run, study, root))
    return study, root, {run.title: run for run in runs}


def folder(ran: tuple[Study, Path, dict[str, Run]], title: str) -> Path:
    return ran[1] / ran[2][title].name


def width(place: Path) -> int:
    return int(json.loads((place / "config.json").read_text())["hidden_size"])


def test_policies_learn_from_a_reward_model_of_another_shape(ran: Any) -> None:
    ppo, reward = folder(ran, "ppo-s-s0"), folder(ran, "reward-m-s0")
    assert width(ppo / "checkpoint") == 16 and width(reward / "checkpoint") == width(ppo / "value") == 32
    start, trained = load_reward(reward / "checkpoint"), load_reward(ppo / "value")
    moved = [bool((a != b).any()) for a, b in zip(start.parameters(), trained.parameters(), strict=True)]
    assert any(moved), "the value network learnt"
    rows = [json.loads(line) for line in (ppo / "metrics.jsonl").read_text().splitlines()]
    assert all(row["value_loss"] > 0 for row in rows)
    assert abs(rows[0]["first_ratio"] - 1) < 1e-4


def test_a_head_on_the_policy_starts_at_zero_whatever_the_reward_model_is(ran: Any) -> None:
    shared = folder(ran, "ppo-s-s0-shared")
    assert width(shared / "checkpoint") == 16 and not (shared / "value").exists()
    assert json.loads((shared / "metrics.jsonl").read_text().splitlines()[0])["value_loss"] > 0


def test_scores_are_those_of_the_one_reward_model(ran: Any) -> None:
    """The references beside the small policy's samples have the scores that the large model gives alone."""
    samples = read_records(folder(ran, "score-s-s0-ppo") / "samples.jsonl", Sample)
    posts = {post.id: post for post in read_posts(folder(ran, "data"), "valid2", references=True)}
    lengths = Lengths(query=64, response=24, rm_response=40)
    alone = reward_scores(folder(ran, "reward-m-s0"), lengths, "fp32", cut=True)
    references = alone([posts[one.id] for one in samples], [posts[one.id].summary or "" for one in samples])
    assert len(set(references)) > 1
    for sample, score in zip(samples, references, strict=True):
        assert sample.scores["rm_reference"] == pytest.approx(score, abs=1e-4)
    traces = (folder(ran, "score-s-s0-ppo") / "tokens.jsonl").read_text().splitlines()
    assert all("value" in json.loads(line) for line in traces), "by the value network of the larger size"


def test_nothing_else_was_made_for_the_reward_models_size(ran: Any) -> None:
    made = {path.name.rpartition("-")[0] for path in ran[1].iterdir() if (path / "DONE").exists()}
    assert {title for title in made if "-m-" in title} == {
        "pretrain-m-s0",
        "sft-m-s0",
        "reward-m-s0-r1",
        "reward-m-s0",
    }


@pytest.fixture(scope="module")
def tokenizers(ran: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A reward model as it is, and copies with another vocabulary and with another EOS."""
    found, base = {"same": folder(ran, "reward-m-s0") / "checkpoint"}, tmp_path_factory.mktemp("others")
    for name in ("vocabulary", "eos"):
        found[name] = base / name
        shutil.copytree(found["same"], found[name])
    train_bpe(["an other text about other things " * 9], 400).save_pretrained(found["vocabulary"])
    other = load_tokenizer(found["eos"])
    other.eos_token = other.convert_ids_to_tokens(7)
    other.save_pretrained(found["eos"])
    return found


@pytest.mark.parametrize(("name", "words"), [("vocabulary", "tokens, not the policy's"), ("eos", "the EOS")])
def test_trap_a_reward_model_reads_the_policys_ids_in_its_own_vocabulary(
    ran: Any, tokenizers: dict[str, Path], name: str, words: str
) -> None:
    policy = folder(ran, "sft-s-s0")
    tokenizer = load_tokenizer(policy / "checkpoint")
    check_reads_tokens_of(tokenizers["same"], policy, tokenizer, "ppo.reward")
    with pytest.raises(UsageError) as error:
        check_reads_tokens_of(tokenizers[name], policy, tokenizer, "ppo.reward")
    for word in (words, "ppo.reward", str(policy), "reward.size"):
        assert word in str(error.value)


@pytest.mark.parametrize("title", ["ppo-s-s0", "best_of_n-s-s0", "score-s-s0-sft", "labels-s0"])
def test_every_stage_that_hands_drawn_ids_to_a_reward_model_refuses_another_vocabulary(
    ran: Any, tokenizers: dict[str, Path], tmp_path: Path, title: str
) -> None:
    _, root, runs = ran
    run, other = runs[title], tokenizers["vocabulary"]
    spec = RunFile.read(root / run.name)
    ctx = replace(spec.context(root / run.name), folder=tmp_path)
    changed: dict[str, Any] = {"reward": other}
    if run.stage == "labels":
        changed = {"choosers": dict.fromkeys(ctx.inputs.choosers, other)}
    stage = STAGES[run.stage].load(run.settings.model_dump(mode="json"))
    with pytest.raises(UsageError, match="has a tokenizer with"):
        stage(replace(ctx, inputs=replace(ctx.inputs, **changed)))


def test_the_report_names_the_reward_model_that_chose(ran: Any) -> None:
    study, root, runs = ran
    write_listing(study, list(runs.values()), root)
    results = StudyResults(load_runs(root), PAPER_FOLDER, draws=20)
    (pool,) = largest_pools(results)
    assert pool.scorer == "rm_m" and "rm_m" not in pool.choosers and "rm" in pool.choosers
    table = chosen(results)
    assert table.loc[table["selected_by"] == "rm", "chooser_params"].notna().all()
