"""A healthy study as its runs leave it behind: small, in the real formats, without any training."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

from tldr.queries.tokenizer import train_bpe
from tldr.records import (
    CandidateSummary,
    Extra,
    Info,
    Post,
    Ranking,
    Sample,
    write_json,
    write_records,
)
from tldr.settings.base import Settings
from tldr.settings.models import Lengths
from tldr.settings.training import Optimizer
from tldr.stages.data.settings import DataSettings
from tldr.stages.labels.settings import LabelsSettings
from tldr.stages.pairs.settings import PairsSettings
from tldr.stages.ppo.settings import PPOSettings
from tldr.stages.pretrain.settings import PretrainSettings
from tldr.stages.reward.settings import RewardSettings
from tldr.stages.sft.settings import SFTSettings
from tldr.stages.shared.settings import EvaluationSettings
from tldr.study.folder import ParentRun, RunFile, outputs_digest
from tldr.toy.settings import ToyData

LENGTHS = Lengths(query=96, response=24, rm_response=32)
SETTINGS: dict[str, Settings] = {
    "data": DataSettings(data=ToyData()),
    "pretrain": PretrainSettings(optimizer=Optimizer(lr=1e-3)),
    "sft": SFTSettings(optimizer=Optimizer(lr=1e-3)),
    "labels": LabelsSettings(),
    "reward": RewardSettings(optimizer=Optimizer(lr=1e-3)),
    "ppo": PPOSettings(batch=64, optimizer=Optimizer(lr=1e-3)),
    "sample": EvaluationSettings(),
    "score": EvaluationSettings(),
    "pairs": PairsSettings(),
}
RUNS: dict[str, tuple[str, dict[str, str]]] = {
    "data": ("data", {}),
    "pretrain-s": ("pretrain", {"data": "data"}),
    "sft-s": ("sft", {"data": "data", "policy": "pretrain-s"}),
    "labels": ("labels", {"data": "data", "policy-s": "sft-s"}),
    "reward-s": ("reward", {"data": "data", "policy": "sft-s", "labels": "labels"}),
    "ppo-s": ("ppo", {"data": "data", "policy": "sft-s", "reference": "sft-s", "reward": "reward-s"}),
    "sample-sft": ("sample", {"data": "data", "policy": "sft-s"}),
    "score-sft": (
        "score",
        {"data": "data", "samples": "sample-sft", "policy": "sft-s", "sft": "sft-s", "reward": "reward-s"},
    ),
    "score-ppo": (
        "score",
        {"data": "data", "policy": "ppo-s", "ppo": "ppo-s", "sft": "sft-s", "reward": "reward-s"},
    ),
    "pairs": ("pairs", {"data": "data", "labels": "labels", "reward-s": "reward-s", "sft-s": "sft-s"}),
}
"""Folder -> its stage and what it reads."""
WORDS = "uncle sister boss friend sold lost broke found ring car tent dog sad angry calm proud".split()


def build(root: Path) -> Path:
    """Write all of the study."""
    rng = random.Random(1)
    made = {
        name: posts(rng, name, n) for name, n in (("sft", 200), ("valid1", 60), ("valid2", 60), ("ppo", 80))
    }
    for name, rows in made.items():
        write_records(root / "data" / f"{name}.jsonl", rows)
    tokenizer = train_bpe([f" {post.summary} {post.post}" for post in made["sft"]], 330)
    tokenizer.save_pretrained(root / "data" / "tokenizer")
    for run in ("pretrain-s", "sft-s", "reward-s", "ppo-s"):
        write_json(root / run / "checkpoint" / "config.json", {"eos_token_id": 0, "pad_token_id": 1})
        shutil.copytree(root / "data" / "tokenizer", root / run / "checkpoint", dirs_exist_ok=True)
    for split, rows in {"train": made["sft"], "valid1": made["valid1"] * 4, "valid2": made["valid2"]}.items():
        write_records(root / "labels" / f"{split}.jsonl", rankings(rng, split, rows))
    training(rng, root)
    ppo(rng, root / "ppo-s", made["ppo"])
    for run, rm in (("sample-sft", None), ("score-sft", 0.0), ("score-ppo", 0.5)):
        policy = run.split("-")[1]
        write_records(root / run / "samples.jsonl", samples(rng, f"{policy}-s", made["valid2"], rm))
    scored = [pair for row in rankings(rng, "valid2", made["valid2"]) for pair in row.comparisons()]
    for pair in scored:
        for one in pair.summaries:
            one.scores["rm_s"] = rng.gauss(0, 1)
    write_records(root / "pairs" / "valid2.jsonl", scored)
    for folder, (stage, parents) in RUNS.items():
        finish(root / folder, stage, parents)
    return root


def finish(folder: Path, stage: str, parents: dict[str, str]) -> None:
    """Write what the runner writes beside a stage's files."""
    write_json(folder / "DONE", {"outputs": {}, "of": folder.name})
    RunFile(
        stage=stage,
        settings=SETTINGS[stage].model_dump(mode="json"),
        run=folder.name,
        lengths=LENGTHS,
        tags={"size": "s", "method": folder.name.split("-")[-1] if stage in ("sample", "score") else stage},
        parents={
            name: ParentRun(run=parent, outputs=outputs_digest(folder.parent / parent))
            for name, parent in parents.items()
        },
    ).write(folder)


