"""Every stage on tiny models: what it writes, and the traps that only a whole run can show."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tests.stages import lab as laboratory
from tldr.errors import NonFiniteError, RecordError, UsageError
from tldr.inputs.posts import load_comparisons, load_posts
from tldr.models.ladder import load_policy
from tldr.queries.encode import encode_queries, encode_responses
from tldr.queries.zero_shot import newline_ids
from tldr.records import Ranking, Sample, read_records, write_records
from tldr.settings.training import Optimizer
from tldr.stages.data import stage as data_stage
from tldr.stages.data.settings import FileData
from tldr.stages.labels.settings import LabelsSettings
from tldr.stages.ppo.settings import AdaptiveKL, EOSRule
from tldr.stages.reward.algorithm import RankedPrompt, collate_posts, ranked_posts, ranking_loss
from tldr.stages.sft.settings import SFTSettings
from tldr.stages.shared.batches import inference_batches, left_pad
from tldr.stages.shared.device import Device
from tldr.stages.shared.settings import EvaluationSettings
from tldr.stages.shared.summary_scorer import SummaryScorer
from tldr.stages.shared.tokenizers import open_tokenizer
from tldr.toy import labelers
from tldr.toy.gold import count
from tldr.toy.world import facts_of
from tldr.train.checkpoint import hash_folder
from tldr.train.metrics import read_metrics


def ppo_settings(**changes: Any) -> Any:
    return laboratory.PPO_SETTINGS.model_copy(update=changes)


def run_ppo(lab: Path, folder: Path, **changes: Any) -> list[dict[str, float]]:
    ctx = laboratory.context("ppo", lab, folder, settings=ppo_settings(**changes))
    laboratory.run(ctx, "ppo")
    return read_metrics(folder / "metrics.jsonl")


def test_each_trained_stage_moves_every_weight_it_trains(lab: Path) -> None:
    for child, parent in (("sft", "pretrain"), ("ppo", "sft")):
        before, after = (
            dict(load_policy(lab / name / "checkpoint").named_parameters()) for name in (parent, child)
        )
        still = [name for name in before if torch.equal(before[name], after[name])]
        assert not still, f"{child} left {still} as they were"


def test_checkpoints_load_in_plain_transformers(lab: Path) -> None:
    for name in ("pretrain", "sft", "ppo"):
        AutoModelForCausalLM.from_pretrained(lab / name / "checkpoint")
        assert (lab / name / "checkpoint" / "README.md").read_text()
        assert not list((lab / name / "checkpoint").glob("*.bin"))
    tokenizer = AutoTokenizer.from_pretrained(lab / "sft" / "checkpoint")
    assert tokenizer.eos_token_id != tokenizer.pad_token_id


def test_trap_reference_mean_is_zero_in_plain_transformers(lab: Path) -> None:
    """Right-padded query + reference rows through the class that anybody would use."""
    model = AutoModelForSequenceClassification.from_pretrained(lab / "reward" / "checkpoint").eval()
    tokenizer = AutoTokenizer.from_pretrained(lab / "reward" / "checkpoint")
    posts = load_posts(lab / "data" / "sft.jsonl")
    queries = encode_queries(tokenizer, posts, 96)
    references = encode_responses(tokenizer, [post.summary or "" for post in posts], 64)
    scores = []
    for query, reference in zip(queries, references, strict=True):
        row = torch.tensor([query + reference + [tokenizer.pad_token_id] * 3])
        with torch.inference_mode():
            scores.append(float(model(input_ids=row, attention_mask=row != tokenizer.pad_token_id).logits))
    assert abs(mean(scores)) < 1e-3
    evaluation = json.loads((lab / "reward" / "evaluation.json").read_text())
    assert abs(evaluation["reference_mean"]) < 1e-3
    assert abs(evaluation["shift"]) > 1e-3, "an unshifted RM would pass too: choose another seed"


def test_trap_first_minibatch_has_ratio_one_and_kl_zero(lab: Path) -> None:
    for row in read_metrics(lab / "ppo" / "metrics.jsonl"):
        assert row["first_ratio"] == pytest.approx(1, abs=1e-6)
        assert abs(row["first_approx_kl"]) < 1e-6


def test_trap_first_ratio_is_one_at_another_temperature_and_kl_of_first_rollout_zero(
    lab: Path, tmp_path: Path
) -> None:
    """Log-probs at the sampling temperature in rollout, reference and update alike."""
    rows = run_ppo(lab, tmp_path, temperature=0.7, episodes=32)
    assert all(abs(row["first_ratio"] - 1) < 1e-6 for row in rows)
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-5)  # the policy still is the reference
    assert abs(rows[1]["kl"]) > 1e-5


def test_logged_kl_equals_the_one_of_the_saved_samples(lab: Path) -> None:
    samples = read_records(lab / "ppo" / "rollouts.jsonl", Sample)
    logged = read_metrics(lab / "ppo" / "metrics.jsonl")[-1]["kl"]
    assert mean((s.logprob or 0) - (s.logprob_sft or 0) for s in samples) == pytest.approx(logged, abs=1e-5)
    # ... and the reference's side of it can be computed again from the tokens alone.
    device = Device.open("fp32")
    tokenizer = AutoTokenizer.from_pretrained(lab / "sft" / "checkpoint")
    posts = {post.id: post for post in load_posts(lab / "data" / "ppo.jsonl")}
    queries = encode_queries(tokenizer, [posts[s.id] for s in samples], 96)
    again = SummaryScorer(tokenizer, queries, [[s.response_ids or []] for s in samples], device).logprobs(
        load_policy(lab / "sft" / "checkpoint")
    )
    assert [row[0] for row in again] == pytest.approx([s.logprob_sft for s in samples], abs=1e-4)


def test_trap_ppo_prompts_are_the_body_filtered_posts(lab: Path) -> None:
    ppo = laboratory.ppo_of(laboratory.context("ppo", lab, lab / "ppo"))
    posts = load_posts(lab / "data" / "ppo.jsonl")
    tokenizer = open_tokenizer(lab / "sft")
    assert list(ppo.queries) == encode_queries(tokenizer, posts, laboratory.LENGTHS.query)
    assert len(posts) == 128 and all(post.summary is None for post in posts)
    with_reference = {post.id for post in load_posts(lab / "data" / "sft.jsonl")}
    assert any(post.id not in with_reference for post in posts)


def test_trap_sft_posts_standing_in_for_ppo_prompts_is_noted(lab: Path, tmp_path: Path) -> None:
    files = {name: str(lab / "data" / f"{name}.jsonl") for name in ("sft", "valid1", "valid2")}
    settings = laboratory.SETTINGS["data"].model_copy(update={"data": FileData(**files)})
    data_stage.run(laboratory.context("data", lab, tmp_path, settings=settings))
    assert json.loads((tmp_path / "manifest.json").read_text())["ppo_posts_are_sft_posts"] is True


def test_trap_evaluation_posts_in_training_are_refused(lab: Path, tmp_path: Path) -> None:
    files = {"sft": "sft", "valid1": "valid1", "valid2": "sft"}
    settings = laboratory.SETTINGS["data"].model_copy(
        update={
            "data": FileData(**{name: str(lab / "data" / f"{file}.jsonl") for name, file in files.items()})
        }
    )
    with pytest.raises(UsageError, match="trained on"):
        data_stage.run(laboratory.context("data", lab, tmp_path, settings=settings))


def test_trap_valid1_selects_and_valid2_reports(lab: Path) -> None:
    ids = {
        name: {post.id for post in load_posts(lab / "data" / f"{name}.jsonl")}
        for name in ("valid1", "valid2")
    }
    assert {s.id for s in read_records(lab / "score" / "samples.jsonl", Sample)} == ids["valid2"]
    assert {s.id for s in read_records(lab / "best_of_n" / "samples.jsonl", Sample)} == ids["valid2"]
    for split in ("valid1", "valid2"):
        rows = load_comparisons(lab / "labels" / f"{split}.jsonl")
        assert {row.info.id for row in rows} <= ids[split] and all(row.split == split for row in rows)


def test_trap_sft_loss_is_on_the_response_unless_the_query_is_asked_for(lab: Path, tmp_path: Path) -> None:
    logs = {}
    for name in (False, True):
        settings = SFTSettings(batch=8, epochs=0.1, query_loss=name, optimizer=Optimizer(lr=1e-3))
        ctx = laboratory.context("sft", lab, tmp_path / str(name), settings=settings)
        laboratory.run(ctx, "sft")
        logs[name] = read_metrics(ctx.folder / "metrics.jsonl")[0]
    assert logs[True]["tokens"] == logs[False]["tokens"]
    assert abs(logs[True]["loss"] - logs[False]["loss"]) > 0.05  # other tokens, another mean


def test_scores_hold_rm_of_sample_and_reference_gold_and_logprobs(lab: Path) -> None:
    samples = read_records(lab / "score" / "samples.jsonl", Sample)
    assert {s.temperature for s in samples} == {0.0, 0.7} and len(samples) == 48
    for sample in samples:
        assert {"rm", "rm_reference", "gold", "gold_reference", "gold_preference"} <= set(sample.scores)
        assert 0 <= sample.scores["gold_preference"] <= 1
        assert sample.logprob is not None and sample.logprob < 0 and sample.logprob_sft is not None
        assert sample.tags["params"] > 0 and sample.policy == "ppo-s"


def test_best_of_n_chooses_by_each_scorer_from_one_pool(lab: Path) -> None:
    pool = read_records(lab / "best_of_n" / "pool.jsonl", Sample)
    chosen = read_records(lab / "best_of_n" / "samples.jsonl", Sample)
    assert len(pool) == 24 * 4 and len(chosen) == 24 * 3
    for scorer in ("rm", "gold", "rouge"):
        chosen_by = [s for s in chosen if s.tags["scorer"] == scorer]
        assert len(chosen_by) == 24
        for best in chosen_by:
            assert best.scores[scorer] == max(s.scores[scorer] for s in pool if s.id == best.id)


def test_labels_agreement_and_planted_errors(lab: Path) -> None:
    rows = load_comparisons(lab / "labels" / "train.jsonl")
    policies = {summary.policy for row in rows for summary in row.summaries}
    assert {"ref", "s-t0.85", "writer_wrong"} <= policies
    report = json.loads((lab / "labels" / "agreement.json").read_text())
    assert report["rankings"] == {"train": 96, "valid1": 24, "valid2": 24}
    assert report["pairs"] == len(differing(lab / "labels"))  # comparisons have no ties


def differing(labels: Path) -> list[Ranking]:
    """The validation pairs of two different texts."""
    rows = [row for split in ("valid1", "valid2") for row in load_comparisons(labels / f"{split}.jsonl")]
    assert {len(row.summaries) for row in rows} == {2}
    return [row for row in rows if row.summaries[0].text != row.summaries[1].text]


@pytest.mark.parametrize("opposed", [False, True])
def test_agreement_is_the_share_of_pairs_that_two_workers_order_alike(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opposed: bool
) -> None:
    """Two exact workers agree on all pairs; one for long and one for short texts on equal lengths."""
    bias = 1e6 if opposed else 0.0
    workers = tuple(labelers.Worker(str(sign), 0.0, sign * bias) for sign in (1, -1))
    monkeypatch.setattr(labelers, "WORKERS", workers)
    settings = LabelsSettings(pairs=2, valid_pairs=48)
    ctx = laboratory.context("labels", lab, tmp_path, settings=settings)
    laboratory.run(ctx, "labels")
    report = json.loads((tmp_path / "agreement.json").read_text())
    pairs = differing(tmp_path)
    lengths = [[count(facts_of(row.info), one.text).words for one in row.summaries] for row in pairs]
    alike = sum(a == b for a, b in lengths) if opposed else len(pairs)
    assert report["pairs"] == len(pairs) > 40
    assert report["agreement"] == pytest.approx(alike / len(pairs)) and (alike < len(pairs)) == opposed


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": "rloo", "epochs": 1},
        {"algorithm": "reinforce", "epochs": 1},
        {"ptx_coef": 27.8, "ptx_ratio": 2.0},
        {"adaptive_kl": AdaptiveKL(target=0.01, horizon=1000)},
        {"whiten_rewards": True, "eos": EOSRule(missing="replace", value=-1.0)},
    ],
    ids=["rloo", "reinforce", "ppo-ptx", "adaptive-kl", "whiten-and-eos-trick"],
)
def test_named_options_run_and_change_the_result(lab: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    rows = run_ppo(lab, tmp_path, episodes=32, **change)
    plain = run_ppo(lab, tmp_path / "plain", episodes=32)
    assert hash_folder(tmp_path / "checkpoint") != hash_folder(tmp_path / "plain" / "checkpoint")
    assert rows[0]["score"] == pytest.approx(plain[0]["score"], abs=1e-6)  # the first rollout is the same
    if "adaptive_kl" in change:
        assert rows[1]["beta"] < rows[0]["beta"] == 0.05  # KL 0 is below the target
    if "ptx_coef" in change:
        assert 0 < rows[0]["ptx_loss"] < 10


def test_ppo_micro_batches_of_one_query_equal_whole_minibatches(lab: Path, tmp_path: Path) -> None:
    rows = [run_ppo(lab, tmp_path / str(size), micro_batch=size, episodes=16) for size in (None, 1)]
    for name in ("score", "kl", "loss", "policy_loss", "value_loss", "grad_norm_policy", "entropy"):
        assert rows[1][0][name] == pytest.approx(rows[0][0][name], rel=1e-3, abs=1e-5), name


def test_trap_kway_labels_train_as_one_element_a_prompt(lab: Path, tmp_path: Path) -> None:
    labels = laboratory.context(
        "labels", lab, tmp_path / "labels", settings=LabelsSettings(pairs=24, valid_pairs=16, k=(4, 9))
    )
    laboratory.run(labels, "labels")
    rows = load_comparisons(tmp_path / "labels" / "train.jsonl")
    assert {len(row.summaries) for row in rows} <= set(range(4, 10)) and max(len(r.rank) for r in rows) > 4
    ctx = laboratory.context("reward", lab, tmp_path / "reward")
    ctx = laboratory.rewired(ctx, labels=tmp_path / "labels")
    laboratory.run(ctx, "reward")
    assert len(read_metrics(tmp_path / "reward" / "metrics.jsonl")) == 3  # 24 prompts, batches of 8
    examples = [RankedPrompt([1, 2], [[3], [4], [5]], [1, 2, 2]), RankedPrompt([1], [[3], [4]], [2, 1])]
    batch = collate_posts(ranked_posts(examples, share=False), pad=0)
    assert batch.present.tolist() == [[True] * 3, [True, True, False]]


def test_a_ranking_whose_summaries_all_tie_has_no_loss(lab: Path) -> None:
    from tldr.models.reward import load_reward

    model = torch.nn.ModuleDict({"reward": load_reward(lab / "reward" / "checkpoint")})
    prompts = ranked_posts([RankedPrompt([5, 6], [[7, 0], [8, 0]], [1, 1])], share=False)
    tied = ranking_loss(model, collate_posts(prompts, pad=1))
    assert float(tied.count) == 0 and float(tied.total.detach()) == 0


def test_a_further_round_labels_the_earlier_policies_and_keeps_the_reference(
    lab: Path, tmp_path: Path
) -> None:
    """Round 2: labels of SFT, PPO and best-of-N, an RM from SFT on both rounds' labels; PPO may go on."""
    labels = laboratory.context("labels", lab, tmp_path / "labels2", seed=1)
    policies = {"sft-s": lab / "sft", "ppo-s-r1": lab / "ppo", "best_of_n-s-r1": lab / "sft"}
    labels = laboratory.rewired(labels, policies=policies, choosers={"best_of_n-s-r1": lab / "reward"})
    laboratory.run(labels, "labels")
    rows = load_comparisons(tmp_path / "labels2" / "train.jsonl")
    shown = Counter(summary.policy for row in rows for summary in row.summaries)
    assert {f"{name}-t0.85" for name in policies} < set(shown)
    reward = laboratory.context("reward", lab, tmp_path / "reward2", seed=1)
    reward = laboratory.rewired(reward, further_labels={"2": tmp_path / "labels2"})
    laboratory.run(reward, "reward")
    assert json.loads((tmp_path / "reward2" / "evaluation.json").read_text())["train_rankings"] > 96
    ppo = laboratory.context("ppo", lab, tmp_path / "ppo2", seed=1)
    ppo = laboratory.rewired(ppo, policy=lab / "ppo", reward=tmp_path / "reward2")
    laboratory.run(ppo, "ppo")
    assert read_metrics(tmp_path / "ppo2" / "metrics.jsonl")[0]["kl"] != 0  # already away from SFT


