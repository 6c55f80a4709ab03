"""The doctor: silent on a healthy study, and for every planted fault the stage and the check, no other."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import tldr.doctor
from tests.doctor.healthy import build, edit_json, edit_log, edit_rows
from tldr.cli.main import app
from tldr.doctor.examine import examine
from tldr.doctor.findings import CHECKS
from tldr.errors import UsageError

Plant = Callable[[Path], object]
PLANTS: list[tuple[str, str, str, str, Plant]] = []


def plant(severity: str, run: str, check: str) -> Callable[[Plant], Plant]:
    """A fault to be named as `check` of `run`."""

    def registered(function: Plant) -> Plant:
        PLANTS.append((function.__name__, severity, run, check, function))
        return function

    return registered


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("healthy") / "study")


@pytest.fixture
def study(healthy: Path, tmp_path: Path) -> Path:
    return shutil.copytree(healthy, tmp_path / "study")


def test_a_healthy_study_is_silent(healthy: Path) -> None:
    runs, findings = examine(healthy)
    assert len(runs) == 10
    assert findings == []


@plant("fault", "sft-s", "failed")
def a_run_that_failed(root: Path) -> None:
    (root / "sft-s" / "DONE").unlink()
    (root / "sft-s" / "FAILED").write_text(
        json.dumps({"what": "the disk is full", "where": "x", "remedy": None})
    )


@plant("note", "pairs", "failed")
def a_run_that_was_stopped(root: Path) -> None:
    (root / "pairs" / "DONE").unlink()


@plant("warning", "score-ppo", "failed")
def a_parent_made_anew(root: Path) -> None:
    edit_json(root / "score-ppo" / "run.json", parents={"ppo": {"run": "ppo-s", "outputs": "another"}})


@plant("fault", "reward-s", "tokenizer")
def a_reward_model_with_another_tokenizer(root: Path) -> None:
    path = root / "reward-s" / "checkpoint" / "tokenizer.json"
    model = json.loads(path.read_text())["model"]
    edit_json(path, model=model | {"merges": model["merges"][:-3]})


@plant("fault", "reward-s", "windows")
def a_reward_model_with_another_query_window(root: Path) -> None:
    edit_json(root / "reward-s" / "run.json", lengths={"query": 64, "response": 24, "rm_response": 32})


@plant("fault", "reward-s", "unreadable")
def a_broken_log(root: Path) -> None:
    with (root / "reward-s" / "metrics.jsonl").open("a") as file:
        file.write("{broken\n")


@plant("fault", "sft-s", "pad_eos")
def a_tokenizer_whose_pad_is_eos(root: Path) -> None:
    edit_json(root / "sft-s" / "checkpoint" / "tokenizer_config.json", pad_token="<|endoftext|>")


@plant("fault", "reward-s", "pad_eos")
def a_reward_model_that_pools_at_eos(root: Path) -> None:
    edit_json(root / "reward-s" / "checkpoint" / "config.json", pad_token_id=0)


@plant("fault", "ppo-s", "pad_eos")
def a_model_with_another_eos(root: Path) -> None:
    edit_json(root / "ppo-s" / "checkpoint" / "config.json", eos_token_id=2)


@plant("fault", "reward-s", "finite")
def a_loss_that_is_nan(root: Path) -> None:
    edit_log(root / "reward-s", lambda row: {"grad_norm": math.nan} if row["update"] == 30 else {})


@plant("fault", "ppo-s", "gradients")
def a_value_network_that_gets_no_gradient(root: Path) -> None:
    edit_log(root / "ppo-s", lambda row: {"grad_norm_value": 0.0})


@plant("warning", "pretrain-s", "gradients")
def gradients_that_are_always_cut(root: Path) -> None:
    edit_log(root / "pretrain-s", lambda row: {"grad_norm": 40.0})


@plant("fault", "sft-s", "learning_rate")
def a_learning_rate_that_is_lost_in_the_warm_up(root: Path) -> None:
    edit_log(root / "sft-s", lambda row: {"lr": 1e-9 * row["update"]})


@plant("fault", "pretrain-s", "diverged")
def a_loss_that_grows(root: Path) -> None:
    edit_log(root / "pretrain-s", lambda row: {"loss": row["update"] ** 0.5})


@plant("fault", "data", "leakage")
def evaluation_posts_in_sft(root: Path) -> None:
    with (root / "data" / "sft.jsonl").open("a") as file:
        file.write((root / "data" / "valid2.jsonl").read_text().splitlines()[0] + "\n")


@plant("fault", "labels", "leakage")
def labels_that_train_on_what_they_report(root: Path) -> None:
    with (root / "labels" / "train.jsonl").open("a") as file:
        file.write((root / "labels" / "valid2.jsonl").read_text().splitlines()[0] + "\n")


@plant("fault", "labels", "repeated_labels")
def labels_read_twice(root: Path) -> None:
    path = root / "labels" / "train.jsonl"
    path.write_text(path.read_text() * 2)


@plant("fault", "labels", "one_sided_workers")
def a_worker_who_always_prefers_the_left_summary(root: Path) -> None:
    for split in ("train", "valid1", "valid2"):
        path = root / "labels" / f"{split}.jsonl"
        edit_rows(path, lambda row: {"rank": [1, 2]} if row["worker"] == "worker-3" else {})


@plant("warning", "labels", "one_sided_workers")
def a_worker_who_nearly_always_prefers_the_right_summary(root: Path) -> None:
    for split in ("train", "valid1", "valid2"):
        path, seen = root / "labels" / f"{split}.jsonl", iter(range(10**6))
        edit_rows(
            path,
            lambda row, seen=seen: (
                {"rank": [1, 2] if next(seen) % 10 == 5 else [2, 1]} if row["worker"] == "worker-3" else {}
            ),
        )


def test_labels_that_list_the_preferred_summary_first_blame_no_worker(study: Path) -> None:
    for split in ("train", "valid1", "valid2"):
        edit_rows(study / "labels" / f"{split}.jsonl", lambda row: {"rank": [1, 2]})
    _, findings = examine(study)
    assert not [one for one in findings if one.check.endswith("_workers")]


@plant("fault", "labels", "repeating_workers")
def a_worker_who_clicks_in_turn(root: Path) -> None:
    seen = iter(range(10**6))
    for split in ("train", "valid1", "valid2"):
        path = root / "labels" / f"{split}.jsonl"
        edit_rows(
            path,
            lambda row: {"rank": [[1, 2], [2, 1]][next(seen) % 2]} if row["worker"] == "worker-3" else {},
        )


@plant("fault", "labels", "repeating_workers")
def a_worker_of_one_confidence_among_others(root: Path) -> None:
    rng = random.Random(0)
    for split in ("train", "valid1", "valid2"):
        path = root / "labels" / f"{split}.jsonl"
        edit_rows(
            path,
            lambda row: {"extra": {"confidence": 7 if row["worker"] == "worker-3" else rng.randint(1, 4)}},
        )


def with_second_opinions(root: Path, own: Callable[[list[int]], list[int]]) -> None:
    """Two others answer worker-3's questions of train, alike; worker-3 answers `own` of that."""
    path = root / "labels" / "train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    theirs = [row for row in rows if row["worker"] == "worker-3"]
    more = [row | {"worker": worker} for row in theirs for worker in ("worker-1", "worker-2")]
    rows = [row | {"rank": own(row["rank"])} if row["worker"] == "worker-3" else row for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows + more))


