"""A laboratory small enough for tests: every stage of the toy study on tiny models, in fp32."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from tldr import config
from tldr.config import Lengths, ModelSpec, Optimizer
from tldr.stages.context import RunContext

LENGTHS = Lengths(query=96, response=48, rm_response=64)
MODEL = ModelSpec(d_model=16, layers=2, heads=2, context=256, init="mimetic")
PPO = config.PPO(
    batch=16,
    samples_per_query=2,
    minibatches=2,
    episodes=64,
    epochs=2,
    save_every=1,
    optimizer=Optimizer(lr=1e-3, schedule="linear"),
)
SETTINGS: dict[str, config.Settings] = {
    "data": config.DataStage(
        data=config.ToyData(corpus=300, sft_posts=96, ppo_posts=128, valid1_posts=24, valid2_posts=24),
        tokenizer=config.TokenizerSpec(vocab_size=512),
    ),
    "pretrain": config.Pretrain(steps=24, batch=8, save_every=4, optimizer=Optimizer(lr=1e-2, warmup=0.1)),
    "sft": config.SFT(batch=8, save_every=3, dropout=0.1, optimizer=Optimizer(lr=5e-3)),
    "labels": config.Labels(pairs=96, valid_pairs=48),
    "reward": config.Reward(batch=8, save_every=3, optimizer=Optimizer(lr=5e-3)),
    "ppo": PPO,
    "best_of_n": config.BestOfN(n=4, scorers=["rm", "gold", "rouge"]),
    "sample": config.Evaluation(temperatures=[0.0, 0.7]),
    "score": config.Evaluation(),
    "pairs": config.Pairs(posts=8, workers=3),
    "ratings": config.Ratings(posts=8),
}
INPUTS: dict[str, dict[str, str]] = {
    "data": {},
    "pretrain": {"data": "data"},
    "sft": {"policy": "pretrain", "data": "data"},
    "labels": {"data": "data", "policy-s": "sft"},
    "reward": {"policy": "sft", "labels": "labels", "data": "data"},
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
}
METHODS = {"sample": "ppo", "score": "ppo", "best_of_n": "best_of_n", "ppo": "ppo"}
TRAINED = ("pretrain", "sft", "reward", "ppo")


def context(stage: str, root: Path, folder: Path, seed: int = 0, **changes: Any) -> RunContext[Any]:
    """The run of a stage whose parents lie in `root`."""
    folder.mkdir(parents=True, exist_ok=True)
    tags: dict[str, str | int | float | bool] = {"size": "s", "method": METHODS.get(stage, stage)}
    fields: dict[str, Any] = {
        "settings": SETTINGS[stage],
        "folder": folder,
        "inputs": {name: root / parent for name, parent in INPUTS[stage].items()},
        "seed": seed,
        "model": MODEL,
        "lengths": LENGTHS,
        "precision": "fp32",
        "study": "test",
        "run": folder.name,
        "tags": tags,
    }
    return RunContext(**(fields | changes))


def run(ctx: RunContext[Any], stage: str) -> Path:
    """Run a stage; its folder."""
    import_module(f"tldr.stages.{stage}").run(ctx)
    return ctx.folder


def build(root: Path) -> Path:
    """Run every stage once, each on what the one before made."""
    for stage in SETTINGS:
        run(context(stage, root, root / stage), stage)
    return root


def changed(stage: str, changes: dict[str, Any]) -> config.Settings:
    """The stage's settings with others in some places."""
    settings = SETTINGS[stage]
    return type(settings).model_validate({**settings.model_dump(), **changes})
