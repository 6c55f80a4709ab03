"""The epoch of SFT that a reward model chooses: which one, from what, and what is left of a stopped run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests.stages import forks
from tests.stages import lab as laboratory
from tests.stages.test_sft_evaluation import loss_of
from tldr.errors import UsageError
from tldr.models.ladder import load_policy
from tldr.models.vocabulary import mask_logits
from tldr.queries.encode import encode_queries
from tldr.records import Sample, read_records
from tldr.stages.epoch import stage as epoch_stage
from tldr.stages.epoch.settings import EpochSettings
from tldr.stages.sft.settings import SFTSettings
from tldr.stages.shared.posts import read_posts
from tldr.stages.shared.rouge import rouge_scores
from tldr.stages.shared.sampling import sample_responses
from tldr.stages.shared.tokenizers import eos_id, open_tokenizer
from tldr.train.checkpoint import hash_folder

EPOCHS = laboratory.FURTHER["sft-epochs"][1]
FASTER = EPOCHS | {"optimizer": {"lr": 0.05, "schedule": "constant", "clip": 100.0}}
"""A learning rate at which the epochs differ much."""
NAMES = ["epoch-1", "epoch-2", "checkpoint"]


def sft(lab: Path, folder: Path, **changes: Any) -> Path:
    settings = laboratory.changed("sft", changes)
    return laboratory.run(laboratory.context("sft", lab, folder, settings=settings), "sft")


def choose(lab: Path, folder: Path, policy: Path, **settings: Any) -> Path:
    ctx = laboratory.context("epoch", lab, folder, settings=EpochSettings(**settings))
    return laboratory.run(laboratory.rewired(ctx, policy=policy), "epoch")


def evaluation(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    return found


@torch.no_grad()
def own_rewards(lab: Path, policy: Path, checkpoints: list[str], posts: int) -> list[float]:
    """The mean reward of every checkpoint's greedy summaries: token by token and text by text, without a
    cache, a batch or padding, and with the score that plain transformers reads at the last token."""
    tokenizer = open_tokenizer(lab / "data")
    rows = read_posts(lab / "data", "valid1")[:posts]
    queries = encode_queries(tokenizer, rows, laboratory.LENGTHS.query)
    auto: Any = AutoModelForSequenceClassification
    reward = auto.from_pretrained(lab / "reward" / "checkpoint")
    found = []
    for name in checkpoints:
        model: Any = load_policy(policy / name, tokenizer)
        scores = []
        for query in queries:
            ids = list(query)
            while ids[-1] != eos_id(tokenizer) and len(ids) < len(query) + laboratory.LENGTHS.response:
                logits = mask_logits(model, model(torch.tensor([ids])).logits[0, -1:].clone())
                ids.append(int(logits.argmax()))
            scores.append(float(reward(torch.tensor([ids])).logits[0, 0]))
        found.append(mean(scores))
    return found


@pytest.fixture(scope="module")
def faster(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sft(lab, tmp_path_factory.mktemp("faster"), **FASTER)


def ending_best(lab: Path, policy: Path, folder: Path) -> Path:
    """A copy of an SFT run whose best epoch has changed places with its last one."""
    shutil.copytree(policy, folder)
    rewards = own_rewards(lab, policy, NAMES, 6)
    best = NAMES[rewards.index(max(rewards))]
    shutil.copytree(policy / best, folder / NAMES[-1], dirs_exist_ok=True)
    shutil.copytree(policy / NAMES[-1], folder / best, dirs_exist_ok=True)
    return folder


@pytest.mark.parametrize("last", [False, True])
def test_the_epoch_with_the_highest_mean_reward_is_handed_on(
    lab: Path, tmp_path: Path, faster: Path, last: bool
) -> None:
    policy = ending_best(lab, faster, tmp_path / "policy") if last else lab / "sft-epochs"
    found = evaluation(choose(lab, tmp_path / "epoch", policy, temperature=0.0, posts=6))
    assert [row["checkpoint"] for row in found["epochs"]] == NAMES and found["posts"] == 6
    rewards = own_rewards(lab, policy, NAMES, 6)
    assert [row["rm"] for row in found["epochs"]] == pytest.approx(rewards, abs=1e-4)
    best = rewards.index(max(rewards))
    assert found["epoch"] == [1, 2, 3][best]
    assert hash_folder(tmp_path / "epoch" / "checkpoint") == hash_folder(policy / NAMES[best])
    others = [hash_folder(policy / name) for place, name in enumerate(NAMES) if place != best]
    assert hash_folder(tmp_path / "epoch" / "checkpoint") not in others
    assert (best == 2) == last, "the cases do not tell the last epoch from another one"


def test_the_files_are_links_and_outlive_the_others(lab: Path, tmp_path: Path, faster: Path) -> None:
    found = choose(lab, tmp_path, faster)
    weights = [
        folder / "model.safetensors" for folder in (tmp_path / "checkpoint", faster / chosen_name(found))
    ]
    assert weights[0].samefile(weights[1]) and not weights[0].is_symlink()


def chosen_name(folder: Path) -> str:
    found = evaluation(folder)
    (name,) = [row["checkpoint"] for row in found["epochs"] if row["epoch"] == found["epoch"]]
    return str(name)


def test_the_kept_weights_are_those_of_their_epochs(lab: Path) -> None:
    folder = lab / "sft-epochs"
    for row in json.loads((folder / "epochs.json").read_text())["epochs"]:
        loss = loss_of(folder, lab / "data", row["checkpoint"])
        assert row["valid1_loss"] == pytest.approx(loss, rel=1e-4), row["checkpoint"]


@pytest.mark.parametrize("lora", [None, {"rank": 4, "alpha": 16, "dropout": 0.1}])
def test_keeping_epochs_changes_no_weight_of_the_last(
    lab: Path, tmp_path: Path, lora: dict[str, Any] | None
) -> None:
    """Also adapters are merged into the copy alone, and training goes on with them."""
    kept = sft(lab, tmp_path / "kept", epochs=2.5, select="reward", keep_epochs=[2], lora=lora)
    last = sft(lab, tmp_path / "last", epochs=2.5, lora=lora)
    assert hash_folder(kept / "checkpoint") == hash_folder(last / "checkpoint")
    listed = json.loads((kept / "epochs.json").read_text())["epochs"]
    assert [(row["epoch"], row["checkpoint"]) for row in listed] == [(2, "epoch-2"), (2.5, "checkpoint")]
    assert not (kept / "epoch-1").exists() and not (last / "epochs.json").exists()
    assert evaluation(kept) == evaluation(last)
    assert listed[0]["valid1_loss"] == pytest.approx(loss_of(kept, lab / "data", "epoch-2"), rel=1e-4)


def test_every_epoch_summarizes_the_same_posts_with_the_same_random_numbers(lab: Path) -> None:
    rows = read_records(lab / "epoch" / "epoch_samples.jsonl", Sample)
    posts = read_posts(lab / "data", "valid1")
    by_epoch = {epoch: [row for row in rows if row.tags["epoch"] == epoch] for epoch in (1, 2, 3)}
    for samples in by_epoch.values():
        assert [row.id for row in samples] == [post.id for post in posts]
        assert {row.temperature for row in samples} == {0.7}
        assert [row.scores["rouge"] for row in samples] == rouge_scores(posts, [row.text for row in samples])
    first, last = ({row.text for row in by_epoch[epoch]} for epoch in (1, 3))
    assert first != last
    for row in evaluation(lab / "epoch")["epochs"]:
        for name in ("rm", "rouge", "gold"):
            assert row[name] == pytest.approx(mean(s.scores[name] for s in by_epoch[row["epoch"]]))


def test_a_tie_goes_to_the_earliest_epoch(lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = json.loads((lab / "sft-epochs" / "epochs.json").read_text())["epochs"]
    same = [row | {"checkpoint": "epoch-1"} for row in listed]
    policy = tmp_path / "sft"
    policy.mkdir()
    for name in ("epoch-1", "checkpoint"):
        (policy / name).symlink_to(lab / "sft-epochs" / name)
    (policy / "epochs.json").write_text(json.dumps({"epochs": same}))
    assert evaluation(choose(lab, tmp_path / "epoch", policy))["epoch"] == 1


def test_a_policy_without_epochs_is_refused(lab: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no epochs were kept here") as error:
        choose(lab, tmp_path / "epoch", lab / "sft")
    assert "select: reward" in (error.value.remedy or "")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"select": "reward"}, "epochs 1 has one at most"),
        ({"select": "reward", "epochs": 3.0, "keep_epochs": [3]}, "keep_epochs 3 is not before the end of 3"),
        ({"epochs": 3.0, "keep_epochs": [1]}, "keep_epochs is for select: reward"),
    ],
)
def test_epochs_that_cannot_be_chosen_from_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        SFTSettings(**settings)


def kill_once(done: Callable[[], bool], process: ForkServerProcess) -> None:
    while not done():
        assert process.is_alive(), "ended before the kill"
        process.join(0.001)
    process.kill()
    process.join()


def outputs(folder: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((folder / "DONE").read_text())["outputs"]
    return found


def test_training_that_was_killed_after_an_epoch_ends_with_the_same_epochs(lab: Path, tmp_path: Path) -> None:
    whole, killed = (forks.prepare("sft", lab, tmp_path / name, EPOCHS) for name in ("whole", "killed"))
    forks.finish(whole)
    (process,) = forks.start(killed, held=24)
    kill_once((killed / "epoch-1").exists, process)
    assert not (killed / "checkpoint").exists()
    forks.finish(killed)
    assert outputs(killed) == outputs(whole)
    assert {name.split("/")[0] for name in outputs(whole)} == {
        "checkpoint", "epoch-1", "epoch-2", "epochs.json", "evaluation.json",
    }  # fmt: skip


def test_choosing_that_was_killed_samples_no_epoch_twice(lab: Path, tmp_path: Path) -> None:
    whole, killed = (forks.prepare("epoch", lab, tmp_path / name) for name in ("whole", "killed"))
    forks.finish(whole, tokens=300)
    (process,) = forks.start(killed, tokens=300)
    first = killed / "state" / "epoch-1.jsonl"
    kill_once(first.exists, process)
    assert not (killed / "checkpoint").exists()
    before = first.stat()
    sampled = (killed / "log.txt").read_text().count("batches")
    forks.finish(killed, tokens=300)
    assert outputs(killed) == outputs(whole)
    taken = [(folder / "log.txt").read_text().count("batches") for folder in (whole, killed)]
    assert taken[0] == 4, "three epochs and their scores"
    assert taken[1] - sampled == 3 and before.st_size > 0


def test_a_failure_between_two_epochs_keeps_the_first(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = list[int]()

    def failing(*args: Any, **how: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise ZeroDivisionError
        return sample_responses(*args, **how)

    monkeypatch.setattr(epoch_stage, "sample_responses", failing)
    with pytest.raises(ZeroDivisionError):
        choose(lab, tmp_path / "epoch", lab / "sft-epochs")
    choose(lab, tmp_path / "epoch", lab / "sft-epochs")
    assert len(calls) == 4, "the second and the third epoch after the failure"
    assert evaluation(tmp_path / "epoch") == evaluation(lab / "epoch")