@plant("fault", "labels", "deviating_workers")
def a_worker_who_prefers_what_the_others_reject(root: Path) -> None:
    with_second_opinions(root, lambda rank: rank[::-1])


@plant("warning", "labels", "deviating_workers")
def a_worker_who_answers_at_random(root: Path) -> None:
    rng = random.Random(3)
    with_second_opinions(root, lambda rank: rng.choice([[1, 2], [2, 1]]))


@plant("fault", "labels", "prompts")
def labels_whose_posts_have_other_line_breaks(root: Path) -> None:
    edit_rows(
        root / "labels" / "train.jsonl",
        lambda row: {"info": row["info"] | {"post": row["info"]["post"].replace(": ", ":\n")}},
    )


@plant("fault", "sft-s", "reference_window")
def references_longer_than_the_window(root: Path) -> None:
    for path in root.glob("*/run.json"):
        edit_json(path, lengths={"query": 96, "response": 7, "rm_response": 32})
    for path in root.glob("*/samples.jsonl"):
        edit_rows(path, lambda row: {"tokens": 5})
    edit_log(root / "ppo-s", lambda row: {"length": 5.0})


@plant("fault", "sft-s", "ngram_floor")
def an_sft_that_learnt_nothing(root: Path) -> None:
    edit_log(root / "sft-s", lambda row: {"valid_loss": 3.0})