def test_sft_select_by_validation_loss_restores_the_best_weights(lab: Path, tmp_path: Path) -> None:
    """A learning rate that ruins the model in the end: the weights kept are of an earlier epoch."""
    settings = SFTSettings(
        batch=8, epochs=3, select="valid_loss", optimizer=Optimizer(lr=0.05, schedule="constant", clip=100.0)
    )
    laboratory.run(laboratory.context("sft", lab, tmp_path, settings=settings), "sft")
    losses = [row["valid_loss"] for row in read_metrics(tmp_path / "metrics.jsonl") if "valid_loss" in row]
    assert len(losses) == 3
    best = laboratory.context(
        "sft",
        lab,
        tmp_path / "again",
        settings=SFTSettings(batch=8, epochs=0.01, optimizer=Optimizer(lr=1e-12)),
    )
    best = laboratory.rewired(best, policy=tmp_path)
    laboratory.run(best, "sft")
    assert read_metrics(tmp_path / "again" / "metrics.jsonl")[-1]["valid_loss"] == pytest.approx(
        min(losses), rel=1e-3
    )


def test_zero_shot_stops_at_a_newline(lab: Path, tmp_path: Path) -> None:
    """The same policy, once as it is pretrained and once as if it were fine-tuned, which goes on."""
    newlines = newline_ids(open_tokenizer(lab / "pretrain"))
    found: dict[str, list[Sample]] = {}
    for method in ("pretrained", "sft"):
        ctx = laboratory.context(
            "sample", lab, tmp_path / method, settings=EvaluationSettings(temperatures=[1.0])
        )
        ctx = laboratory.rewired(ctx, policy=lab / "pretrain")
        ctx.tags["method"] = method
        laboratory.run(ctx, "sample")
        found[method] = read_records(tmp_path / method / "samples.jsonl", Sample)
    stopped_there = 0
    for sample in found["pretrained"]:
        *before, last = sample.response_ids or []
        assert not newlines & set(before) and "\n" not in sample.text and sample.policy == "pretrained-s"
        stopped_there += last in newlines
        assert sample.stopped or len(before) == laboratory.LENGTHS.response - 1
    assert stopped_there > 0, "a policy that writes no newline shows nothing"
    assert any(newlines & set((sample.response_ids or [])[:-1]) for sample in found["sft"])
    assert any("\n" in sample.text for sample in found["sft"])


