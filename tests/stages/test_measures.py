"""The stages that only measure: sampling plans, token traces, scored pairs, probes, ratings."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.stages import lab as laboratory
from tests.texts import encode_response
from tldr.inputs.posts import load_comparisons, load_posts
from tldr.models.ladder import load_policy, parameter_count
from tldr.models.packed import collate, response_logprobs
from tldr.queries.encode import encode_queries
from tldr.records import Comparison, Rating, Sample, TokenTrace, read_records, write_records
from tldr.stages.best_of_n.settings import BestOfNSettings
from tldr.stages.pairs.settings import PairsSettings
from tldr.stages.ppo.stage import KeptRollouts
from tldr.stages.shared import summary_scorer
from tldr.stages.shared.context import RunContext
from tldr.stages.shared.device import Device
from tldr.stages.shared.networks import open_reward
from tldr.stages.shared.reporting import ways_of_sampling
from tldr.stages.shared.settings import EvaluationSettings
from tldr.stages.shared.summary_scorer import SummaryScorer
from tldr.stages.shared.tokenizers import open_tokenizer
from tldr.train.checkpoint import hash_folder
from tldr.train.metrics import read_metrics


def test_sft_policies_alone_have_further_temperatures_and_nuclei() -> None:
    settings = EvaluationSettings(temperatures=[0.0, 0.7], sft_temperatures=[0.7, 1.0], sft_top_ps=[0.8])
    assert [(way.temperature, way.top_p) for way in ways_of_sampling(settings, "ppo")] == [
        (0.0, 1.0),
        (0.7, 1.0),
    ]
    ways = [(way.temperature, way.top_p) for way in ways_of_sampling(settings, "sft")]
    assert ways == [(0.0, 1.0), (0.7, 1.0), (1.0, 1.0), (1.0, 0.8)]
    assert all(way.stop_newline for way in ways_of_sampling(settings, "pretrained"))


def test_traces_add_up_to_the_samples_they_are_of(lab: Path) -> None:
    greedy = {s.id: s for s in read_records(lab / "score" / "samples.jsonl", Sample) if s.temperature == 0}
    rows = read_records(lab / "score" / "tokens.jsonl", TokenTrace)
    assert {row.id for row in rows} == set(greedy)
    beta = read_metrics(lab / "ppo" / "metrics.jsonl")[-1]["beta"]
    for row in rows:
        sample = greedy[row.id]
        assert len(row.pieces) == sample.tokens
        assert row.logprob_sft is not None and row.reward is not None and row.value is not None
        assert sum(row.logprob) == pytest.approx(sample.logprob, abs=0.01)
        kl = sum(row.logprob) - sum(row.logprob_sft)
        assert sum(row.reward) == pytest.approx(sample.scores["rm"] - beta * kl, abs=0.01)
        assert "".join(row.pieces).strip().startswith(sample.text.strip()[:10])


def test_a_reward_model_counts_its_parameters_as_its_policy_does(lab: Path) -> None:
    counted = json.loads((lab / "reward" / "evaluation.json").read_text())["params"]
    assert counted == parameter_count(load_policy(lab / "sft" / "checkpoint"))


@pytest.mark.parametrize("missing", ["none", "replace", "subtract"])
def test_the_rewards_shown_are_those_of_ppos_rule_for_responses_without_eos(
    lab: Path, tmp_path: Path, missing: str
) -> None:
    shutil.copytree(lab / "ppo", tmp_path / "ppo")
    settings = {"eos": {"missing": missing, "value": -3.0}}
    (tmp_path / "ppo" / "config.json").write_text(json.dumps({"settings": settings}))
    inputs = {name: lab / place for name, place in laboratory.INPUTS["score"].items()}
    inputs |= {"ppo": tmp_path / "ppo", "samples": tmp_path / "samples.jsonl"}
    greedy = [s for s in read_records(lab / "sample" / "samples.jsonl", Sample) if s.temperature == 0][:2]
    cut = [greedy[0].model_copy(update={"stopped": False}), greedy[1].model_copy(update={"stopped": True})]
    write_records(tmp_path / "samples.jsonl", cut)
    laboratory.run(laboratory.context("score", lab, tmp_path / "out", inputs=inputs), "score")
    scored = read_records(tmp_path / "out" / "samples.jsonl", Sample)
    beta = read_metrics(lab / "ppo" / "metrics.jsonl")[-1]["beta"]
    for row, sample in zip(read_records(tmp_path / "out" / "tokens.jsonl", TokenTrace), scored, strict=True):
        assert row.logprob_sft is not None and row.reward is not None
        rm = sample.scores["rm"]
        ruled = {"none": rm, "replace": -3.0, "subtract": rm - 3.0}[missing]
        kl = sum(row.logprob) - sum(row.logprob_sft)
        expected = (rm if sample.stopped else ruled) - beta * kl
        assert sum(row.reward) == pytest.approx(expected, abs=0.01)


def test_rollouts_say_at_which_temperature_their_log_probabilities_are(lab: Path, tmp_path: Path) -> None:
    policy = load_policy(lab / "sft" / "checkpoint")
    settings = laboratory.changed("ppo", {"temperature": 0.7, "episodes": 16})
    laboratory.run(laboratory.context("ppo", lab, tmp_path / "ppo", settings=settings), "ppo")
    posts = {post.id: post for post in load_posts(lab / "data" / "ppo.jsonl")}
    tokenizer = open_tokenizer(lab / "sft")
    rows = read_records(tmp_path / "ppo" / "rollouts.jsonl", Sample)
    assert {row.logprob_temperature for row in rows} == {0.7}
    for row in rows[:4]:
        batch = collate(encode_queries(tokenizer, [posts[row.id]], 96), [[row.response_ids or []]], 0)
        with torch.inference_mode():
            found = float(response_logprobs(policy, batch, row.logprob_temperature).sum())
            plain = float(response_logprobs(policy, batch).sum())
        assert row.logprob == pytest.approx(found, abs=1e-3), "the first rollout is SFT's own"
        assert abs(plain - found) > 0.1
    assert all(row.logprob_temperature == 1 for row in read_records(lab / "ppo" / "rollouts.jsonl", Sample))


def test_samples_of_one_post_are_scored_as_if_each_were_alone(lab: Path) -> None:
    policy = load_policy(lab / "ppo" / "checkpoint")
    posts = {post.id: post for post in load_posts(lab / "data" / "valid2.jsonl")}
    tokenizer = open_tokenizer(lab / "sft")
    for sample in read_records(lab / "score" / "samples.jsonl", Sample)[:6]:
        query = encode_queries(tokenizer, [posts[sample.id]], 96)
        with torch.inference_mode():
            alone = response_logprobs(policy, collate(query, [[sample.response_ids or []]], 0)).sum()
        assert sample.logprob == pytest.approx(float(alone), abs=1e-4)


def test_many_summaries_of_a_post_are_scored_as_a_few_at_a_time(
    lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = open_tokenizer(lab / "sft")
    posts = load_posts(lab / "data" / "valid2.jsonl")[:5]
    texts = [[f"{post.summary} {number}" for number in range(count)] for count, post in enumerate(posts, 1)]
    responses = [[encode_response(tokenizer, text, 64) for text in row] for row in texts]
    scorer = SummaryScorer(tokenizer, encode_queries(tokenizer, posts, 96), responses, Device.open("fp32"))
    reward = open_reward(lab / "reward", scorer.device)
    together = scorer.rewards(reward)
    monkeypatch.setattr(summary_scorer, "TOGETHER", 2)
    apart = scorer.rewards(reward)
    assert [len(row) for row in apart] == [1, 2, 3, 4, 5]
    for few, all_at_once in zip(apart, together, strict=True):
        assert few == pytest.approx(all_at_once, abs=1e-5)


def test_pool_is_scored_by_every_reward_model(lab: Path, tmp_path: Path) -> None:
    ctx = laboratory.context("best_of_n", lab, tmp_path, settings=BestOfNSettings(n=3, posts=5))
    laboratory.run(laboratory.rewired(ctx, rewards={"m_n-9": lab / "reward"}), "best_of_n")
    pool = read_records(tmp_path / "pool.jsonl", Sample)
    assert Counter(sample.id for sample in pool) == dict.fromkeys({sample.id for sample in pool}, 3)
    assert len(pool) == 15
    assert all(sample.scores["rm"] == sample.scores["rm_m_n-9"] for sample in pool)


def scored_pairs(lab: Path, name: str) -> list[Comparison]:
    return read_records(lab / "pairs" / f"{name}.jsonl", Comparison)


def test_pairs_carry_every_scorers_value(lab: Path) -> None:
    for name in ("valid2", "probes", "same_policy"):
        for pair in scored_pairs(lab, name):
            for summary in pair.summaries:
                assert set(summary.scores) == {"rm_s", "logprob_s", "tokens", "gold"}
    labels = load_comparisons(lab / "labels" / "valid2.jsonl")
    assert len(scored_pairs(lab, "valid2")) == len(labels)
    assert {pair.split for pair in scored_pairs(lab, "valid2")} == {"valid2"}
    # What the reward stage says of its own accuracy is what these scores say.
    right = [
        (pair.summaries[0].scores["rm_s"] > pair.summaries[1].scores["rm_s"]) == (pair.choice == 0)
        for pair in scored_pairs(lab, "valid2")
        if pair.summaries[0].text != pair.summaries[1].text
    ]
    said = json.loads((lab / "reward" / "evaluation.json").read_text())["valid2_accuracy"]
    assert mean(right) == pytest.approx(said, abs=0.03)
    # ... and confidence has come through: signed, never 5.
    assert {pair.extra.confidence for pair in scored_pairs(lab, "valid2")} <= {1, 2, 3, 4, 6, 7, 8, 9}


def test_scores_of_pairs_are_those_of_the_text_alone(lab: Path) -> None:
    policy = AutoModelForCausalLM.from_pretrained(lab / "sft" / "checkpoint")
    tokenizer = open_tokenizer(lab / "sft")
    for pair in scored_pairs(lab, "same_policy")[:4]:
        query = encode_queries(tokenizer, [pair.info], 96)[0]
        response = encode_response(tokenizer, pair.summaries[1].text, 64)
        with torch.inference_mode():
            logits = policy(torch.tensor([query + response])).logits[0].clone()
            logits[:, tokenizer.pad_token_id] = -math.inf  # which no policy can write
            logits = logits.log_softmax(-1)
        own = sum(float(logits[len(query) - 1 + i, token]) for i, token in enumerate(response))
        assert pair.summaries[1].scores["logprob_s"] == pytest.approx(own, abs=1e-3)
        assert pair.summaries[1].scores["tokens"] == len(response)


def test_same_policy_pairs_have_several_workers_and_one_policy(lab: Path) -> None:
    pairs = scored_pairs(lab, "same_policy")
    assert {summary.policy for pair in pairs for summary in pair.summaries} == {"sft-s-t0.7"}
    workers: dict[str, set[str]] = {}
    for pair in pairs:
        workers.setdefault(pair.info.id or "", set()).add(pair.worker)
    assert workers and all(len(names) == 3 for names in workers.values())


def test_probes_name_themselves_and_their_better_side_is_better_in_truth(lab: Path) -> None:
    gaps: dict[str, list[float]] = {}
    for pair in scored_pairs(lab, "probes"):
        assert pair.choice == 0 and pair.worker == "probe"
        better, worse = (summary.scores["gold"] for summary in pair.summaries)
        gaps.setdefault(pair.batch, []).append(better - worse)
    for edit in ("human-improved edit", "improving edits that shorten"):
        assert min(gaps[edit]) > 0, "a planted edit always improves"
    assert {"lead-3 vs shuffled lead-3", "title vs title twice", "reference vs lead-2"} <= set(gaps)


def test_files_without_labelers_are_scored_all_the_same(lab: Path, tmp_path: Path) -> None:
    """Real posts have no planted facts: held-out labels and probes, no simulated workers."""
    data, labels = tmp_path / "data", tmp_path / "labels"
    shutil.copytree(lab / "data", data)
    labels.mkdir()
    for source, target in ((lab / "data" / "valid2.jsonl", data), (lab / "labels" / "valid2.jsonl", labels)):
        lines = []
        for line in source.read_text().splitlines():
            row: dict[str, Any] = json.loads(line)
            row.pop("facts", None)
            row.get("info", {}).pop("facts", None)
            lines.append(json.dumps(row))
        (target / "valid2.jsonl").write_text("\n".join(lines) + "\n")
    inputs = {"data": data, "labels": labels, "reward-s": lab / "reward", "sft-s": lab / "sft"}
    ctx = laboratory.context("pairs", lab, tmp_path / "out", settings=PairsSettings(posts=4), inputs=inputs)
    laboratory.run(ctx, "pairs")
    assert sorted(path.name for path in ctx.folder.glob("*.jsonl")) == ["probes.jsonl", "valid2.jsonl"]


def test_ratings_of_the_greedy_samples_and_of_plain_baselines(lab: Path) -> None:
    rows = read_records(lab / "ratings" / "ratings.jsonl", Rating)
    assert Counter(row.summary.policy for row in rows) == {
        "reference": 8,
        "title": 8,
        "lead-2": 8,
        "ppo-s": 8,
    }
    greedy = {
        s.id: s.text for s in read_records(lab / "sample" / "samples.jsonl", Sample) if s.temperature == 0
    }
    for row in rows:
        if row.summary.policy == "ppo-s":
            assert row.summary.text.strip() == greedy[row.info.id or ""].strip()
        assert all(
            1 <= value <= 7 for value in (row.summary.axes.overall or 0, row.summary.axes.accuracy or 0)
        )


def test_kept_rollouts_survive_a_kill_and_show_the_way(lab: Path, tmp_path: Path) -> None:
    """Rollouts that were written before a kill are neither lost nor doubled."""
    settings = laboratory.PPO_SETTINGS.model_copy(update={"keep_rollouts": 2})
    whole = laboratory.run(laboratory.context("ppo", lab, tmp_path / "whole", settings=settings), "ppo")
    rows = read_records(whole / "rollouts.jsonl", Sample)
    assert Counter(row.tags["iteration"] for row in rows) == {1: 16, 3: 16, 4: 16}
    assert {"rm", "gold"} <= set(rows[0].scores) and not (whole / "rollouts").exists()
    first = [(row.logprob or 0) - (row.logprob_sft or 0) for row in rows if row.tags["iteration"] == 1]
    assert mean(first) == pytest.approx(0, abs=1e-5)

    ctx = laboratory.context("ppo", lab, tmp_path / "again", settings=settings)
    kept = kept_rollouts(ctx)
    kept.offer(0, kept.ppo.rollout(0, 0.05))  # a kill after the first iteration leaves this
    again = laboratory.run(ctx, "ppo")
    assert (again / "rollouts.jsonl").read_bytes().replace(b"again", b"whole") == (
        whole / "rollouts.jsonl"
    ).read_bytes()
    before = (again / "rollouts.jsonl").read_bytes()
    kept_rollouts(ctx).join()  # ... and so does one after they were joined
    assert (again / "rollouts.jsonl").read_bytes() == before


def kept_rollouts(ctx: RunContext[Any, Any]) -> KeptRollouts:
    posts = load_posts(ctx.inputs.data / "ppo.jsonl")
    return KeptRollouts(ctx, open_tokenizer(ctx.inputs.policy), posts, laboratory.ppo_of(ctx))


def test_shared_value_network_is_a_head_on_the_policy(lab: Path, tmp_path: Path) -> None:
    # so much weight and so many passes that a head of so few updates learns something
    learning = {"value_network": "shared", "vf_coef": 5.0, "epochs": 4}
    settings = laboratory.PPO_SETTINGS.model_copy(update=learning)
    ppo = laboratory.ppo_of(laboratory.context("ppo", lab, tmp_path / "stage", settings=settings))
    modules = ppo.stepper.modules
    assert ppo.value_of(modules) is modules["policy"] and list(modules) == ["policy"]
    assert float(ppo.rollout(0, 0.05).values.abs().max()) == 0.0, "its head starts at 0"
    folder = laboratory.run(laboratory.context("ppo", lab, tmp_path / "run", settings=settings), "ppo")
    assert not (folder / "value").exists() and (lab / "ppo" / "value").is_dir()
    names = set(dict(load_policy(folder / "checkpoint").named_parameters()))
    assert names == set(dict(load_policy(lab / "ppo" / "checkpoint").named_parameters())), (
        "the head is not saved"
    )
    assert hash_folder(folder / "checkpoint") != hash_folder(lab / "ppo" / "checkpoint")
    rows = read_metrics(folder / "metrics.jsonl")
    explained = [row["explained_variance"] for row in rows]
    assert explained[0] == pytest.approx(0, abs=1e-6), "its first values are 0"
    assert abs(explained[-1]) > 1e-3, "it has learned"