def test_a_policy_of_fewer_posts_is_not_held_against_models_of_all(study: Path) -> None:
    an_sft_that_learnt_nothing(study)
    note = json.loads((study / "sft-s" / "run.json").read_text())
    edit_json(study / "sft-s" / "run.json", settings=note["settings"] | {"limit": 64})
    assert not [one for one in examine(study)[1] if one.check == "ngram_floor"]


@plant("fault", "reward-s", "chance")
def a_reward_model_of_swapped_labels(root: Path) -> None:
    edit_json(root / "reward-s" / "evaluation.json", valid1_accuracy=0.28)
    edit_rows(
        root / "labels" / "valid1.jsonl", lambda row: {"summaries": [{"text": " a", "policy": "s"}] * 2}
    )
    edit_rows(root / "labels" / "train.jsonl", lambda row: {"rank": [1, 2]})


@plant("fault", "reward-s", "length_rule")
def a_reward_model_worse_than_length(root: Path) -> None:
    for split in ("train", "valid1"):
        edit_rows(root / "labels" / f"{split}.jsonl", longer_wins)


def longer_wins(row: dict[str, list[dict[str, str]]]) -> dict[str, object]:
    """The preferred of two summaries has a word more."""
    one, other = row["summaries"]
    return {"rank": [1, 2], "summaries": [one, other | {"text": one["text"].rsplit(" ", 1)[0]}]}


@plant("fault", "reward-s", "reference_mean")
def a_shift_that_was_not_taken(root: Path) -> None:
    edit_json(root / "reward-s" / "evaluation.json", reference_mean=1.5)


@plant("fault", "reward-s", "reference_mean")
def a_shift_that_was_lost_in_loading(root: Path) -> None:
    edit_rows(
        root / "score-sft" / "samples.jsonl",
        lambda row: {"scores": row["scores"] | {"rm_reference": row["scores"]["rm_reference"] + 3}},
    )


@plant("fault", "reward-s", "length_correlation")
def a_reward_model_that_counts_words(root: Path) -> None:
    edit_rows(
        root / "pairs" / "valid2.jsonl",
        lambda row: {
            "summaries": [one | {"scores": {"rm_s": len(one["text"].split())}} for one in row["summaries"]]
        },
    )


@plant("fault", "ppo-s", "first_ratio")
def log_probabilities_of_another_temperature(root: Path) -> None:
    """The mean ratio of any two distributions is about 1; the KL is what shows it."""
    edit_log(root / "ppo-s", lambda row: {"first_ratio": 1.002, "first_approx_kl": 0.02})


@plant("fault", "ppo-s", "first_ratio")
def updates_before_the_first_ratio(root: Path) -> None:
    edit_log(root / "ppo-s", lambda row: {"first_ratio": 1.1 if row["update"] == 3 else 1.0})


@plant("fault", "ppo-s", "sampler_gap")
def a_copy_to_sample_from_that_is_not_brought_up_to_date(root: Path) -> None:
    edit_log(root / "ppo-s", lambda row: {"sampler_gap": 0.02 * row["update"]})


@plant("warning", "ppo-s", "sampler_gap")
def a_sampler_that_rounds_too_much(root: Path) -> None:
    edit_log(root / "ppo-s", lambda row: {"sampler_gap": 0.08})


@plant("fault", "ppo-s", "kl_sign")
def a_negative_kl(root: Path) -> None:
    edit_log(root / "ppo-s", lambda row: {"kl": -row["kl"] / 2 if row["update"] < 16 else row["kl"]})