def posts(rng: random.Random, name: str, count: int) -> list[Post]:
    """Posts whose summaries are of nine words."""
    return [
        Post(
            id=f"{name}-{number}",
            subreddit="self",
            title=f"title {name} {number}",
            post=f"{name} {number}: {' '.join(rng.choices(WORDS, k=20))}.",
            summary=" ".join(rng.choices(WORDS, k=9)),
        )
        for number in range(count)
    ]


def rankings(rng: random.Random, split: Any, rows: list[Post]) -> list[Ranking]:
    """A labeler's answer about two new summaries of every post, whose lengths say nothing."""
    return [
        Ranking(
            info=Info(id=post.id, subreddit=post.subreddit, title=post.title, post=post.post),
            summaries=[
                CandidateSummary(text=" " + " ".join(rng.choices(WORDS, k=k)), policy="s")
                for k in (words, words)
            ],
            rank=rng.choice([[1, 2], [2, 1]]),
            worker=f"worker-{number % 5}",
            batch="1",
            split=split,
            extra=Extra(confidence=7),
        )
        for number, post in enumerate(rows)
        for words in (rng.randint(5, 14),)
    ]


def samples(rng: random.Random, policy: str, rows: list[Post], rm: float | None) -> list[Sample]:
    """A sample of every post, scored if `rm` is given: it and gold are the means of two scores."""
    found = []
    for post in rows:
        ids = [*rng.sample(range(2, 300), 12), 0]
        scores = {}
        if rm is not None:
            scores = {
                "rm": rng.gauss(rm, 0.2),
                "gold": rng.gauss(4 + rm, 0.5),
                "rm_reference": rng.gauss(0, 1),
            }
        text = " " + " ".join(map(str, ids))
        found.append(
            Sample(
                id=post.id,
                policy=policy,
                temperature=0.0,
                text=text,
                response_ids=ids,
                tokens=13,
                stopped=True,
                scores=scores,
            )
        )
    return found


def training(rng: random.Random, root: Path) -> None:
    """The logs of three stages whose losses fall, and what the reward model says of itself."""
    for run in ("pretrain-s", "sft-s", "reward-s"):
        rows = [
            {
                "update": n,
                "loss": 3 / n**0.5,
                "grad_norm": rng.uniform(0.2, 0.9),
                "lr": min(n / 5, 1.0) * 1e-3,
            }
            for n in range(1, 41)
        ]
        if run == "sft-s":
            rows[-1]["valid_loss"] = 0.4
        log(root / run, rows)
    write_json(
        root / "reward-s" / "evaluation.json",
        {"valid1_accuracy": 0.72, "valid1_pairs": 240, "reference_mean": 1e-9, "shift": 1.5},
    )


def ppo(rng: random.Random, folder: Path, rows: list[Post]) -> None:
    """A log of 16 iterations, and the last one's episodes: log-ratios N(1, 2), as of a KL of 1 nat."""
    episodes = []
    for post in rows[:64]:
        ratio, tokens = rng.gauss(1.0, 2**0.5), rng.randint(9, 15)
        episodes.append(
            Sample(
                id=post.id,
                policy="ppo-s",
                text=" x",
                tokens=tokens,
                stopped=True,
                logprob=-9.0,
                logprob_sft=-9.0 - ratio,
                scores={"rm": rng.gauss(0.5, 0.2)},
                tags={"iteration": 16},
            )
        )
    write_records(folder / "rollouts.jsonl", episodes)
    kl = fmean((row.logprob or 0) - (row.logprob_sft or 0) for row in episodes)
    log(
        folder,
        [
            {
                "update": n, "kl": kl * (n - 1) / 15, "score": 0.03 * n, "length": 12.0, "eos_rate": 1.0,
                "explained_variance": n / 20, "first_ratio": 1.0 + 1e-6, "first_approx_kl": 1e-8,
                "sampler_gap": 0.01, "loss": 0.1, "entropy": 0.5, "clip_fraction": 0.03,
                "grad_norm_policy": 0.3, "grad_norm_value": 0.3,
                "lr_policy": min(n / 5, 1.0) * 1e-3,
            }
            for n in range(1, 17)
        ],
    )  # fmt: skip


def log(folder: Path, rows: list[dict[str, float]]) -> None:
    """Write ``metrics.jsonl``; unlike the stages it takes NaN."""
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def edit_log(folder: Path, change: Callable[[dict[str, float]], dict[str, float]]) -> None:
    """Change the figures of every logged row."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    log(folder, [row | change(row) for row in rows])


def edit_json(path: Path, **changes: Any) -> None:
    """Change an object's fields; a library's file may hold numbers that ours refuse."""
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def edit_rows(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change every row of a file of records."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("".join(json.dumps(row | change(row)) + "\n" for row in rows), encoding="utf-8")