def test_scoring_samples_of_unknown_posts_says_so(lab: Path, tmp_path: Path) -> None:
    write_records(tmp_path / "foreign.jsonl", [Sample(id="nowhere", policy="x", text=" a")])
    ctx = laboratory.context("score", lab, tmp_path)
    ctx = laboratory.rewired(ctx, samples=tmp_path / "foreign.jsonl")
    with pytest.raises(RecordError, match="sample of post nowhere, which is not among the posts given"):
        laboratory.run(ctx, "score")


def test_samples_from_elsewhere_are_scored_by_their_text(lab: Path, tmp_path: Path) -> None:
    post = load_posts(lab / "data" / "valid2.jsonl")[0]
    write_records(tmp_path / "foreign.jsonl", [Sample(id=post.id, policy="theirs", text=post.summary or "")])
    ctx = laboratory.context("score", lab, tmp_path / "scored")
    ctx = laboratory.rewired(ctx, samples=tmp_path / "foreign.jsonl")
    laboratory.run(ctx, "score")
    (sample,) = read_records(tmp_path / "scored" / "samples.jsonl", Sample)
    assert sample.scores["rm"] == pytest.approx(sample.scores["rm_reference"], abs=1e-5)
    assert sample.scores["gold_preference"] == pytest.approx(0.5)


def test_too_few_ppo_posts_is_a_usage_error(lab: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fewer PPO posts"):
        run_ppo(lab, tmp_path, batch=4096)


def test_nan_reward_stops_with_the_stage_named(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tldr.stages.ppo.rollout.response_scores",
        lambda _, batch: torch.full(batch.response.shape[:2], torch.nan),
    )
    with pytest.raises(NonFiniteError, match="ppo"):
        run_ppo(lab, tmp_path)
    assert not (tmp_path / "checkpoint").exists()


def test_inference_batches_hold_every_row_once_within_the_budget() -> None:
    lengths = [5, 100, 7, 7, 3000, 1]
    batches = list(inference_batches(lengths, budget=200))
    assert sorted(i for batch in batches for i in batch) == list(range(6))
    assert all(len(b) == 1 or len(b) * max(lengths[i] for i in b) <= 200 for b in batches)


def test_left_pad() -> None:
    ids, mask = left_pad([[1, 2, 3], [4]], pad=9)
    assert ids.tolist() == [[1, 2, 3], [9, 9, 4]]
    assert mask.tolist() == [[True] * 3, [False, False, True]]