@plant("fault", "ppo-s", "kl_estimators")
def a_logged_kl_that_is_another(root: Path) -> None:
    edit_log(root / "ppo-s", lambda row: {"kl": row["kl"] / 12})


@plant("fault", "ppo-s", "kl_estimators")
def episodes_that_the_policy_did_not_draw(root: Path) -> None:
    """Drawn from SFT: log-ratios N(-1, 2), but logged as if they were the policy's."""
    rng = random.Random(3)
    ratios = [rng.gauss(-1, 0.5) for _ in range(64)]
    draws = iter(ratios)
    edit_rows(root / "ppo-s" / "rollouts.jsonl", lambda row: {"logprob_sft": row["logprob"] - next(draws)})
    mean = sum(ratios) / 64
    edit_log(root / "ppo-s", lambda row: {"kl": mean} if row["update"] == 16 else {"kl": 0.0})
    few = _settings(root, batch=4)  # so that the sign may be noise
    edit_json(root / "ppo-s" / "run.json", settings=few)


def _settings(root: Path, **changes: object) -> dict[str, object]:
    settings: dict[str, object] = json.loads((root / "ppo-s" / "run.json").read_text())["settings"]
    return settings | changes


@plant("fault", "ppo-s", "clip_share")
def steps_that_are_all_clipped(root: Path) -> None:
    edit_log(root / "ppo-s", lambda row: {"clip_fraction": 0.7})


@plant("fault", "ppo-s", "value_network")
def a_value_network_that_gets_worse(root: Path) -> None:
    edit_log(root / "ppo-s", lambda row: {"explained_variance": -row["update"]})


@plant("note", "ppo-s", "value_network")
def a_value_network_whose_returns_differ_less_and_less(root: Path) -> None:
    """As in the toy study's run with a shared one: its error fell to a third."""
    edit_log(
        root / "ppo-s",
        lambda row: {"explained_variance": -row["update"], "value_loss": 0.07 / row["update"]},
    )


@plant("note", "ppo-s", "value_network")
def a_value_network_that_is_not_there_yet(root: Path) -> None:
    edit_log(root / "ppo-s", lambda row: {"explained_variance": -3 + 0.15 * row["update"]})


@plant("fault", "ppo-s", "entropy")
def an_entropy_that_collapses(root: Path) -> None:
    edit_log(root / "ppo-s", lambda row: {"entropy": 0.5 / row["update"] ** 2})


@plant("fault", "ppo-s", "score_falls")
def a_reward_of_the_wrong_sign(root: Path) -> None:
    edit_log(root / "ppo-s", lambda row: {"score": -row["score"]})


@plant("fault", "ppo-s", "rollout_ends")
def episodes_without_eos(root: Path) -> None:
    edit_log(root / "ppo-s", lambda row: {"eos_rate": 1.1 - row["update"] / 16})


@plant("warning", "ppo-s", "rollout_ends")
def episodes_that_fill_the_window(root: Path) -> None:
    edit_log(root / "ppo-s", lambda row: {"length": 22.0})


@plant("warning", "ppo-s", "overoptimised")
def a_reward_that_rises_while_gold_collapses(root: Path) -> None:
    edit_rows(
        root / "score-ppo" / "samples.jsonl",
        lambda row: {"scores": row["scores"] | {"gold": row["scores"]["gold"] - 4}},
    )


@plant("note", "ppo-s", "overoptimised")
def a_reward_that_rises_while_gold_falls_a_little(root: Path) -> None:
    edit_rows(
        root / "score-ppo" / "samples.jsonl",
        lambda row: {"scores": row["scores"] | {"gold": row["scores"]["gold"] - 0.85}},
    )


@plant("fault", "sft-s", "eos_rate")
def an_sft_that_does_not_stop(root: Path) -> None:
    for run in ("sample-sft", "score-sft"):
        edit_rows(root / run / "samples.jsonl", lambda row: {"stopped": False, "tokens": 24})


@plant("warning", "ppo-s", "length_at_cap")
def summaries_that_fill_the_window(root: Path) -> None:
    edit_rows(root / "score-ppo" / "samples.jsonl", lambda row: {"tokens": 22})


