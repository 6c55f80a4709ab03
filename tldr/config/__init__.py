"""What an experiment is: typed settings, one class a stage, one YAML file a study.

A field typed ``PerSize[...]`` takes one value, or one for every model of the ladder
(``lr: {s: 5e-3, m: 4e-3}``); nothing is set in two places. Loading, overriding and hashing live in
`tldr.study`.
"""

from __future__ import annotations

from tldr.config.base import Name, PerSize, Precision, Settings, one
from tldr.config.data import DataStage, FileData, Lengths, ModelSpec, TokenizerSpec, ToyData
from tldr.config.stages import (
    PPO,
    SFT,
    AdaptiveKL,
    BestOfN,
    EOSRule,
    Evaluation,
    Finetuning,
    Labels,
    Lora,
    Optimizer,
    Pairs,
    Pretrain,
    Ratings,
    Reward,
    Training,
    ZeroShot,
)
from tldr.config.study import BestOfNVariant, PPOVariant, RewardVariant, Study, Variant

__all__ = [
    "PPO",
    "SFT",
    "AdaptiveKL",
    "BestOfN",
    "BestOfNVariant",
    "DataStage",
    "EOSRule",
    "Evaluation",
    "FileData",
    "Finetuning",
    "Labels",
    "Lengths",
    "Lora",
    "ModelSpec",
    "Name",
    "Optimizer",
    "PPOVariant",
    "Pairs",
    "PerSize",
    "Precision",
    "Pretrain",
    "Ratings",
    "Reward",
    "RewardVariant",
    "Settings",
    "Study",
    "TokenizerSpec",
    "ToyData",
    "Training",
    "Variant",
    "ZeroShot",
    "one",
]
