"""A laboratory small enough for tests: every stage of the toy study on tiny models, in fp32."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tldr.settings.base import Settings
from tldr.settings.models import Lengths, ModelSpec
from tldr.settings.training import Optimizer
from tldr.stages.best_of_n.settings import BestOfNSettings
from tldr.stages.data.settings import DataSettings, TokenizerSpec
from tldr.stages.epoch.settings import EpochSettings
from tldr.stages.judge.settings import JudgeSettings
from tldr.stages.labels.settings import LabelsSettings
from tldr.stages.pairs.settings import PairsSettings
from tldr.stages.ppo.algorithm import PPO
from tldr.stages.ppo.settings import PPOSettings
from tldr.stages.ppo.stage import open_ppo
from tldr.stages.pretrain.settings import PretrainSettings
from tldr.stages.ratings.settings import RatingsSettings
from tldr.stages.reward.settings import RewardSettings
from tldr.stages.sft.settings import SFTSettings
from tldr.stages.shared.context import RunContext
from tldr.stages.shared.posts import read_posts
from tldr.stages.shared.settings import EvaluationSettings
from tldr.stages.shared.tokenizers import open_tokenizer
from tldr.study.registry import STAGES
from tldr.toy.settings import ToyData

LENGTHS = Lengths(query=96, response=48, rm_response=64)
MODEL = ModelSpec(d_model=16, layers=2, heads=2, context=256, init="mimetic")
PPO_SETTINGS = PPOSettings(
    batch=16,
    samples_per_query=2,
    minibatches=2,
    episodes=64,
    epochs=2,
    save_every=1,
    optimizer=Optimizer(lr=1e-3, schedule="linear"),
)
SETTINGS: dict[str, Settings] = {
    "data": DataSettings(
        data=ToyData(corpus=300, sft_posts=96, ppo_posts=128, valid1_posts=24, valid2_posts=24),
        tokenizer=TokenizerSpec(vocab_size=512),
    ),
    "pretrain": PretrainSettings(steps=24, batch=8, save_every=4, optimizer=Optimizer(lr=1e-2, warmup=0.1)),
    "sft": SFTSettings(batch=8, save_every=3, dropout=0.1, optimizer=Optimizer(lr=5e-3)),
    "labels": LabelsSettings(pairs=96, valid_pairs=48),
    "reward": RewardSettings(batch=8, save_every=3, optimizer=Optimizer(lr=5e-3)),
    "epoch": EpochSettings(),
    "ppo": PPO_SETTINGS,
    "best_of_n": BestOfNSettings(n=4, scorers=["rm", "gold", "rouge"]),
    "sample": EvaluationSettings(temperatures=[0.0, 0.7]),
    "score": EvaluationSettings(),
    "pairs": PairsSettings(posts=8, workers=3),
    "ratings": RatingsSettings(posts=8),
    "judge": JudgeSettings(kind="reward", path="given as an input", posts=20),
}
INPUTS: dict[str, dict[str, str]] = {
    "data": {},
    "pretrain": {"data": "data"},
    "sft": {"policy": "pretrain", "data": "data"},
    "labels": {"data": "data", "policy-s": "sft"},
    "reward": {"policy": "sft", "labels": "labels", "data": "data"},
    "epoch": {"policy": "sft-epochs", "reward": "reward", "data": "data"},
    "ppo": {"policy": "sft", "reference": "sft", "reward": "reward", "data": "data"},
    "best_of_n": {"policy": "sft", "reward": "reward", "data": "data"},
    "sample": {"policy": "ppo", "data": "data"},
    "score": {
        "samples": "sample",
        "policy": "ppo",
        "ppo": "ppo",
        "sft": "sft",
        "reward": "reward",
        "data": "data",
    },
    "pairs": {
        "data": "data",
        "labels": "labels",
        "policy-sft-s": "sft",
        "reward-s": "reward",
        "sft-s": "sft",
    },
    "ratings": {"data": "data", "samples-ppo-s": "sample"},
    "judge": {"data": "data", "samples-ppo-s": "score", "reward": "reward"},
}
METHODS = {"sample": "ppo", "score": "ppo", "best_of_n": "best_of_n", "ppo": "ppo"}
FURTHER: dict[str, tuple[str, dict[str, Any]]] = {
    "sft-epochs": ("sft", {"epochs": 3.0, "select": "reward"}),
}
"""Further runs that a stage reads: folder -> stage and other settings."""
TRAINED = ("pretrain", "sft", "reward", "ppo")


def context(
    stage: str,
    root: Path,
    folder: Path,
    seed: int = 0,
    inputs: dict[str, Path] | None = None,
    **changes: Any,
) -> RunContext[Any, Any]:
    """The run of a stage whose parents lie in `root`, or are the inputs given."""
    folder.mkdir(parents=True, exist_ok=True)
    tags: dict[str, str | int | float | bool] = {"size": "s", "method": METHODS.get(stage, stage)}
    fields: dict[str, Any] = {
        "settings": SETTINGS[stage],
        "folder": folder,
        "inputs": STAGES[stage].typed(
            {name: root / parent for name, parent in INPUTS[stage].items()} if inputs is None else inputs
        ),
        "seed": seed,
        "model": MODEL,
        "lengths": LENGTHS,
        "precision": "fp32",
        "study": "test",
        "run": folder.name,
        "tags": tags,
    }
    return RunContext(**(fields | changes))


def rewired(ctx: RunContext[Any, Any], **inputs: Any) -> RunContext[Any, Any]:
    """The same run with other inputs."""
    return replace(ctx, inputs=replace(ctx.inputs, **inputs))


def ppo_of(ctx: RunContext[Any, Any]) -> PPO:
    """The PPO stage's algorithm on the networks and posts of a run."""
    tokenizer, posts = open_tokenizer(ctx.inputs.policy), read_posts(ctx.inputs.data, "ppo")
    return open_ppo(ctx, tokenizer, posts)


def run(ctx: RunContext[Any, Any], stage: str) -> Path:
    """Run a stage; its folder."""
    STAGES[stage].load(ctx.settings.model_dump(mode="json"))(ctx)
    return ctx.folder


def build(root: Path) -> Path:
    """Run every stage once, each on what the ones before made."""
    for name, stage, changes in every_run():
        run(context(stage, root, root / name, settings=changed(stage, changes)), stage)
    return root


def every_run() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Folder, stage and other settings of every run of the laboratory, each after those that it reads."""
    for stage in SETTINGS:
        for name in INPUTS[stage].values():
            if name in FURTHER:
                yield name, *FURTHER[name]
        yield stage, stage, {}


def changed(stage: str, changes: dict[str, Any]) -> Settings:
    """The stage's settings with others in some places."""
    settings = SETTINGS[stage]
    return type(settings).model_validate({**settings.model_dump(), **changes})