@plant("fault", "ppo-s", "repeats")
def a_policy_that_repeats_itself(root: Path) -> None:
    edit_rows(root / "score-ppo" / "samples.jsonl", lambda row: {"response_ids": [5, 6, 7] * 4 + [0]})


@plant("fault", "sft-s", "same_text")
def an_sft_that_does_not_read_the_post(root: Path) -> None:
    edit_rows(root / "score-sft" / "samples.jsonl", lambda row: {"text": " the same"})


@pytest.mark.parametrize(
    ("severity", "run", "check", "spoil"), [row[1:] for row in PLANTS], ids=[row[0] for row in PLANTS]
)
def test_a_planted_fault_is_named_and_nothing_else(
    study: Path, severity: str, run: str, check: str, spoil: Plant
) -> None:
    spoil(study)
    _, findings = examine(study)
    assert [(one.severity, one.run, one.check) for one in findings] == [(severity, run, check)], findings
    assert findings[0].stage == run.split("-")[0]
    assert all((findings[0].seen, findings[0].expected, findings[0].why, findings[0].remedy))


def test_every_check_has_a_planted_fault() -> None:
    assert {row[3] for row in PLANTS} >= {one.name for one in CHECKS if not one.models}


def test_the_table_of_checks_is_the_checks() -> None:
    *_, table, _ = re.split(r"^[= ]+$", tldr.doctor.__doc__ or "", flags=re.MULTILINE)
    rows = re.findall(r"^[a-z, ]{1,9}  ([a-z_]+) {2,}\S", table, re.MULTILINE)
    assert sorted(rows) == sorted([*(one.name for one in CHECKS), "unreadable"])


def test_a_run_is_examined_with_all_that_it_was_made_from(study: Path) -> None:
    an_sft_that_learnt_nothing(study)
    a_reward_model_that_counts_words(study)
    runs, findings = examine(study / "ppo-s")
    assert sorted(runs) == ["data", "labels", "ppo-s", "pretrain-s", "reward-s", "sft-s"]
    assert [(one.run, one.check) for one in findings] == [("sft-s", "ngram_floor")]


def test_only_the_study_s_own_runs_are_examined(study: Path) -> None:
    an_sft_that_learnt_nothing(study)
    (study / "study.json").write_text(json.dumps({"runs": [{"folder": "data"}, {"folder": "pretrain-s"}]}))
    assert examine(study) == (["data", "pretrain-s"], [])


def test_labels_in_folds_are_not_held_to_the_split_that_the_data_gives_them(study: Path) -> None:
    labels, fold = study / "labels", study / "labels" / "fold-0"
    fold.mkdir()
    for split in ("train", "valid1", "valid2"):
        (labels / f"{split}.jsonl").rename(fold / f"{split}.jsonl")
    edit_rows(
        fold / "train.jsonl",
        lambda row: {"info": {name: f"new {text}" for name, text in row["info"].items()}},
    )
    rankings = study / "data" / "rankings.jsonl"
    shutil.copyfile(fold / "train.jsonl", rankings)
    edit_rows(rankings, lambda row: {"split": "valid1"})
    assert [one for one in examine(study)[1] if one.check == "leakage"] == []


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="contains no run"):
        examine(tmp_path)


def test_the_command_tells_and_exits_by_faults(study: Path) -> None:
    call = CliRunner().invoke
    a_value_network_that_is_not_there_yet(study)
    told = call(app, ["doctor", str(study)])
    assert told.exit_code == 0
    assert "note: ppo: value_network (ppo-s)" in told.output
    assert "10 runs examined: 0 faults, 0 warnings, 1 note\n" in told.output
    an_sft_that_learnt_nothing(study)
    told = call(app, ["doctor", str(study), "--json"])
    assert told.exit_code == 1
    report = json.loads(told.output)
    assert report["counts"] == {"fault": 1, "warning": 0, "note": 1}
    assert [one["check"] for one in report["findings"]] == ["ngram_floor", "value_network"]
    assert "first_ratio" in call(app, ["doctor", "--list"]).output
    assert call(app, ["doctor"]).exit_code == 2
